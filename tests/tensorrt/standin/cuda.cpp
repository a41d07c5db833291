// The part of the CUDA driver that the backend uses, on host memory. Streams are lazy: see `enqueue`. Captures are in
// `graphs.cpp`, memory that both sides have in `mapped.cpp`.
#include "driver.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

using namespace standin::driver;

namespace {

char context_of_the_device;
thread_local void* current = nullptr;

struct LastCheck {
    ~LastCheck() {
        for (auto const& [kind, count] : state().alive)
            if (count != 0) {
                std::fprintf(stderr, "stand-in: %d of kind `%s` left at the end\n", count, kind.c_str());
                std::fflush(stderr);
                _exit(87);
            }
    }
} last_check;

// Of `cuMemHostAlloc`.
constexpr unsigned kMapped = 2, kCombined = 4;

int allocate(char const* call, void** out, std::size_t size, bool device, unsigned flags = 0) {
    not_in_a_capture(call);
    if (current == nullptr) return kInvalidContext;
    if (size == 0) return kInvalidValue;
    if (standin::fails(call) || state().used + size > kTotal) return kOutOfMemory;
    if ((flags & kMapped) != 0) {
        if (standin::is("unmappable")) return kInvalidValue;
        return allocate_mapped(out, size, (flags & kCombined) != 0), kSuccess;
    }
    *out = std::aligned_alloc(256, (size + 255) / 256 * 256);
    std::memset(*out, 0xA5, size);
    auto block = std::make_unique<Block>();
    block->size = size, block->device = device;
    state().used += size;
    state().blocks.emplace(reinterpret_cast<std::uintptr_t>(*out), std::move(block));
    return kSuccess;
}

int release(char const* call, void* address, bool device) {
    not_in_a_capture(call);
    auto const found = state().blocks.find(reinterpret_cast<std::uintptr_t>(address));
    if (found == state().blocks.end() || found->second->device != device)
        standin::breach(std::string(call) + " of memory that is not there");
    void* const twin = found->second->twin;
    if (device && twin != nullptr) standin::breach(std::string(call) + " of memory that is the host's");
    for (auto const* stream : state().streams)
        for (auto const& work : stream->queue)
            for (auto const* used : work.memory)
                if (auto const* block = find(used, 0);
                    block == found->second.get() || (twin != nullptr && block == find(twin, 0)))
                    standin::breach(std::string(call) + " of memory that enqueued work uses");
    if (twin != nullptr) return release_mapped(address), kSuccess;
    state().used -= found->second->size;
    std::memset(address, 0x5A, found->second->size);
    std::free(address);
    state().blocks.erase(found);
    return kSuccess;
}

int copy(char const* call, void* to, void const* from, std::size_t size, bool up, void* stream) {
    standin::check_current(call, stream);
    Block const *const target = find(to, size), *const source = find(from, size);
    if (target == nullptr || source == nullptr || target->device != up || source->device == up)
        standin::breach(std::string(call) + " beyond the ends of memory, or of memory that is not pinned");
    if (target->twin != nullptr || source->twin != nullptr)
        standin::breach(std::string(call) + " of memory that both sides have");
    if (standin::fails(call)) return kLaunchFailed;
    standin::enqueue(stream, {to, from}, [=] { std::memcpy(to, from, size); });
    return kSuccess;
}

// Of `CUDA_MEMCPY2D`.
struct Copy2D {
    std::size_t from_x, from_y;
    int from_kind;
    void const* from_host;
    unsigned long long from_device;
    void* from_array;
    std::size_t from_pitch, to_x, to_y;
    int to_kind;
    void* to_host;
    unsigned long long to_device;
    void* to_array;
    std::size_t to_pitch, width, height;
};
constexpr int kHost = 1, kDevice = 2;

int copy_rows(Copy2D const& what, void* stream) {
    standin::check_current("cuMemcpy2DAsync", stream);
    if (what.from_y != 0 || what.to_y != 0 || what.width > what.from_pitch || what.width > what.to_pitch)
        standin::breach("cuMemcpy2DAsync with rows that overlap, or that start elsewhere");
    auto const* const from = (what.from_kind == kHost ? static_cast<char const*>(what.from_host)
                                                      : reinterpret_cast<char const*>(what.from_device)) + what.from_x;
    auto* const to = (what.to_kind == kHost ? static_cast<char*>(what.to_host)
                                            : reinterpret_cast<char*>(what.to_device)) + what.to_x;
    Block const *const source = find(from, (what.height - 1) * what.from_pitch + what.width),
                *const target = find(to, (what.height - 1) * what.to_pitch + what.width);
    if (source == nullptr || target == nullptr || source->device != (what.from_kind == kDevice) ||
        target->device != (what.to_kind == kDevice))
        standin::breach("cuMemcpy2DAsync beyond the ends of memory, or of memory that is not pinned");
    if (standin::fails("cuMemcpy2DAsync")) return kLaunchFailed;
    standin::enqueue(stream, {to, from}, [=] {
        for (std::size_t row = 0; row < what.height; ++row) {
            char const* const a = from + row * what.from_pitch;
            char* const b = to + row * what.to_pitch;
            if (a < b + what.width && b < a + what.width) standin::breach("cuMemcpy2DAsync onto itself");
            std::memcpy(b, a, what.width);
        }
    });
    return kSuccess;
}

Event* living_event(void* event) {
    auto* const one = static_cast<Event*>(event);
    if (state().events.count(one) == 0) standin::breach("use of an event that is not there");
    return one;
}

}  // namespace

