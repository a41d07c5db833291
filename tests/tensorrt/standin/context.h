// A context of the stand-in's: what it is told, what it computes, and what may be captured of that.
#pragma once

#include "engine.h"

#include <memory>

namespace {

struct ContextImpl final : apiv::RefusingExecutionContext {
    Watched watched{"context"};
    EngineImpl& engine;
    int32_t profile = 0;
    std::map<std::string, Dims> shapes;
    std::map<std::string, void*> addresses;
    std::map<std::string, IOutputAllocator*> allocators;
    // What it shares with others; null for nothing.
    Watched* kernels;
    // Memory to compute in is the caller's, and where that is.
    bool managed;
    void* memory = nullptr;
    // Whether it was enqueued with these shapes, and how often it was changed; captured work knows both.
    bool warm = false;
    std::shared_ptr<int64_t> changes = std::make_shared<int64_t>(0);
    ContextImpl(EngineImpl& maker, Watched* shared, bool with_memory)
        : engine(maker), kernels(shared), managed(with_memory) {
        ++engine.watched.children;
        if (kernels != nullptr) ++kernels->children;
    }
    ~ContextImpl() noexcept override {
        *changes = -1;
        if (kernels != nullptr) --kernels->children;
        --engine.watched.children;
    }
    void changed(bool cold) { ++*changes, warm = warm && !cold; }
    void watch_capture(void* stream);

    Reporter const& reporter() const { return engine.reporter; }
    bool refuse(std::string const& why) const { return reporter().say(ErrorCode::kINVALID_ARGUMENT, why); }

    // Sizes by name; false where two inputs do not agree.
    bool sizes(Sizes& out) const {
        for (auto const& tensor : engine.plan.tensors) {
            auto const set = shapes.find(tensor.name);
            if (!tensor.input || set == shapes.end()) continue;
            for (size_t i = 0; i < tensor.dims.size(); ++i) {
                if (tensor.dims[i].name.empty()) continue;
                int64_t const size = set->second.d[i];
                if (out.emplace(tensor.dims[i].name, size).first->second != size)
                    return refuse("inputs do not agree about " + tensor.dims[i].name);
            }
        }
        return true;
    }
    bool fixed(Tensor const& tensor) const {
        for (auto const& dim : tensor.dims)
            if (!dim.name.empty()) return false;
        return true;
    }
    void compute(Tensor const& output, size_t number, Sizes const& known, void* to, void* stream);
    void update(Tensor const& output, size_t number, Sizes const& known, void* to, void* stream);

