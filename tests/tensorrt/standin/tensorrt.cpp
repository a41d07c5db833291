// TensorRT's runtime half with nothing behind it: it holds its callers to the rules of `NvInferRuntime.h`, and writes
// values into outputs that show which input they came from. `refusals.h` is made of the headers at hand by the test: it
// overrides every call with one that ends the process, so that only what is implemented here can be used.
#include "context.h"

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <cstring>

namespace {

struct InspectorImpl final : apiv::RefusingEngineInspector {
    standin::Counted counted{"inspector"};
    std::string text;
    // Nobody may read it any more.
    ~InspectorImpl() noexcept override { std::memset(&text[0], '!', text.size()); }
    char const* getEngineInformation(LayerInformationFormat) const noexcept override { return text.c_str(); }
};

struct Inspector final : IEngineInspector {
    InspectorImpl impl;
    Inspector() { mImpl = &impl; }
};

struct Context final : IExecutionContext {
    ContextImpl impl;
    Context(EngineImpl& engine, Watched* kernels, ExecutionContextAllocationStrategy strategy)
        : impl(engine, kernels, strategy == ExecutionContextAllocationStrategy::kUSER_MANAGED) {
        mImpl = &impl;
    }
};

struct Engine final : ICudaEngine {
    EngineImpl impl;
    Engine(Plan plan, Reporter const& reporter, Watched& runtime) : impl(std::move(plan), reporter, runtime) {
        mImpl = &impl;
        impl.self = this;
    }
};

IExecutionContext* EngineImpl::createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept {
    Guard guard(standin::lock());
    watched.used();
    return reporter.told_to_fail("createExecutionContext") ? nullptr : new Context(*this, nullptr, strategy);
}

// TensorRT for RTX: contexts that are made with one cache compile a kernel once.
#if defined(TRT_MAJOR_RTX)
struct CacheImpl final : apiv::RefusingRuntimeCache {
    Watched watched{"kernel cache"};
};

struct Cache final : IRuntimeCache {
    CacheImpl impl;
    Cache() { mImpl = &impl; }
};

struct ConfigImpl final : apiv::RefusingRuntimeConfig {
    standin::Counted counted{"runtime config"};
    ExecutionContextAllocationStrategy strategy{};
    Watched* kernels = nullptr;
    void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy to) noexcept override { strategy = to; }
    IRuntimeCache* createRuntimeCache() const noexcept override { return new Cache(); }
    bool setRuntimeCache(IRuntimeCache const& cache) noexcept override {
        kernels = const_cast<Watched*>(&static_cast<Cache const&>(cache).impl.watched);
        return !fails("setRuntimeCache");
    }
};

struct Config final : IRuntimeConfig {
    ConfigImpl impl;
    Config() { mImpl = &impl; }
};

IRuntimeConfig* EngineImpl::createRuntimeConfig() noexcept {
    Guard guard(standin::lock());
    watched.used();
    return fails("createRuntimeConfig") ? nullptr : new Config();
}

IExecutionContext* EngineImpl::createExecutionContextWithRuntimeConfig(IRuntimeConfig* config) noexcept {
    Guard guard(standin::lock());
    watched.used();
    auto const& with = static_cast<Config*>(config)->impl;
    with.kernels->used();
    return reporter.told_to_fail("createExecutionContext") ? nullptr : new Context(*this, with.kernels, with.strategy);
}
#endif

IEngineInspector* EngineImpl::createEngineInspector() const noexcept {
    Guard guard(standin::lock());
    watched.used();
    if (reporter.told_to_fail("createEngineInspector")) return nullptr;
    auto* const inspector = new Inspector();
    inspector->impl.text = R"({"Layers": ["first", "second"]})";
    return inspector;
}

struct RuntimeImpl final : apiv::RefusingRuntime {
    Reporter reporter;
    Watched watched{"runtime"};
    ~RuntimeImpl() noexcept override { reporter.set(nullptr); }
    void setErrorRecorder(IErrorRecorder* recorder) noexcept override { reporter.set(recorder); }
    ICudaEngine* deserializeCudaEngine(void const* blob, size_t size) noexcept override {
        Guard guard(standin::lock());
        watched.used();
        if (reporter.told_to_fail("deserializeCudaEngine")) return nullptr;
        Plan plan;
        if (!read(blob, size, plan)) {
            reporter.say(ErrorCode::kINVALID_ARGUMENT, "this is no plan of the stand-in's");
            return nullptr;
        }
        return new Engine(std::move(plan), reporter, watched);
    }
};

struct Runtime final : IRuntime {
    RuntimeImpl impl;
    Runtime() { mImpl = &impl; }
};

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int32_t getInferLibVersion() noexcept { return NV_TENSORRT_VERSION; }
void* createInferRuntime_INTERNAL(void* logger, int32_t version) noexcept {
    if (logger == nullptr || version != NV_TENSORRT_VERSION) breach("a runtime without a logger, or of another version");
    static_cast<ILogger*>(logger)->log(ILogger::Severity::kINFO, "the stand-in makes a runtime");
    return fails("createInferRuntime") ? nullptr : new Runtime();
}
// Plans are not built here.
void* createInferBuilder_INTERNAL(void*, int32_t) noexcept { return nullptr; }
void* createInferRefitter_INTERNAL(void*, void*, int32_t) noexcept { return nullptr; }
void* createNvOnnxParser_INTERNAL(void*, void*, int) noexcept { return nullptr; }
void* createNvOnnxParserRefitter_INTERNAL(void*, void*, int32_t) noexcept { return nullptr; }

}  // extern "C"
