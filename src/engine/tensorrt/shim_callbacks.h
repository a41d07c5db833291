// What TensorRT calls: logger, error recorder, progress monitor, allocator of outputs; part of `shim.cpp`.
#pragma once

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

using namespace nvinfer1;

namespace {

// One logger for the process, as TensorRT wants it.
struct Logger final : ILogger {
    std::atomic<void (*)(int32_t severity, char const* text)> sink{nullptr};
    void log(Severity severity, char const* text) noexcept override {
        auto* const to = sink.load();
        if (to != nullptr && text != nullptr) to(static_cast<int32_t>(severity), text);
    }
};

Logger& logger() noexcept {
    static Logger one;
    return one;
}

// Keeps what an object reported, for the error that is returned. Counted by TensorRT, owned by `safe.rs`.
struct Recorder final : IErrorRecorder {
    static constexpr size_t kMost = 64;
    mutable std::mutex lock;
    std::vector<std::pair<ErrorCode, std::string>> errors;
    bool overflowed = false;
    int32_t references = 0;

    int32_t getNbErrors() const noexcept override {
        std::lock_guard<std::mutex> guard(lock);
        return static_cast<int32_t>(errors.size());
    }
    ErrorCode getErrorCode(int32_t i) const noexcept override {
        std::lock_guard<std::mutex> guard(lock);
        return i >= 0 && static_cast<size_t>(i) < errors.size() ? errors[i].first : ErrorCode::kINVALID_ARGUMENT;
    }
    ErrorDesc getErrorDesc(int32_t i) const noexcept override {
        std::lock_guard<std::mutex> guard(lock);
        return i >= 0 && static_cast<size_t>(i) < errors.size() ? errors[i].second.c_str() : "";
    }
    bool hasOverflowed() const noexcept override {
        std::lock_guard<std::mutex> guard(lock);
        return overflowed;
    }
    void clear() noexcept override {
        std::lock_guard<std::mutex> guard(lock);
        errors.clear();
        overflowed = false;
    }
    bool reportError(ErrorCode code, ErrorDesc text) noexcept override {
        std::lock_guard<std::mutex> guard(lock);
        if (errors.size() < kMost) errors.emplace_back(code, text != nullptr ? text : "");
        else overflowed = true;
        return true;
    }
    RefCount incRefCount() noexcept override {
        std::lock_guard<std::mutex> guard(lock);
        return ++references;
    }
    RefCount decRefCount() noexcept override {
        std::lock_guard<std::mutex> guard(lock);
        return --references;
    }
};

struct Monitor final : IProgressMonitor {
    // event: 0 a phase starts and has `number` steps, 1 step `number` is done, 2 the phase is over.
    bool (*sink)(void* user, int32_t event, char const* phase, char const* parent, int32_t number) = nullptr;
    void* user = nullptr;
    void phaseStart(char const* phase, char const* parent, int32_t steps) noexcept override {
        sink(user, 0, phase, parent, steps);
    }
    bool stepComplete(char const* phase, int32_t step) noexcept override {
        return sink(user, 1, phase, nullptr, step);
    }
    void phaseFinish(char const* phase) noexcept override { sink(user, 2, phase, nullptr, 0); }
};

struct Allocator final : IOutputAllocator {
    void* (*grow)(void* user, char const* name, void* held, uint64_t size, uint64_t align, void* stream) = nullptr;
    void (*notify)(void* user, char const* name, int64_t const* dims, int32_t rank) = nullptr;
    void* user = nullptr;
    void* reallocateOutputAsync(char const* name, void* held, uint64_t size, uint64_t align,
                                cudaStream_t stream) override {
        return grow(user, name, held, size, align, stream);
    }
    void notifyShape(char const* name, Dims const& dims) noexcept override {
        notify(user, name, dims.d, dims.nbDims);
    }
};

}  // namespace
