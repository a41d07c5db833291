// What of the shim differs between versions; part of `shim.cpp`.
#pragma once

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <cstdint>
#include <new>

using namespace nvinfer1;

// ---------------------------------------------------------------------------------------------------------------------
// All that differs between TensorRT 10, TensorRT 11 and TensorRT for RTX.
//
//                          10                         11                         RTX 1
//   libraries              libnvinfer.so.10,          libnvinfer.so.11,          libtensorrt_rtx.so.1,
//                          libnvonnxparser.so.10      libnvonnxparser.so.11      libtensorrt_onnxparser_rtx.so.1
//   strong typing          asked for by a flag        always                     always
//   compute capability     that of the GPU at hand    that of the GPU at hand    set, or that of the GPU at hand
//   timing cache           yes                        yes                        none: nothing is timed in a build
//   updates in place       since 10.15; here 10.16    yes                        yes
//   kernels                in the plan                in the plan                compiled while they run
//   what can be captured   found out by trying        found out by trying        told since 1.5
// ---------------------------------------------------------------------------------------------------------------------
#if defined(TRT_MAJOR_RTX)
static const int32_t kFlavour = 1;
static const char* const kCore = "libtensorrt_rtx.so.1";
static const char* const kParser = "libtensorrt_onnxparser_rtx.so.1";
static const uint32_t kNetworkFlags = 0;
static bool setCapability(IBuilderConfig& config, int32_t sm) noexcept {
    auto const target = sm == 0 ? ComputeCapability::kCURRENT : static_cast<ComputeCapability>(sm);
    return config.setNbComputeCapabilities(1) && config.setComputeCapability(target, 0);
}
struct Timing {};
static Timing* newTiming(IBuilderConfig&, void const*, size_t) noexcept { return nullptr; }
static IHostMemory* saveTiming(Timing const&) noexcept { return nullptr; }
#elif NV_TENSORRT_MAJOR == 11 || NV_TENSORRT_MAJOR == 10
static const int32_t kFlavour = 0;
static bool setCapability(IBuilderConfig&, int32_t sm) noexcept { return sm == 0; }
using Timing = ITimingCache;
static Timing* newTiming(IBuilderConfig& config, void const* bytes, size_t length) noexcept {
    Timing* const cache = config.createTimingCache(bytes, length);
    if (cache != nullptr && config.setTimingCache(*cache, false)) return cache;
    delete cache;
    return nullptr;
}
static IHostMemory* saveTiming(Timing const& cache) noexcept { return cache.serialize(); }
#if NV_TENSORRT_MAJOR == 11
static const char* const kCore = "libnvinfer.so.11";
static const char* const kParser = "libnvonnxparser.so.11";
static const uint32_t kNetworkFlags = 0;
#else
static const char* const kCore = "libnvinfer.so.10";
static const char* const kParser = "libnvonnxparser.so.10";
static const uint32_t kNetworkFlags = 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#endif
#else
#error "sam4mllm knows TensorRT 10, TensorRT 11 and TensorRT for RTX 1; TENSORRT_INCLUDE_DIR leads to another"
#endif
// Whole attentions and updates in place: the headers of 10.16 are the first with both that this was compiled against.
#if defined(TRT_MAJOR_RTX) || NV_TENSORRT_VERSION >= 101600
// The input whose memory an output has to have.
static char const* aliasOf(ICudaEngine const& engine, char const* output) noexcept {
    return engine.getAliasedInputTensor(output);
}
// Lets attentions that no kernel computes as a whole be taken apart: those in 32 bits, for one.
static void allowParts(INetworkDefinition& network) noexcept {
    for (int32_t i = 0; i < network.getNbLayers(); ++i) {
        ILayer* const layer = network.getLayer(i);
        if (layer->getType() != LayerType::kATTENTION_OUTPUT) continue;
        IAttention* const attention = static_cast<IAttentionOutputLayer*>(layer)->getAttention();
        if (attention != nullptr) attention->setDecomposable(true);
    }
}
#else
static char const* aliasOf(ICudaEngine const&, char const*) noexcept { return nullptr; }
static void allowParts(INetworkDefinition&) noexcept {}
#endif
// What contexts of one engine share of the kernels that are compiled while they run.
#if defined(TRT_MAJOR_RTX)
struct Kernels {
    IRuntimeConfig* config;
    IRuntimeCache* cache;
    ~Kernels() {
        delete config;
        delete cache;
    }
};
static Kernels* newKernels(ICudaEngine& engine) noexcept {
    auto* const kernels = new (std::nothrow) Kernels{engine.createRuntimeConfig(), nullptr};
    if (kernels != nullptr && kernels->config != nullptr) kernels->cache = kernels->config->createRuntimeCache();
    if (kernels != nullptr && kernels->cache != nullptr && kernels->config->setRuntimeCache(*kernels->cache))
        return kernels;
    delete kernels;
    return nullptr;
}
static IExecutionContext* newContext(ICudaEngine& engine, Kernels* kernels,
                                     ExecutionContextAllocationStrategy strategy) noexcept {
    if (kernels == nullptr) return engine.createExecutionContext(strategy);
    kernels->config->setExecutionContextAllocationStrategy(strategy);
    return engine.createExecutionContext(kernels->config);
}
#else
struct Kernels {};
static Kernels* newKernels(ICudaEngine&) noexcept { return nullptr; }
static IExecutionContext* newContext(ICudaEngine& engine, Kernels*,
                                     ExecutionContextAllocationStrategy strategy) noexcept {
    return engine.createExecutionContext(strategy);
}
#endif
#if defined(TRT_MAJOR_RTX) && TRT_MINOR_RTX >= 5
static bool isCapturable(IExecutionContext const& context, cudaStream_t stream) noexcept {
    return context.isStreamCapturable(stream);
}
#else
static bool isCapturable(IExecutionContext const&, cudaStream_t) noexcept { return true; }
#endif
