//! The shim's functions as they are: no checks, no ownership. `result.rs` stands on them.

use std::ffi::{c_char, c_void};
use std::marker::{PhantomData, PhantomPinned};

/// Most dimensions that a tensor has, `Dims::MAX_DIMS`.
pub const MAX_DIMS: usize = 8;

macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Debug)]
        pub struct $name {
            bytes: [u8; 0],
            // Neither `Send` nor `Sync` nor `Unpin`: what is behind the pointer is TensorRT's.
            marker: PhantomData<(*mut u8, PhantomPinned)>,
        }
    )*};
}

opaque! {
    /// The libraries' entry points.
    Library,
    /// An `IErrorRecorder`.
    Recorder,
    /// An `IBuilder`.
    Builder,
    /// An `INetworkDefinition`.
    Network,
    /// An `nvonnxparser::IParser`.
    Parser,
    /// An `IBuilderConfig`.
    Config,
    /// An `IOptimizationProfile`.
    Profile,
    /// An `ITimingCache`.
    Timing,
    /// What contexts of one engine share.
    Kernels,
    /// An `IProgressMonitor`.
    Monitor,
    /// An `IHostMemory`.
    Memory,
    /// An `IRuntime`.
    Runtime,
    /// An `ICudaEngine`.
    Engine,
    /// An `IExecutionContext`.
    Context,
    /// An `IOutputAllocator`.
    Allocator,
}

/// One error of the ONNX parser; the texts live until the parser goes.
#[repr(C)]
#[derive(Debug)]
pub struct ParserError {
    pub code: i32,
    /// Index of the node in the graph; negative where no node is at fault.
    pub node: i32,
    pub text: *const c_char,
    pub name: *const c_char,
    pub op: *const c_char,
}

/// What `trt_config_apply` sets.
#[repr(C)]
#[derive(Debug)]
pub struct Options {
    /// Compute capability times ten; 0 for that of the GPU at hand.
    pub sm: i32,
    /// Optimisation level, 0..=5; negative for the library's own.
    pub level: i32,
    /// Workspace in bytes; 0 for the library's own limit.
    pub workspace: u64,
    pub strip: bool,
    pub stream_weights: bool,
    pub tf32: bool,
}

/// Type, direction and shape of a tensor.
#[repr(C)]
#[derive(Debug)]
pub struct Tensor {
    pub data_type: i32,
    /// `TensorIOMode`: 1 for inputs, 2 for outputs.
    pub mode: i32,
    pub rank: i32,
    /// -1 where a dimension varies.
    pub dims: [i64; MAX_DIMS],
}

pub type LogSink = extern "C" fn(severity: i32, text: *const c_char);
pub type ErrorSink = extern "C" fn(user: *mut c_void, code: i32, text: *const c_char);
pub type TextSink = extern "C" fn(user: *mut c_void, text: *const c_char);
pub type MonitorSink =
    extern "C" fn(user: *mut c_void, event: i32, phase: *const c_char, parent: *const c_char, number: i32) -> bool;
pub type GrowSink = extern "C" fn(
    user: *mut c_void,
    name: *const c_char,
    held: *mut c_void,
    size: u64,
    align: u64,
    stream: *mut c_void,
) -> *mut c_void;
pub type NotifySink = extern "C" fn(user: *mut c_void, name: *const c_char, dims: *const i64, rank: i32);

