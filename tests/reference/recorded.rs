//! Goldens as the generators beside this file wrote them, and how near what was found has to be.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use sam4mllm::frame::Image;
use sam4mllm::geometry::Size;

/// Largest deviation that is accepted, relative to the largest magnitude of the golden tensor.
pub(crate) const TOLERANCE: f32 = 1e-3;

pub(crate) fn reference(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(path)
}

/// One golden file.
pub(crate) struct Goldens {
    pub name: &'static str,
    bytes: Vec<u8>,
}

impl Goldens {
    /// That of `name`, in `goldens/{file}.safetensors`.
    pub fn read_from(name: &'static str, file: &str) -> Self {
        let bytes = fs::read(reference(&format!("goldens/{file}.safetensors"))).unwrap();
        Self { name, bytes }
    }

    /// Shape and elements of the tensor `key`.
    pub fn read<T>(&self, key: &str, dtype: Dtype, element: fn(&[u8]) -> T) -> (Vec<usize>, Vec<T>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(key).unwrap();
        assert_eq!(view.dtype(), dtype, "{key}");
        (view.shape().to_vec(), view.data().chunks_exact(dtype.bitsize() / 8).map(element).collect())
    }

    pub fn floats(&self, key: &str) -> (Vec<usize>, Vec<f32>) {
        self.read(key, Dtype::F32, |b| f32::from_le_bytes(b.try_into().unwrap()))
    }

    pub fn integers(&self, key: &str) -> (Vec<usize>, Vec<i32>) {
        self.read(key, Dtype::I32, |b| i32::from_le_bytes(b.try_into().unwrap()))
    }

    pub fn bytes(&self, key: &str) -> (Vec<usize>, Vec<u8>) {
        self.read(key, Dtype::U8, |b| b[0])
    }

    /// The picture that `key` holds as `u8[height, width, 3]`.
    pub fn picture(&self, key: &str) -> Image {
        let (shape, bytes) = self.bytes(key);
        Image::from_rgb(Size::new(shape[1] as u32, shape[0] as u32), bytes).unwrap()
    }
}

pub(crate) fn near(what: &str, found: &[f32], wanted: &[f32]) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    assert!(found.iter().all(|x| x.is_finite()), "{what}: not finite");
    let largest = wanted.iter().fold(0f32, |max, x| max.max(x.abs()));
    let off = found.iter().zip(wanted).fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    println!("{what:<48} max |a - b| / max |b| = {:.2e}", off / largest);
    assert!(largest > 0.01, "{what}: the golden says nothing");
    assert!(off / largest <= TOLERANCE, "{what}: off by {off} of {largest}");
}
