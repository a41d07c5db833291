// What the files of the driver's half share.
#pragma once

#include "standin.h"

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>

namespace standin::driver {

using Guard = std::lock_guard<std::recursive_mutex>;

// Of `CUresult`.
[[maybe_unused]] constexpr int kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kNoDevice = 100, kInvalidDevice = 101,
              kInvalidContext = 201, kNotReady = 600, kLaunchFailed = 719, kCaptureInvalidated = 901;
// Of `CUdevice_attribute`.
constexpr int kIntegrated = 18, kCanMap = 19, kMajor = 75, kMinor = 76;
constexpr std::size_t kTotal = std::size_t{1} << 33;

struct Work {
    std::vector<void const*> memory;
    std::function<void()> run;
};

// Work that was captured, and what can be launched of it.
struct Graph {
    standin::Counted counted{"graph"};
    std::vector<Work> work;
};

struct Exec {
    standin::Counted counted{"graph to launch"};
    std::vector<Work> work;
};

struct Stream {
    standin::Counted counted{"stream"};
    std::vector<Work> queue;
    std::unique_ptr<Graph> capture;  // Null where none is under way.
    void finish() {
        if (capture) breach("a stream is waited for while it is captured");
        for (auto& work : queue) work.run();
        queue.clear();
    }
};

struct Event {
    standin::Counted counted{"event"};
    Stream* stream = nullptr;
    bool reached = false;
    std::chrono::steady_clock::time_point at;
};

struct Block {
    standin::Counted counted{"memory"};
    std::size_t size = 0;
    bool device = false;
    // Of memory that both sides have: its address on the other, and whether reading it is slow on the host's.
    void* twin = nullptr;
    bool combined = false;
};

// Memory that both sides have, and its end.
void allocate_mapped(void** out, std::size_t size, bool combined);
void release_mapped(void* host);

// Never destroyed: the last check runs when the process ends.
struct State {
    std::recursive_mutex lock;
    std::map<std::string, int> alive;
    std::map<std::uintptr_t, std::unique_ptr<Block>> blocks;
    std::set<Stream*> streams;
    std::set<Event*> events;
    std::set<Graph*> graphs;
    std::set<Exec*> execs;
    std::size_t used = 0;
    int retained = 0;
};

inline State& state() {
    static State* const one = new State();
    return *one;
}

// The block that holds all of the range.
inline Block* find(void const* address, std::size_t size) {
    auto const at = reinterpret_cast<std::uintptr_t>(address);
    auto next = state().blocks.upper_bound(at);
    if (next == state().blocks.begin()) return nullptr;
    --next;
    return at + size <= next->first + next->second->size ? next->second.get() : nullptr;
}

inline Stream* living(void* stream) {
    auto* const one = static_cast<Stream*>(stream);
    if (state().streams.count(one) == 0) standin::breach("use of a stream that is not there");
    return one;
}

// Allocating, freeing and timing are not for a thread that captures.
extern thread_local int captures;
inline void not_in_a_capture(char const* call) {
    if (captures != 0) breach(std::string(call) + " in a capture");
}

}  // namespace standin::driver