namespace standin {

void breach(std::string const& rule) noexcept {
    std::fprintf(stderr, "stand-in: %s\n", rule.c_str());
    std::fflush(stderr);
    std::abort();
}

void unexpected(char const* declaration) noexcept {
    breach(std::string("does not know the call `") + declaration + "`");
}

bool says(char const* file, char const* word) {
    char const* const folder = std::getenv("STANDIN");
    std::string named;
    if (folder == nullptr) return false;
    std::ifstream words(std::string(folder) + "/" + file);
    while (words >> named)
        if (named == word) return true;
    return false;
}
bool fails(char const* call) { return says("fail", call); }
bool is(char const* word) { return says("device", word); }

std::recursive_mutex& lock() { return state().lock; }

Counted::Counted(char const* kind) : kind_(kind) {
    Guard guard(lock());
    ++state().alive[kind];
}
Counted::~Counted() {
    Guard guard(lock());
    --state().alive[kind_];
}

void enqueue(void* stream, std::vector<void const*> memory, std::function<void()> work) {
    auto* const to = living(stream);
    (to->capture ? to->capture->work : to->queue).push_back(Work{std::move(memory), std::move(work)});
}

bool on_device(void const* address, std::size_t size) {
    Block const* const block = find(address, size);
    return block != nullptr && block->device;
}

void check_current(char const* call, void* stream) {
    if (current == nullptr) breach(std::string(call) + " on a thread without a CUDA context");
    living(stream);
}

}  // namespace standin

