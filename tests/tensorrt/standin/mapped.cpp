// Memory that host and GPU both have: one memory under two addresses, so that whoever takes one for the other is found
// out.
#include "driver.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

using namespace standin::driver;

namespace {

constexpr std::size_t kPage = 4096;

std::size_t pages(std::size_t size) { return (size + kPage - 1) / kPage * kPage; }

void* map(int file, std::size_t size) {
    void* const at = mmap(nullptr, pages(size), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) standin::breach("the stand-in cannot map memory twice");
    return at;
}

void keep(void* at, void* twin, std::size_t size, bool device, bool combined) {
    auto block = std::make_unique<Block>();
    block->size = size, block->device = device, block->twin = twin, block->combined = combined;
    state().blocks.emplace(reinterpret_cast<std::uintptr_t>(at), std::move(block));
}

}  // namespace

namespace standin::driver {

void allocate_mapped(void** out, std::size_t size, bool combined) {
    int const file = memfd_create("mapped", 0);
    if (file < 0 || ftruncate(file, static_cast<off_t>(pages(size))) != 0)
        breach("the stand-in has no memory to map twice");
    void *const host = map(file, size), *const device = map(file, size);
    close(file);
    std::memset(host, 0xA5, size);
    keep(host, device, size, false, combined);
    keep(device, host, size, true, combined);
    state().used += size;
    *out = host;
}

void release_mapped(void* host) {
    auto const found = state().blocks.find(reinterpret_cast<std::uintptr_t>(host));
    std::size_t const size = found->second->size;
    void* const device = found->second->twin;
    state().used -= size;
    state().blocks.erase(found);
    state().blocks.erase(reinterpret_cast<std::uintptr_t>(device));
    munmap(host, pages(size)), munmap(device, pages(size));
}

}  // namespace standin::driver

namespace standin {

bool write_combined(void const* address) {
    Block const* const block = find(address, 0);
    return block != nullptr && block->combined;
}

}  // namespace standin

#pragma GCC visibility push(default)
extern "C" int cuMemHostGetDevicePointer_v2(unsigned long long* device, void* host, unsigned) {
    Guard guard(standin::lock());
    auto const found = state().blocks.find(reinterpret_cast<std::uintptr_t>(host));
    if (found == state().blocks.end() || found->second->device) standin::breach("memory that is not pinned is to be mapped");
    if (found->second->twin == nullptr || standin::fails("cuMemHostGetDevicePointer")) return kInvalidValue;
    return *device = reinterpret_cast<std::uintptr_t>(found->second->twin), kSuccess;
}
