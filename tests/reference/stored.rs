//! Weights on disk, to be damaged.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize_to_file};

/// A tensor: dtype, shape, bytes.
pub(crate) type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// Rewrites the safetensors file at `path`; `edit` gets each tensor and may drop or rename it.
pub(crate) fn rewrite(path: &Path, edit: impl Fn(&str, Stored) -> Option<(String, Stored)>) {
    let bytes = fs::read(path).expect("reads");
    let file = SafeTensors::deserialize(&bytes).expect("is safetensors");
    let edited: Vec<(String, Stored)> = file
        .tensors()
        .into_iter()
        .filter_map(|(name, view)| edit(&name, (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    let views: HashMap<&str, TensorView<'_>> = edited
        .iter()
        .map(|(name, (dtype, shape, data))| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), data).expect("fits its shape"))
        })
        .collect();
    serialize_to_file(views, None, path).expect("writes");
}