#pragma GCC visibility push(default)
extern "C" {

int cuInit(unsigned) { return standin::fails("cuInit") ? kNoDevice : kSuccess; }
int cuDeviceGetCount(int* count) { return *count = 1, kSuccess; }
int cuDeviceGet(int* device, int ordinal) { return *device = 0, ordinal == 0 ? kSuccess : kInvalidDevice; }
int cuDeviceGetName(char* name, int length, int) { return std::snprintf(name, length, "Stand-in"), kSuccess; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
    case kMajor: return *value = 8, kSuccess;
    case kMinor: return *value = 6, kSuccess;
    case kIntegrated: return *value = standin::is("integrated") ? 1 : 0, kSuccess;
    case kCanMap: return *value = standin::is("unmappable") ? 0 : 1, kSuccess;
    default: return *value = 0, kSuccess;
    }
}
int cuDeviceTotalMem_v2(std::size_t* bytes, int) { return *bytes = kTotal, kSuccess; }
int cuDevicePrimaryCtxRetain(void** context, int) {
    Guard guard(standin::lock());
    if (standin::fails("cuDevicePrimaryCtxRetain")) return kOutOfMemory;
    ++state().retained, ++state().alive["primary context"];
    return *context = &context_of_the_device, kSuccess;
}
int cuDevicePrimaryCtxRelease_v2(int) {
    Guard guard(standin::lock());
    if (state().retained == 0) standin::breach("the primary context is released more often than it was retained");
    return --state().retained, --state().alive["primary context"], kSuccess;
}
int cuCtxGetCurrent(void** context) { return *context = current, kSuccess; }
int cuCtxSetCurrent(void* context) { return current = context, kSuccess; }
int cuCtxSynchronize() {
    Guard guard(standin::lock());
    for (auto* stream : state().streams) stream->finish();
    return kSuccess;
}
int cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    Guard guard(standin::lock());
    return *total = kTotal, *free = kTotal - state().used, kSuccess;
}
int cuMemAlloc_v2(unsigned long long* address, std::size_t size) {
    Guard guard(standin::lock());
    void* found = nullptr;
    int const result = allocate("cuMemAlloc", &found, size, true);
    return *address = reinterpret_cast<std::uintptr_t>(found), result;
}
int cuMemFree_v2(unsigned long long address) {
    Guard guard(standin::lock());
    return release("cuMemFree", reinterpret_cast<void*>(address), true);
}
int cuMemHostAlloc(void** address, std::size_t size, unsigned flags) {
    Guard guard(standin::lock());
    return allocate("cuMemHostAlloc", address, size, false, flags);
}
int cuMemFreeHost(void* address) {
    Guard guard(standin::lock());
    return release("cuMemFreeHost", address, false);
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, void const* from, std::size_t size, void* stream) {
    Guard guard(standin::lock());
    return copy("cuMemcpyHtoDAsync", reinterpret_cast<void*>(to), from, size, true, stream);
}
int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, std::size_t size, void* stream) {
    Guard guard(standin::lock());
    return copy("cuMemcpyDtoHAsync", to, reinterpret_cast<void*>(from), size, false, stream);
}
int cuMemsetD8Async(unsigned long long to, unsigned char value, std::size_t size, void* stream) {
    Guard guard(standin::lock());
    standin::check_current("cuMemsetD8Async", stream);
    void* const at = reinterpret_cast<void*>(to);
    if (!standin::on_device(at, size)) standin::breach("cuMemsetD8Async beyond the ends of memory");
    standin::enqueue(stream, {at}, [=] { std::memset(at, value, size); });
    return standin::fails("cuMemsetD8Async") ? kLaunchFailed : kSuccess;
}
int cuMemcpy2DAsync_v2(Copy2D const* what, void* stream) {
    Guard guard(standin::lock());
    return copy_rows(*what, stream);
}
int cuStreamCreate(void** stream, unsigned) {
    Guard guard(standin::lock());
    if (standin::fails("cuStreamCreate")) return kOutOfMemory;
    auto* const one = new Stream();
    state().streams.insert(one);
    return *stream = one, kSuccess;
}
int cuStreamSynchronize(void* stream) {
    Guard guard(standin::lock());
    living(stream)->finish();
    return standin::fails("cuStreamSynchronize") ? kLaunchFailed : kSuccess;
}
int cuStreamDestroy_v2(void* stream) {
    Guard guard(standin::lock());
    if (!living(stream)->queue.empty() || living(stream)->capture)
        standin::breach("a stream is destroyed with work on it, or while it is captured");
    state().streams.erase(static_cast<Stream*>(stream));
    return delete static_cast<Stream*>(stream), kSuccess;
}
int cuEventCreate(void** event, unsigned) {
    Guard guard(standin::lock());
    if (standin::fails("cuEventCreate")) return kOutOfMemory;
    auto* const one = new Event();
    state().events.insert(one);
    return *event = one, kSuccess;
}
int cuEventRecord(void* event, void* stream) {
    Guard guard(standin::lock());
    standin::check_current("cuEventRecord", stream);
    not_in_a_capture("cuEventRecord");
    auto* const one = living_event(event);
    one->stream = living(stream), one->reached = false;
    standin::enqueue(stream, {}, [one] { one->at = std::chrono::steady_clock::now(), one->reached = true; });
    return kSuccess;
}
int cuStreamWaitEvent(void* stream, void* event, unsigned) {
    Guard guard(standin::lock());
    standin::check_current("cuStreamWaitEvent", stream);
    not_in_a_capture("cuStreamWaitEvent");
    if (standin::fails("cuStreamWaitEvent")) return kLaunchFailed;
    auto* const one = living_event(event);
    auto* const from = one->stream;
    standin::enqueue(stream, {}, [one, from] {
        // A stream that is gone has done its work.
        if (!one->reached && from != nullptr && state().streams.count(from) != 0) from->finish();
    });
    return kSuccess;
}
int cuEventSynchronize(void* event) {
    Guard guard(standin::lock());
    auto* const one = living_event(event);
    if (one->stream != nullptr) living(one->stream)->finish();
    return kSuccess;
}
int cuEventElapsedTime(float* ms, void* start, void* end) {
    Guard guard(standin::lock());
    auto const *const from = living_event(start), *const to = living_event(end);
    if (!from->reached || !to->reached) return kNotReady;
    *ms = std::chrono::duration<float, std::milli>(to->at - from->at).count();
    return kSuccess;
}
int cuEventDestroy_v2(void* event) {
    Guard guard(standin::lock());
    state().events.erase(living_event(event));
    return delete static_cast<Event*>(event), kSuccess;
}
int cuGetErrorName(int error, char const** name) {
    *name = error == kOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR";
    return kSuccess;
}
int cuGetErrorString(int error, char const** text) {
    *text = error == kOutOfMemory    ? "out of memory"
            : error == kNoDevice     ? "no CUDA-capable device is detected"
            : error == kLaunchFailed ? "unspecified launch failure"
                                     : "an error";
    return kSuccess;
}

}  // extern "C"
