// What the two halves of the stand-in share: the rules they hold their callers to.
//
// A broken rule ends the process with a line that says which; so does an object that is left at the end of it. The
// folder that the variable STANDIN names may hold a file `fail` with the name of a call, which then fails as its own
// documentation has it.
#pragma once

#include <cstddef>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

namespace standin {

// A rule is broken.
[[noreturn]] void breach(std::string const& rule) noexcept;

// A call that the shim is not known to make.
[[noreturn]] void unexpected(char const* declaration) noexcept;

// Whether `fail` names this call.
bool fails(char const* call);

// Whether the file `device` in that folder has this word: what the GPU is.
bool is(char const* word);

// Held by every call.
std::recursive_mutex& lock();

// Counts the living; whoever is left at the end of the process is a leak.
class Counted {
public:
    explicit Counted(char const* kind);
    Counted(Counted const&) = delete;
    ~Counted();

private:
    char const* kind_;
};

// `work` is done when the stream is waited for and not before, so that whoever reads or writes too early is found out.
// `memory`: addresses that it uses, which must not be freed before.
void enqueue(void* stream, std::vector<void const*> memory, std::function<void()> work);

// Whether what is put onto the stream is captured.
bool capturing(void* stream);

// Whether `[address, address + size)` lies within living device memory.
bool on_device(void const* address, std::size_t size);

// Whether it is memory of the host's that is written past its caches.
bool write_combined(void const* address);

// Whether this thread has a current CUDA context, and `stream` lives.
void check_current(char const* call, void* stream);

}  // namespace standin
