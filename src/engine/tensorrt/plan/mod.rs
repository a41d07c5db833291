//! Plans: what they were built from, where they are kept, how they are made.
//!
//! A plan runs on the GPU and the TensorRT that it was built for and nowhere else, and TensorRT does not defend itself
//! against a foreign one. So its key says all that it depends on, and a plan is used where its key is the wanted one
//! to the letter; else it is built again.

mod key;
mod make;
mod shapes;
mod store;

pub use key::PlanKey;
pub use make::{Made, Recipe, Source, make};
pub use shapes::Profile;
pub use store::{Plan, PlanRecord, PlanStore};
