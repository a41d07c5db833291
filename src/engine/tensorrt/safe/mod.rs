//! TensorRT's objects as Rust's: each is freed once, after what was made from it, and is used by one thread at a time.
//!
//! What is made from a [`Builder`] borrows it. What is made from a [`Runtime`] is moved between threads, so it holds
//! its maker by counted reference: an [`Engine`] its runtime, a [`Context`] its engine.
//!
//! The vendor's rule ("TensorRT Developer Guide", Threading) is that objects are not thread-safe, that a builder is
//! used by one thread at a time, and that different threads work on different contexts of one engine. Hence builder,
//! runtime, engine and context are `Send` and none is `Sync`; networks and configurations stay where their builder is.

mod builder;
mod config;
mod context;
mod library;
mod recorder;
mod runtime;

pub use builder::{Builder, Dimension, Input, Network, Serialized};
pub use config::{BuildOptions, Config, Phase, Progress, Reach};
pub use context::{Context, OutputAllocator};
pub use library::{Flavour, LIBRARY_DIR, Library, Version};
pub use runtime::{Engine, Port, Runtime};