// SAFETY: the signatures are those of `shim.cpp`, which is compiled with this crate.
unsafe extern "C" {
    pub fn trt_flavour() -> i32;
    pub fn trt_header_version() -> i32;
    pub fn trt_core_name() -> *const c_char;
    pub fn trt_set_log(sink: LogSink);
    pub fn trt_open(directory: *const c_char, message: *mut c_char, length: usize) -> *mut Library;
    pub fn trt_version(library: *const Library) -> i32;

    pub fn trt_recorder_new() -> *mut Recorder;
    pub fn trt_recorder_free(recorder: *mut Recorder);
    pub fn trt_recorder_take(recorder: *mut Recorder, sink: ErrorSink, user: *mut c_void);

    pub fn trt_builder_new(library: *const Library, recorder: *mut Recorder) -> *mut Builder;
    pub fn trt_builder_free(builder: *mut Builder);
    pub fn trt_builder_threads(builder: *mut Builder, threads: i32) -> bool;
    pub fn trt_build(builder: *mut Builder, network: *mut Network, config: *mut Config) -> *mut Memory;
    pub fn trt_memory_data(memory: *const Memory) -> *const u8;
    pub fn trt_memory_size(memory: *const Memory) -> usize;
    pub fn trt_memory_free(memory: *mut Memory);

    pub fn trt_network_new(builder: *mut Builder) -> *mut Network;
    pub fn trt_network_free(network: *mut Network);
    pub fn trt_network_layers(network: *const Network) -> i32;
    pub fn trt_network_inputs(network: *const Network) -> i32;
    pub fn trt_network_input(network: *const Network, index: i32, tensor: *mut Tensor) -> *const c_char;
    pub fn trt_network_input_dim(network: *const Network, index: i32, axis: i32) -> *const c_char;

    pub fn trt_parser_new(library: *const Library, network: *mut Network) -> *mut Parser;
    pub fn trt_parser_free(parser: *mut Parser);
    pub fn trt_parser_parse(
        parser: *mut Parser,
        network: *mut Network,
        bytes: *const u8,
        length: usize,
        path: *const c_char,
    ) -> bool;
    pub fn trt_parser_errors(parser: *const Parser) -> i32;
    pub fn trt_parser_error(parser: *const Parser, index: i32, error: *mut ParserError);

    pub fn trt_config_new(builder: *mut Builder) -> *mut Config;
    pub fn trt_config_free(config: *mut Config);
    pub fn trt_config_apply(config: *mut Config, options: *const Options) -> i32;
    pub fn trt_config_monitor(config: *mut Config, monitor: *mut Monitor);
    pub fn trt_config_profile(config: *mut Config, profile: *const Profile) -> i32;
    pub fn trt_timing_new(config: *mut Config, bytes: *const u8, length: usize) -> *mut Timing;
    pub fn trt_timing_free(timing: *mut Timing);
    pub fn trt_timing_save(timing: *const Timing) -> *mut Memory;
    pub fn trt_profile_new(builder: *mut Builder) -> *mut Profile;
    pub fn trt_profile_set(
        profile: *mut Profile,
        input: *const c_char,
        least: *const i64,
        usual: *const i64,
        most: *const i64,
        rank: i32,
    ) -> bool;
    pub fn trt_monitor_new(sink: MonitorSink, user: *mut c_void) -> *mut Monitor;
    pub fn trt_monitor_free(monitor: *mut Monitor);

    pub fn trt_runtime_new(library: *const Library, recorder: *mut Recorder) -> *mut Runtime;
    pub fn trt_runtime_free(runtime: *mut Runtime);
    pub fn trt_engine_new(runtime: *mut Runtime, plan: *const u8, length: usize) -> *mut Engine;
    pub fn trt_engine_free(engine: *mut Engine);
    pub fn trt_engine_tensors(engine: *const Engine) -> i32;
    pub fn trt_engine_tensor(engine: *const Engine, index: i32, tensor: *mut Tensor) -> *const c_char;
    pub fn trt_engine_alias(engine: *const Engine, output: *const c_char) -> *const c_char;
    pub fn trt_engine_layers(engine: *const Engine) -> i32;
    pub fn trt_engine_profiles(engine: *const Engine) -> i32;
    pub fn trt_engine_profile(
        engine: *const Engine,
        name: *const c_char,
        profile: i32,
        which: i32,
        dims: *mut i64,
    ) -> i32;
    pub fn trt_engine_memory(engine: *const Engine) -> i64;
    pub fn trt_engine_streamable(engine: *const Engine) -> i64;
    pub fn trt_engine_budget(engine: *mut Engine, bytes: i64) -> bool;
    pub fn trt_engine_describe(engine: *const Engine, sink: TextSink, user: *mut c_void) -> bool;
    pub fn trt_engine_refit(
        library: *const Library,
        engine: *mut Engine,
        bytes: *const u8,
        length: usize,
        path: *const c_char,
    ) -> bool;

    pub fn trt_kernels_new(engine: *mut Engine) -> *mut Kernels;
    pub fn trt_kernels_free(kernels: *mut Kernels);
    pub fn trt_context_new(engine: *mut Engine, kernels: *mut Kernels, memory: *mut c_void, bytes: i64)
    -> *mut Context;
    pub fn trt_context_free(context: *mut Context);
    pub fn trt_context_profile(context: *mut Context, profile: i32, stream: *mut c_void) -> bool;
    pub fn trt_context_set_shape(context: *mut Context, name: *const c_char, dims: *const i64, rank: i32) -> bool;
    pub fn trt_context_shape(context: *const Context, name: *const c_char, dims: *mut i64) -> i32;
    pub fn trt_context_unknown(context: *mut Context, name: *mut *const c_char) -> i32;
    pub fn trt_context_set_address(context: *mut Context, name: *const c_char, address: *mut c_void) -> bool;
    pub fn trt_context_allocator(context: *mut Context, name: *const c_char, allocator: *mut Allocator) -> bool;
    pub fn trt_context_capturable(context: *const Context, stream: *mut c_void) -> bool;
    pub fn trt_context_enqueue(context: *mut Context, stream: *mut c_void) -> bool;
    pub fn trt_allocator_new(grow: GrowSink, notify: NotifySink, user: *mut c_void) -> *mut Allocator;
    pub fn trt_allocator_free(allocator: *mut Allocator);
}
