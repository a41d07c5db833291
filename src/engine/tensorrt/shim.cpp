// A flat C interface to TensorRT's C++ classes, compiled against the headers at hand and linked to nothing: the
// libraries are opened at run time, so one binary also starts where there are none. Every function hands one call on;
// what is right to call when is known to `safe.rs`. Nothing here throws.
#include "shim_callbacks.h"
#include "shim_versions.h"

#include <NvInfer.h>
#include <NvOnnxParser.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace {

void say(char* message, size_t length, std::string const& text) noexcept {
    if (length > 0) std::snprintf(message, length, "%s", text.c_str());
}

int32_t give(Dims const& dims, int64_t* out) noexcept {
    for (int32_t i = 0; i < dims.nbDims && i < Dims::MAX_DIMS; ++i) out[i] = dims.d[i];
    return dims.nbDims;
}

Dims take(int64_t const* from, int32_t rank) noexcept {
    Dims dims{};
    dims.nbDims = rank < Dims::MAX_DIMS ? rank : Dims::MAX_DIMS;
    for (int32_t i = 0; i < dims.nbDims; ++i) dims.d[i] = from[i];
    return dims;
}

template <typename F>
bool entry(void* library, char const* name, F& function, char* message, size_t length) noexcept {
    function = reinterpret_cast<F>(dlsym(library, name));
    if (function == nullptr) say(message, length, std::string("lacks ") + name);
    return function != nullptr;
}

void* open(char const* directory, char const* name, char* message, size_t length) noexcept {
    auto const path = directory != nullptr ? std::string(directory) + "/" + name : std::string(name);
    // Global, because the parser asks for the core library by name.
    void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) {
        char const* const why = dlerror();
        say(message, length, why != nullptr ? why : path);
    }
    return library;
}

}  // namespace

