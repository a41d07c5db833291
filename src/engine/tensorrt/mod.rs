//! TensorRT, through bindings of our own: graphs to plans, plans to engines. Behind the feature `tensorrt`.
//!
//! Three layers, as in `cudarc`: `sys` is the C interface of `shim.cpp` as it is, `result` has `Result` for null and
//! false, and [`safe`] owns and frees. [`plan`] keeps what was built, [`backend`] runs it. Nothing is linked: the
//! libraries are opened at run time and refused where they are not of the version whose headers the shim was compiled
//! against; the driver is opened by `cudarc`, which is asked whether there is one first.
//!
//! | TensorRT | here |
//! |---|---|
//! | `libnvinfer`, `libnvonnxparser`; `libtensorrt_rtx` and its parser | [`Library`] |
//! | `ILogger` | `tracing`, target `tensorrt` |
//! | `IErrorRecorder` | the text of a [`TensorRtError`] |
//! | `IBuilder`, `INetworkDefinition` with `IParser`, `IBuilderConfig` | [`Builder`], [`Network`], [`Config`] |
//! | `IOptimizationProfile` | [`Reach`] by input, [`Profile`] by name of dimension |
//! | `IProgressMonitor` | [`Progress`] |
//! | `IHostMemory` | [`Serialized`], and in the cache a [`Plan`] |
//! | `IRuntime`, `ICudaEngine` with its inspector and refitter, `IExecutionContext` | [`Runtime`], [`Engine`], [`Context`] |
//! | `IRuntimeConfig` with `IRuntimeCache`, of TensorRT for RTX | what contexts of one [`Engine`] share |
//! | `IOutputAllocator` | [`OutputAllocator`] |

pub mod backend;
mod error;
pub mod plan;
mod result;
pub mod safe;
#[allow(missing_docs)]
mod sys;

pub use backend::{Buffers, Device, Gpu, RunTimes, TensorRtEngine, failed_captures};
pub use error::{NodeFault, TensorRtError, TensorRtErrorKind};
pub use plan::{Plan, PlanKey, PlanStore, Profile};
pub use safe::{
    BuildOptions, Builder, Config, Context, Engine, Flavour, LIBRARY_DIR, Library, Network, OutputAllocator, Phase,
    Progress, Reach, Runtime, Serialized, Version,
};
