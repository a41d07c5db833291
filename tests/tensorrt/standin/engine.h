// An engine of the stand-in's, and what everything that is made of TensorRT has in common.
#pragma once

#include "plan.h"
#include "refusals.h"
#include "standin.h"

#include <NvInfer.h>

using standin::fails;

namespace {

using Guard = std::lock_guard<std::recursive_mutex>;

// The recorder of a runtime, and of all that is made from it.
struct Reporter {
    IErrorRecorder* recorder = nullptr;
    void set(IErrorRecorder* to) {
        if (to != nullptr) to->incRefCount();
        if (recorder != nullptr) recorder->decRefCount();
        recorder = to;
    }
    bool say(ErrorCode code, std::string const& text) const {
        if (recorder != nullptr) recorder->reportError(code, text.c_str());
        return false;
    }
    bool told_to_fail(char const* call) const {
        if (!fails(call)) return false;
        say(ErrorCode::kINTERNAL_ERROR, std::string("the stand-in was told to fail at ") + call);
        return true;
    }
};

// One thread at a time, and not after its end.
class Watched {
public:
    explicit Watched(char const* kind) : counted_(kind), kind_(kind) {}
    ~Watched() {
        if (children != 0) breach(std::string(kind_) + " goes before what was made from it");
        alive_ = 0;
    }
    void used() const {
        if (alive_ != kAlive) breach(std::string(kind_) + " is used after its end");
    }
    int children = 0;

private:
    static constexpr uint32_t kAlive = 0x600DF00D;
    standin::Counted counted_;
    char const* kind_;
    uint32_t alive_ = kAlive;
};

struct RuntimeImpl;

struct EngineImpl final : apiv::RefusingCudaEngine {
    Watched watched{"engine"};
    Plan plan;
    Reporter const& reporter;
    Watched& runtime;
    ICudaEngine* self = nullptr;
    EngineImpl(Plan read, Reporter const& reports, Watched& maker)
        : plan(std::move(read)), reporter(reports), runtime(maker) {
        ++runtime.children;
    }
    ~EngineImpl() noexcept override { --runtime.children; }

    Tensor const* find(char const* name) const {
        watched.used();
        Tensor const* const tensor = plan.find(name);
        if (tensor == nullptr)
            reporter.say(ErrorCode::kINVALID_ARGUMENT, std::string("there is no tensor ") + (name ? name : "(null)"));
        return tensor;
    }
    Dims reach(Tensor const& tensor, size_t profile, size_t which) const {
        Sizes sizes;
        for (auto const& [name, reach] : plan.profiles[profile]) sizes[name] = reach[which];
        return shape_of(tensor, sizes, false);
    }

    int32_t getNbLayers() const noexcept override { return static_cast<int32_t>(plan.tensors.size()); }
    int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(plan.tensors.size()); }
    int32_t getNbOptimizationProfiles() const noexcept override { return static_cast<int32_t>(plan.profiles.size()); }
    char const* getIOTensorName(int32_t i) const noexcept override {
        watched.used();
        return i >= 0 && i < getNbIOTensors() ? plan.tensors[i].name.c_str() : nullptr;
    }
    Dims getTensorShape(char const* name) const noexcept override {
        Tensor const* const tensor = find(name);
        return tensor != nullptr ? shape_of(*tensor, {}, false) : no_shape();
    }
    DataType getTensorDataType(char const* name) const noexcept override {
        Tensor const* const tensor = find(name);
        return tensor != nullptr ? tensor->type : DataType::kFLOAT;
    }
    TensorIOMode getTensorIOMode(char const* name) const noexcept override {
        Tensor const* const tensor = find(name);
        return tensor == nullptr ? TensorIOMode::kNONE : tensor->input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }
    // Not in the headers of older versions, so it overrides nothing there.
    virtual char const* getAliasedInputTensor(char const* name) const noexcept {
        Tensor const* const tensor = find(name);
        return tensor != nullptr && !tensor->update.empty() ? tensor->source.c_str() : nullptr;
    }
    Dims getProfileShape(char const* name, int32_t profile, OptProfileSelector which) const noexcept override {
        Tensor const* const tensor = find(name);
        bool const known = tensor != nullptr && tensor->input && profile >= 0 && profile < getNbOptimizationProfiles();
        return known ? reach(*tensor, profile, static_cast<size_t>(which)) : no_shape();
    }
    int64_t getDeviceMemorySizeV2() const noexcept override { return 4096; }
    int64_t getStreamableWeightsSize() const noexcept override { return 0; }
    bool setWeightStreamingBudgetV2(int64_t) noexcept override {
        if (watched.children != 0) breach("weights are moved under a context");
        return !reporter.told_to_fail("setWeightStreamingBudgetV2");
    }
#if defined(TRT_MAJOR_RTX)
    IRuntimeConfig* createRuntimeConfig() noexcept override;
    IExecutionContext* createExecutionContextWithRuntimeConfig(IRuntimeConfig* config) noexcept override;
#endif
    IEngineInspector* createEngineInspector() const noexcept override;
    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy) noexcept override;
    ICudaEngine* getPImpl() noexcept override { return self; }
};

}  // namespace