extern "C" {

// What the two libraries offer. Never closed: TensorRT keeps threads and static objects.
struct TrtLibrary {
    int32_t (*version)();
    void* (*builder)(void* logger, int32_t version);
    void* (*runtime)(void* logger, int32_t version);
    void* (*refitter)(void* engine, void* logger, int32_t version);
    void* (*parser)(void* network, void* logger, int version);
    void* (*parserRefitter)(void* refitter, void* logger, int32_t version);
};

struct TrtParserError {
    int32_t code;
    int32_t node;
    char const* text;
    char const* name;
    char const* op;
};

struct TrtOptions {
    int32_t sm;
    int32_t level;
    uint64_t workspace;
    bool strip;
    bool streamWeights;
    bool tf32;
};

struct TrtTensor {
    int32_t type;
    int32_t mode;
    int32_t rank;
    int64_t dims[Dims::MAX_DIMS];
};

int32_t trt_flavour() noexcept { return kFlavour; }
int32_t trt_header_version() noexcept { return NV_TENSORRT_VERSION; }
char const* trt_core_name() noexcept { return kCore; }
void trt_set_log(void (*sink)(int32_t, char const*)) noexcept { logger().sink.store(sink); }

TrtLibrary* trt_open(char const* directory, char* message, size_t length) noexcept {
    void* const core = open(directory, kCore, message, length);
    if (core == nullptr) return nullptr;
    TrtLibrary found{};
    if (!entry(core, "getInferLibVersion", found.version, message, length)) return nullptr;
    // A foreign version may lack the rest: whoever asks is told the numbers first.
    if (found.version() / 100 != NV_TENSORRT_VERSION / 100) return new (std::nothrow) TrtLibrary(found);
    void* const parser = open(directory, kParser, message, length);
    if (parser == nullptr || !entry(core, "createInferBuilder_INTERNAL", found.builder, message, length) ||
        !entry(core, "createInferRuntime_INTERNAL", found.runtime, message, length) ||
        !entry(core, "createInferRefitter_INTERNAL", found.refitter, message, length) ||
        !entry(parser, "createNvOnnxParser_INTERNAL", found.parser, message, length) ||
        !entry(parser, "createNvOnnxParserRefitter_INTERNAL", found.parserRefitter, message, length))
        return nullptr;
    return new (std::nothrow) TrtLibrary(found);
}
int32_t trt_version(TrtLibrary const* library) noexcept { return library->version(); }

Recorder* trt_recorder_new() noexcept { return new (std::nothrow) Recorder(); }
void trt_recorder_free(Recorder* recorder) noexcept { delete recorder; }
void trt_recorder_take(Recorder* recorder, void (*sink)(void*, int32_t, char const*), void* user) noexcept {
    std::vector<std::pair<ErrorCode, std::string>> errors;
    {
        std::lock_guard<std::mutex> guard(recorder->lock);
        errors.swap(recorder->errors);
        recorder->overflowed = false;
    }
    for (auto const& error : errors) sink(user, static_cast<int32_t>(error.first), error.second.c_str());
}

IBuilder* trt_builder_new(TrtLibrary const* library, Recorder* recorder) noexcept {
    auto* const builder = static_cast<IBuilder*>(library->builder(&logger(), NV_TENSORRT_VERSION));
    if (builder != nullptr) builder->setErrorRecorder(recorder);
    return builder;
}
void trt_builder_free(IBuilder* builder) noexcept { delete builder; }
bool trt_builder_threads(IBuilder* builder, int32_t threads) noexcept { return builder->setMaxThreads(threads); }
IHostMemory* trt_build(IBuilder* builder, INetworkDefinition* network, IBuilderConfig* config) noexcept {
    return builder->buildSerializedNetwork(*network, *config);
}
void const* trt_memory_data(IHostMemory const* memory) noexcept { return memory->data(); }
size_t trt_memory_size(IHostMemory const* memory) noexcept { return memory->size(); }
void trt_memory_free(IHostMemory* memory) noexcept { delete memory; }

INetworkDefinition* trt_network_new(IBuilder* builder) noexcept { return builder->createNetworkV2(kNetworkFlags); }
void trt_network_free(INetworkDefinition* network) noexcept { delete network; }
int32_t trt_network_layers(INetworkDefinition const* network) noexcept { return network->getNbLayers(); }
int32_t trt_network_inputs(INetworkDefinition const* network) noexcept { return network->getNbInputs(); }
char const* trt_network_input(INetworkDefinition const* network, int32_t i, TrtTensor* tensor) noexcept {
    ITensor const* const input = network->getInput(i);
    if (input == nullptr) return nullptr;
    tensor->type = static_cast<int32_t>(input->getType());
    tensor->rank = give(input->getDimensions(), tensor->dims);
    return input->getName();
}
char const* trt_network_input_dim(INetworkDefinition const* network, int32_t i, int32_t axis) noexcept {
    ITensor const* const input = network->getInput(i);
    return input != nullptr ? input->getDimensionName(axis) : nullptr;
}

nvonnxparser::IParser* trt_parser_new(TrtLibrary const* library, INetworkDefinition* network) noexcept {
    return static_cast<nvonnxparser::IParser*>(library->parser(network, &logger(), NV_ONNX_PARSER_VERSION));
}
void trt_parser_free(nvonnxparser::IParser* parser) noexcept { delete parser; }
bool trt_parser_parse(nvonnxparser::IParser* parser, INetworkDefinition* network, void const* bytes, size_t length,
                      char const* path) noexcept {
    if (!parser->parse(bytes, length, path)) return false;
    allowParts(*network);
    return true;
}
int32_t trt_parser_errors(nvonnxparser::IParser const* parser) noexcept { return parser->getNbErrors(); }
void trt_parser_error(nvonnxparser::IParser const* parser, int32_t i, TrtParserError* out) noexcept {
    nvonnxparser::IParserError const* const error = parser->getError(i);
    *out = TrtParserError{static_cast<int32_t>(error->code()), error->node(), error->desc(), error->nodeName(),
                          error->nodeOperator()};
}

IBuilderConfig* trt_config_new(IBuilder* builder) noexcept { return builder->createBuilderConfig(); }
void trt_config_free(IBuilderConfig* config) noexcept { delete config; }
// 0 where all was taken, 1 where the compute capability was not.
int32_t trt_config_apply(IBuilderConfig* config, TrtOptions const* options) noexcept {
    if (!setCapability(*config, options->sm)) return 1;
    if (options->strip) config->setFlag(BuilderFlag::kSTRIP_PLAN);
    if (options->strip) config->setFlag(BuilderFlag::kREFIT_IDENTICAL);
    if (options->streamWeights) config->setFlag(BuilderFlag::kWEIGHT_STREAMING);
    if (options->tf32) config->setFlag(BuilderFlag::kTF32);
    else config->clearFlag(BuilderFlag::kTF32);
    if (options->level >= 0) config->setBuilderOptimizationLevel(options->level);
    if (options->workspace > 0) config->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, options->workspace);
    config->setProfilingVerbosity(ProfilingVerbosity::kDETAILED);
    return 0;
}
void trt_config_monitor(IBuilderConfig* config, Monitor* monitor) noexcept { config->setProgressMonitor(monitor); }
int32_t trt_config_profile(IBuilderConfig* config, IOptimizationProfile const* profile) noexcept {
    return config->addOptimizationProfile(profile);
}
Timing* trt_timing_new(IBuilderConfig* config, void const* bytes, size_t length) noexcept {
    return newTiming(*config, bytes, length);
}
void trt_timing_free(Timing* cache) noexcept { delete cache; }
IHostMemory* trt_timing_save(Timing const* cache) noexcept { return saveTiming(*cache); }

