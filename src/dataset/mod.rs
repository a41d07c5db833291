//! Synthetic tabletop scenes with ground truth.
//!
//! [`Assets`] (objects, sprites, textures) → [`SceneGenerator`] → [`Scene`] (picture, instance map, objects) →
//! [`Scene::expressions`]. Scene `i` of a split depends on (split, seed, `i`) alone.
//!
//! Rejected: rendering in 3-D (no models at hand whose licence fits, and a sprite with shadow, tint and occlusion
//! already defeats template matching); per-pixel procedural noise (ten times the budget of 5 ms a scene).

mod assets;
mod background;
mod canvas;
mod colour;
mod compose;
mod degrade;
mod expression;
mod layout;
mod pose;
mod rng;
mod scene;
mod split;
mod stream;
mod texture;

use std::path::{Path, PathBuf};

pub use assets::{Assets, ObjectClass};
pub use colour::Colour;
pub use expression::{Expression, ExpressionType, Level, Lexicon, Noun, held_out_nouns, vocabulary};
pub use scene::{Object, Scene, SceneGenerator, SceneKind, SceneOptions};
pub use split::Split;
pub use stream::{ExpressionTruth, ObjectTruth, SceneTruth, StreamOptions, stream};

/// Why assets could not be read or a data set could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatasetError {
    /// A file could not be read or written.
    #[error("open {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A row of `objects.csv` is malformed.
    #[error("read objects.csv, row {row}: {reason}")]
    Table {
        /// Row, from 1 for the header.
        row: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A sprite is no picture.
    #[error("decode {}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Why.
        source: image::ImageError,
    },
    /// A sprite is not 256 × 256 pixels or is empty.
    #[error("read sprite {}: 256 x 256 pixels with something opaque are expected", path.display())]
    Sprite {
        /// The file.
        path: PathBuf,
    },
}

impl DatasetError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;

    /// The repository's own assets, loaded once.
    pub(crate) fn assets() -> &'static Assets {
        static ASSETS: OnceLock<Assets> = OnceLock::new();
        ASSETS.get_or_init(|| {
            Assets::load(concat!(env!("CARGO_MANIFEST_DIR"), "/engines/tabletop")).expect("the repository holds them")
        })
    }
}