    bool setOptimizationProfileAsync(int32_t number, cudaStream_t stream) noexcept override {
        Guard guard(standin::lock());
        watched.used();
        standin::check_current("setOptimizationProfileAsync", stream);
        if (reporter().told_to_fail("setOptimizationProfileAsync")) return false;
        if (number < 0 || number >= engine.getNbOptimizationProfiles()) return refuse("there is no such profile");
        profile = number;
        shapes.clear();
        changed(true);
        return true;
    }
    bool setInputShape(char const* name, Dims const& dims) noexcept override {
        Guard guard(standin::lock());
        watched.used();
        if (reporter().told_to_fail("setInputShape")) return false;
        Tensor const* const tensor = engine.find(name);
        if (tensor == nullptr || !tensor->input) return refuse("there is no such input");
        Dims const least = engine.reach(*tensor, profile, 0), most = engine.reach(*tensor, profile, 2);
        if (dims.nbDims != least.nbDims) return refuse("the rank is another");
        for (int32_t i = 0; i < dims.nbDims; ++i)
            if (dims.d[i] < least.d[i] || dims.d[i] > most.d[i])
                return refuse("dimension " + std::to_string(i) + " is beyond the profile");
        auto const set = shapes.find(name);
        bool same = set != shapes.end();
        for (int32_t i = 0; same && i < dims.nbDims; ++i) same = set->second.d[i] == dims.d[i];
        changed(!same);
        shapes[name] = dims;
        return true;
    }
    Dims getTensorShape(char const* name) const noexcept override {
        Guard guard(standin::lock());
        watched.used();
        Tensor const* const tensor = engine.find(name);
        Sizes known;
        return tensor != nullptr && sizes(known) ? shape_of(*tensor, known, false) : no_shape();
    }
    int32_t inferShapes(int32_t room, char const** names) noexcept override {
        Guard guard(standin::lock());
        watched.used();
        Sizes known;
        if (reporter().told_to_fail("inferShapes") || !sizes(known)) return -1;
        int32_t missing = 0;
        for (auto const& tensor : engine.plan.tensors) {
            if (!tensor.input || fixed(tensor) || shapes.count(tensor.name) != 0) continue;
            if (missing < room) names[missing] = tensor.name.c_str();
            ++missing;
        }
        return missing;
    }
    bool setTensorAddress(char const* name, void* address) noexcept override {
        Guard guard(standin::lock());
        watched.used();
        if (reporter().told_to_fail("setTensorAddress")) return false;
        if (engine.find(name) == nullptr) return false;
        if (reinterpret_cast<uintptr_t>(address) % 256 != 0) breach("an address is not aligned to 256 bytes");
        addresses[name] = address;
        changed(false);
        return true;
    }
    bool setOutputAllocator(char const* name, IOutputAllocator* allocator) noexcept override {
        Guard guard(standin::lock());
        watched.used();
        if (reporter().told_to_fail("setOutputAllocator")) return false;
        Tensor const* const tensor = engine.find(name);
        if (tensor == nullptr || tensor->input) return refuse("there is no such output");
        allocators[name] = allocator;
        changed(true);
        return true;
    }
    void setDeviceMemoryV2(void* at, int64_t size) noexcept override {
        Guard guard(standin::lock());
        watched.used();
        if (!managed) breach("memory for a context that has its own");
        if (size < engine.getDeviceMemorySizeV2() || !standin::on_device(at, static_cast<size_t>(size)) ||
            reinterpret_cast<uintptr_t>(at) % 256 != 0)
            breach("the memory of a context is too small, not aligned to 256 bytes, or not the device's");
        memory = at;
        changed(false);
    }
    // In the headers of TensorRT for RTX alone, so it overrides nothing elsewhere.
    virtual bool isStreamCapturable(cudaStream_t stream) const noexcept {
        Guard guard(standin::lock());
        watched.used();
        standin::check_current("isStreamCapturable", stream);
        return allocators.empty() && !fails("isStreamCapturable");
    }
    bool enqueueV3(cudaStream_t stream) noexcept override;
    IExecutionContext* getPImpl() noexcept override { breach("nobody asks a context for itself"); }
};

// Where an output goes: what was set, or what the allocator finds.
void* place(ContextImpl& context, Tensor const& output, size_t size, Dims const& shape, void* stream) {
    auto const allocator = context.allocators.find(output.name);
    if (allocator == context.allocators.end()) return context.addresses[output.name];
    void*& held = context.addresses[output.name];
    held = allocator->second->reallocateOutputAsync(output.name.c_str(), held, size, 256,
                                                    static_cast<cudaStream_t>(stream));
    if (held != nullptr) allocator->second->notifyShape(output.name.c_str(), shape);
    return held;
}

// What is captured was enqueued before with the same shapes, and is launched only while its context is as it was.
void ContextImpl::watch_capture(void* stream) {
    if (!standin::capturing(stream)) {
        ++*changes, warm = true;
        return;
    }
    if (!warm) breach("a computation is captured that was not enqueued before with these shapes");
    if (!allocators.empty()) breach("a computation is captured whose outputs are sized late");
    auto const all = changes;
    int64_t const now = *changes;
    standin::enqueue(stream, {memory}, [=] {
        if (*all != now) breach("a graph is launched whose context was changed, or is gone");
    });
}

bool ContextImpl::enqueueV3(cudaStream_t stream) noexcept {
    Guard guard(standin::lock());
    watched.used();
    standin::check_current("enqueueV3", stream);
    if (managed && memory == nullptr) breach("a context without the memory that it was promised");
    if (reporter().told_to_fail("enqueueV3")) return false;
    Sizes known;
    char const* missing = nullptr;
    if (inferShapes(1, &missing) != 0 || !sizes(known)) return refuse("a shape is missing");
    watch_capture(stream);
    size_t number = 0;
    for (auto const& tensor : engine.plan.tensors) {
        Dims const shape = shape_of(tensor, known, true);
        size_t const size = count_of(shape) * bytes_of(tensor.type);
        void* const at = tensor.input ? addresses[tensor.name] : place(*this, tensor, size, shape, stream);
        if (at == nullptr) return refuse("the address of " + tensor.name + " is missing");
        if (!standin::on_device(at, size)) breach("the memory of " + tensor.name + " is too small, or not the device's");
        if (tensor.input) continue;
        if (standin::write_combined(at)) breach("the host is to read " + tensor.name + " past its caches");
        if (tensor.update.empty()) compute(tensor, ++number, known, at, stream);
        else update(tensor, ++number, known, at, stream);
    }
    return true;
}

// Everything is told to the stream as it is now: whoever sets it later must not change what was enqueued.
void ContextImpl::compute(Tensor const& output, size_t number, Sizes const& known, void* to, void* stream) {
    Tensor const* const source = engine.plan.find(output.source.c_str());
    if (source == nullptr || !source->input) breach("the plan of the stand-in names no input for " + output.name);
    void const* const from = addresses[source->name];
    size_t const length = count_of(shape_of(*source, known, true)), count = count_of(shape_of(output, known, true));
    DataType const in = source->type, out = output.type;
    auto const all = changes;
    standin::enqueue(stream, {from, to, memory}, [=] {
        if (*all < 0) breach("a context goes before its work is done");
        for (size_t i = 0; i < count; ++i)
            put(out, to, i, (length > 0 ? get(in, from, i % length) : 0.0) + 1000.0 * static_cast<double>(number));
    });
}

// A cache, which must be where its input is.
void ContextImpl::update(Tensor const& output, size_t number, Sizes const& known, void* to, void* stream) {
    Tensor const* const rows = engine.plan.find(output.update.c_str());
    Tensor const* const start = engine.plan.find(output.start.c_str());
    if (rows == nullptr || start == nullptr) breach("the plan of the stand-in names no inputs for " + output.name);
    if (addresses[output.source] != to) breach(output.name + " is not where " + output.source + " is");
    void const *const from = addresses[rows->name], *const at = addresses[start->name];
    Dims const shape = shape_of(output, known, true), read = shape_of(*rows, known, true);
    DataType const in = rows->type, out = output.type, whole = start->type;
    auto const all = changes;
    standin::enqueue(stream, {from, at, to, memory}, [=] {
        if (*all < 0) breach("a context goes before its work is done");
        auto const first = static_cast<int64_t>(get(whole, at, 0));
        int64_t const heads = shape.d[1], room = shape.d[2], width = shape.d[3], size = read.d[2];
        // TensorRT ignores what lies beyond the end; nobody of ours writes there.
        if (first < 0 || first + read.d[1] > room) breach("a cache is updated beyond its end");
        for (int64_t s = 0; s < read.d[1]; ++s)
            for (int64_t i = 0; i < heads * width; ++i)
                put(out, to, ((i / width) * room + first + s) * width + i % width,
                    get(in, from, s * size + i % size) + 1000.0 * static_cast<double>(number));
    });
}

}  // namespace