// Owned by the builder that made it.
IOptimizationProfile* trt_profile_new(IBuilder* builder) noexcept { return builder->createOptimizationProfile(); }
bool trt_profile_set(IOptimizationProfile* profile, char const* input, int64_t const* least, int64_t const* usual,
                     int64_t const* most, int32_t rank) noexcept {
    return profile->setDimensions(input, OptProfileSelector::kMIN, take(least, rank)) &&
           profile->setDimensions(input, OptProfileSelector::kOPT, take(usual, rank)) &&
           profile->setDimensions(input, OptProfileSelector::kMAX, take(most, rank));
}

Monitor* trt_monitor_new(bool (*sink)(void*, int32_t, char const*, char const*, int32_t), void* user) noexcept {
    auto* const monitor = new (std::nothrow) Monitor();
    if (monitor != nullptr) monitor->sink = sink, monitor->user = user;
    return monitor;
}
void trt_monitor_free(Monitor* monitor) noexcept { delete monitor; }

IRuntime* trt_runtime_new(TrtLibrary const* library, Recorder* recorder) noexcept {
    auto* const runtime = static_cast<IRuntime*>(library->runtime(&logger(), NV_TENSORRT_VERSION));
    if (runtime != nullptr) runtime->setErrorRecorder(recorder);
    return runtime;
}
void trt_runtime_free(IRuntime* runtime) noexcept { delete runtime; }

ICudaEngine* trt_engine_new(IRuntime* runtime, void const* plan, size_t length) noexcept {
    return runtime->deserializeCudaEngine(plan, length);
}
void trt_engine_free(ICudaEngine* engine) noexcept { delete engine; }
int32_t trt_engine_tensors(ICudaEngine const* engine) noexcept { return engine->getNbIOTensors(); }
char const* trt_engine_tensor(ICudaEngine const* engine, int32_t i, TrtTensor* tensor) noexcept {
    char const* const name = engine->getIOTensorName(i);
    if (name == nullptr) return nullptr;
    tensor->type = static_cast<int32_t>(engine->getTensorDataType(name));
    tensor->mode = static_cast<int32_t>(engine->getTensorIOMode(name));
    tensor->rank = give(engine->getTensorShape(name), tensor->dims);
    return name;
}
char const* trt_engine_alias(ICudaEngine const* engine, char const* output) noexcept { return aliasOf(*engine, output); }
int32_t trt_engine_layers(ICudaEngine const* engine) noexcept { return engine->getNbLayers(); }
int32_t trt_engine_profiles(ICudaEngine const* engine) noexcept { return engine->getNbOptimizationProfiles(); }
int32_t trt_engine_profile(ICudaEngine const* engine, char const* name, int32_t profile, int32_t which,
                           int64_t* dims) noexcept {
    return give(engine->getProfileShape(name, profile, static_cast<OptProfileSelector>(which)), dims);
}
int64_t trt_engine_memory(ICudaEngine const* engine) noexcept { return engine->getDeviceMemorySizeV2(); }
int64_t trt_engine_streamable(ICudaEngine const* engine) noexcept { return engine->getStreamableWeightsSize(); }
bool trt_engine_budget(ICudaEngine* engine, int64_t bytes) noexcept {
    return engine->setWeightStreamingBudgetV2(bytes);
}
bool trt_engine_describe(ICudaEngine const* engine, void (*sink)(void*, char const*), void* user) noexcept {
    IEngineInspector* const inspector = engine->createEngineInspector();
    char const* const text =
        inspector != nullptr ? inspector->getEngineInformation(LayerInformationFormat::kJSON) : nullptr;
    if (text != nullptr) sink(user, text);
    delete inspector;
    return text != nullptr;
}
// Puts the weights of an ONNX graph into the engine of a stripped plan.
bool trt_engine_refit(TrtLibrary const* library, ICudaEngine* engine, void const* bytes, size_t length,
                      char const* path) noexcept {
    auto* const refitter = static_cast<IRefitter*>(library->refitter(engine, &logger(), NV_TENSORRT_VERSION));
    if (refitter == nullptr) return false;
    auto* const parser = static_cast<nvonnxparser::IParserRefitter*>(
        library->parserRefitter(refitter, &logger(), NV_ONNX_PARSER_VERSION));
    bool const done =
        parser != nullptr && parser->refitFromBytes(bytes, length, path) && refitter->refitCudaEngine();
    delete parser;
    delete refitter;
    return done;
}

