//! `sam4mllm`: a command and camera frames in, masks with evidence out.
//!
//! # Architecture
//!
//! A line of code belongs where the data is at that moment. Follow a frame:
//!
//! ```text
//!  camera ──JPEG──▶ server ──▶ frame ──▶ node: the session's slot (the newest frame wins)
//!                   limits     decode      │
//!                                          ├─▶ ground stage, one thread     pipeline::Grounder
//!                                          │     command → query → text → box → points → labels
//!                                          │     (model::mllm, prompt)
//!                                          └─▶ segment stage, one thread    pipeline::Segmenter, Track
//!                                                frame → embedding → prompt → mask in source pixels
//!                                                (model::sam)
//!  planner ◀──verdicts, masks, evidence── server ◀── node: targets, instances, origins, ages
//! ```
//!
//! Grounding and segmentation are stages of their own: a slow language model never stalls masks. Between groundings
//! an instance is followed by SAM alone, prompted from its last mask, and every mask says which of the two it is.
//!
//! | room | owns | may use |
//! |---|---|---|
//! | [`geometry`], [`mask`], [`frame`] | coordinate spaces; masks, run lengths, overlap; camera encodings → RGB | – |
//! | [`prompt`] | the paper's codec and that of stock models: dialects, queries, strict parsing of answers, points, strategies | geometry, mask |
//! | [`engine`] | the [`Engine`](engine::Engine) trait, backends, bundles and their hashes | – |
//! | [`import`] | Hugging Face checkpoints → ONNX graphs that refer to the weights in place; two of them → a bundle | engine |
//! | [`hub`] | checkpoints from a Hugging Face hub: hashes, resumption, its cache; recipes of bundles | engine, import, prompt |
//! | [`model`] | tensor names, pre- and post-processing, caches of the two models | engine, frame, mask, prompt |
//! | [`pipeline`] | [`Ground`](pipeline::Ground), [`Segment`](pipeline::Segment), tracking; no tokio, no tonic | model |
//! | [`node`] | sessions, slots, scheduling; one OS thread owns each stage; no tonic | pipeline |
//! | [`server`] | the only place that knows tonic and prost | node |
//! | [`client`] | a node from a Rust program, over the wire contract alone | mask, the wire's messages |
//! | [`ros2`] | ROS 2 messages to the wire and back; with the feature `ros2` a bridge over DDS | client |
//! | [`dataset`], [`eval`], [`overlay`] | scenes with truth; metrics; pictures of answers | pipeline |
//! | [`cli`] | subcommands, the only place that prints | all |
//!
//! Three rules hold everywhere. What comes from outside (frames, commands, the model's own words, bundles) is hostile
//! and gets a typed error that names the place. "No such object" is a verdict, never an error. The same frames and
//! commands give the same answers: nothing is drawn at random after training.
//!
//! One format stands between checkpoints and backends: ONNX. `import` writes it from `config.json` and safetensors;
//! a backend is whatever runs it behind the `Engine` trait.

mod chain;
pub mod cli;
pub mod client;
mod cryptography;
pub mod dataset;
pub mod engine;
pub mod eval;
pub mod frame;
pub mod geometry;
pub mod hub;
pub mod import;
pub mod mask;
mod memory;
pub mod model;
pub mod node;
pub mod overlay;
mod pickle;
pub mod pipeline;
pub mod prompt;
mod rng;
pub mod ros2;
pub mod server;