// Null where contexts of the engine share none.
Kernels* trt_kernels_new(ICudaEngine* engine) noexcept { return newKernels(*engine); }
void trt_kernels_free(Kernels* kernels) noexcept { delete kernels; }

// Computes in `memory`, of as many bytes as `trt_engine_memory` says; null: in memory of its own.
IExecutionContext* trt_context_new(ICudaEngine* engine, Kernels* kernels, void* memory, int64_t bytes) noexcept {
    using Strategy = ExecutionContextAllocationStrategy;
    if (memory == nullptr) return newContext(*engine, kernels, Strategy::kSTATIC);
    auto* const context = newContext(*engine, kernels, Strategy::kUSER_MANAGED);
    if (context != nullptr) context->setDeviceMemoryV2(memory, bytes);
    return context;
}
void trt_context_free(IExecutionContext* context) noexcept { delete context; }
bool trt_context_profile(IExecutionContext* context, int32_t profile, void* stream) noexcept {
    return context->setOptimizationProfileAsync(profile, static_cast<cudaStream_t>(stream));
}
bool trt_context_set_shape(IExecutionContext* context, char const* name, int64_t const* dims, int32_t rank) noexcept {
    return context->setInputShape(name, take(dims, rank));
}
int32_t trt_context_shape(IExecutionContext const* context, char const* name, int64_t* dims) noexcept {
    return give(context->getTensorShape(name), dims);
}
int32_t trt_context_unknown(IExecutionContext* context, char const** name) noexcept {
    return context->inferShapes(1, name);
}
bool trt_context_set_address(IExecutionContext* context, char const* name, void* address) noexcept {
    return context->setTensorAddress(name, address);
}
bool trt_context_allocator(IExecutionContext* context, char const* name, Allocator* allocator) noexcept {
    return context->setOutputAllocator(name, allocator);
}
bool trt_context_capturable(IExecutionContext const* context, void* stream) noexcept {
    return isCapturable(*context, static_cast<cudaStream_t>(stream));
}
bool trt_context_enqueue(IExecutionContext* context, void* stream) noexcept {
    return context->enqueueV3(static_cast<cudaStream_t>(stream));
}
Allocator* trt_allocator_new(void* (*grow)(void*, char const*, void*, uint64_t, uint64_t, void*),
                             void (*notify)(void*, char const*, int64_t const*, int32_t), void* user) noexcept {
    auto* const allocator = new (std::nothrow) Allocator();
    if (allocator != nullptr) allocator->grow = grow, allocator->notify = notify, allocator->user = user;
    return allocator;
}
void trt_allocator_free(Allocator* allocator) noexcept { delete allocator; }

}  // extern "C"
