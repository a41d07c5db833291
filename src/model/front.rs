//! Pictures in bytes for every engine: what a graph without a [`Front`] lacks is done on the host before it.
//!
//! TensorRT's graphs have the front in them. The CPU's have none: a table of all 256 bytes does there in one pass over the
//! pixels what takes ten operators of a graph, most with a copy of the picture in 32-bit floats. A padded picture of 1024
//! by 1024 pixels takes 5 ms so, and 17 ms by those operators in `rten`, on two busy cores.

use super::sight;
use super::stages::LoadError;
use crate::engine::bundle::{Bundle, Fit, ImageSpec};
use crate::engine::{Data, DataType, Engine, EngineError, EngineErrorKind as Kind, Held, Tensor, TensorInfo};
use crate::geometry::{ModelPx, Size};
use crate::import::{Front, PIXEL_BYTES, PIXEL_EXTENT, PIXEL_VALUES};

impl Front {
    /// The front of a model that is fed as `spec` says.
    pub fn of(spec: &ImageSpec) -> Self {
        Self { mean: spec.mean, std: spec.std, padded: spec.fit == Fit::Letterbox }
    }
}

/// The front of one of a bundle's graphs; `None` for those that take no picture.
///
/// # Errors
/// [`LoadError::Config`] where the checkpoint does not say how it is fed.
pub(crate) fn front_of(name: &str, bundle: &Bundle) -> Result<Option<Front>, LoadError> {
    let manifest = bundle.manifest();
    match name {
        "image_encoder" => Ok(Some(Front::of(&manifest.sam.image))),
        "vision" => sight::front(&bundle.mllm_dir(), manifest.mllm.image.as_ref()).map(Some),
        _ => Ok(None),
    }
}

/// An engine's inputs.
pub(crate) type Inputs = Vec<(&'static str, Tensor<'static>)>;

/// A picture of `input`'s size as an engine takes it: packed RGB bytes of `size` at the top left. What is beyond them is
/// told where the engine's front knows padding.
pub(crate) fn picture(rgb: Vec<u8>, size: Size<ModelPx>, input: Size<ModelPx>, padded: bool) -> Inputs {
    let [width, height] = [input.width as usize, input.height as usize];
    let bytes = if size == input { rgb } else { spread(&rgb, size, [width, height]) };
    let mut inputs = vec![(PIXEL_BYTES, Tensor::u8(&[1, height, width, 3], bytes))];
    if padded {
        inputs.push((PIXEL_EXTENT, Tensor::i32(&[2], vec![size.height as i32, size.width as i32])));
    }
    inputs
}

/// Packed pixels at the top left of larger ones, which are 0 elsewhere.
fn spread(rgb: &[u8], size: Size<ModelPx>, [width, height]: [usize; 2]) -> Vec<u8> {
    let mut bytes = vec![0; 3 * width * height];
    let row = size.width as usize * 3;
    for (to, from) in bytes.chunks_exact_mut(3 * width).zip(rgb.chunks_exact(row)) {
        to[..row].copy_from_slice(from);
    }
    bytes
}

/// `engine` as one that takes bytes, whether or not its graph does: a picture as
/// [`PIXEL_BYTES`](crate::import::PIXEL_BYTES), `u8[1, H, W, 3]`, or patches, and where `front` is padded
/// [`PIXEL_EXTENT`](crate::import::PIXEL_EXTENT), `i32[2]`. Engines that models are made of get this by themselves.
pub fn on_bytes(engine: Box<dyn Engine>, front: &Front) -> Box<dyn Engine> {
    if engine.inputs().iter().any(|info| info.name == PIXEL_BYTES) {
        return engine;
    }
    Box::new(HostFront::new(engine, front))
}

/// An engine whose front is on the host.
struct HostFront {
    engine: Box<dyn Engine>,
    /// What every byte becomes, by channel.
    table: [[f32; 256]; 3],
    padded: bool,
    inputs: Vec<TensorInfo>,
}

impl HostFront {
    fn new(engine: Box<dyn Engine>, front: &Front) -> Self {
        let table = std::array::from_fn(|channel| std::array::from_fn(|byte| front.value(channel, byte as u8)));
        let inputs = engine.inputs().iter().flat_map(|info| in_bytes(info, front.padded)).collect();
        Self { engine, table, padded: front.padded, inputs }
    }

    /// The same inputs as the engine takes them.
    fn normalised<'t>(&self, inputs: Vec<(&'t str, Tensor<'t>)>) -> Result<Vec<(&'t str, Tensor<'t>)>, EngineError> {
        let fault = |name: &str, why: String| EngineError::new(Kind::Input, self.name(), why).at_tensor(name);
        let (extents, mut inputs): (Vec<_>, Vec<_>) = inputs.into_iter().partition(|(name, _)| *name == PIXEL_EXTENT);
        let extent = match extents.first().map(|(_, extent)| (extent.shape(), extent.data())) {
            None => None,
            Some(([2], Data::I32(extent))) if self.padded => Some([extent[0], extent[1]]),
            Some(_) => {
                return Err(fault(PIXEL_EXTENT, "is not of two integers, or the engine has no such input".into()));
            }
        };
        for (name, tensor) in inputs.iter_mut().filter(|(name, _)| *name == PIXEL_BYTES) {
            *tensor = self.values(tensor, extent).map_err(|why| fault(PIXEL_BYTES, why))?;
            *name = PIXEL_VALUES;
        }
        Ok(inputs)
    }

    fn values(&self, bytes: &Tensor<'_>, extent: Option<[i32; 2]>) -> Result<Tensor<'static>, String> {
        let Data::U8(values) = bytes.data() else {
            return Err(format!("is {:?}, must be {:?}", bytes.data_type(), DataType::U8));
        };
        match *bytes.shape() {
            [1, height, width, 3] if height * width > 0 => {
                let whole = [height as i32, width as i32];
                let extent = if self.padded { extent.ok_or("comes without its extent")? } else { whole };
                if extent.iter().zip(whole).any(|(part, whole)| !(0..=whole).contains(part)) {
                    return Err(format!("has an extent of {extent:?}, beyond {whole:?}"));
                }
                let planes = self.planes(values, [height, width], extent.map(|side| side as usize));
                Ok(Tensor::f32(&[1, 3, height, width], planes))
            }
            [_, _, depth] if depth > 0 && depth.is_multiple_of(3) => {
                let channels = values.chunks_exact(depth / 3).zip(self.table.iter().cycle());
                let patches = channels.flat_map(|(bytes, table)| bytes.iter().map(|byte| table[usize::from(*byte)]));
                Ok(Tensor::f32(bytes.shape(), patches.collect::<Vec<_>>()))
            }
            _ => Err(format!("has shape {:?}, must be that of a picture or of patches", bytes.shape())),
        }
    }

    /// `f32[3, height, width]`, 0 beyond the first `rows` and `columns`.
    fn planes(&self, bytes: &[u8], [height, width]: [usize; 2], [rows, columns]: [usize; 2]) -> Vec<f32> {
        let mut planes = vec![0f32; 3 * height * width];
        for (y, row) in bytes.chunks_exact(width * 3).take(rows).enumerate() {
            for (channel, table) in self.table.iter().enumerate() {
                let plane = &mut planes[(channel * height + y) * width..][..columns];
                for (to, pixel) in plane.iter_mut().zip(row.chunks_exact(3)) {
                    *to = table[usize::from(pixel[channel])];
                }
            }
        }
        planes
    }
}

/// An input as it is with a front.
fn in_bytes(info: &TensorInfo, padded: bool) -> Vec<TensorInfo> {
    if info.name != PIXEL_VALUES {
        return vec![info.clone()];
    }
    let (shape, padded) = match info.shape[..] {
        [images, channels, height, width] => (vec![images, height, width, channels], padded),
        _ => (info.shape.clone(), false),
    };
    let mut inputs = vec![TensorInfo { name: PIXEL_BYTES.into(), data_type: DataType::U8, shape }];
    if padded {
        inputs.push(TensorInfo { name: PIXEL_EXTENT.into(), data_type: DataType::I32, shape: vec![Some(2)] });
    }
    inputs
}

impl Engine for HostFront {
    fn name(&self) -> &str {
        self.engine.name()
    }

    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        self.engine.outputs()
    }

    fn run(&mut self, inputs: Vec<(&str, Tensor<'_>)>, outputs: &[&str]) -> Result<Vec<Tensor<'static>>, EngineError> {
        let inputs = self.normalised(inputs)?;
        self.engine.run(inputs, outputs)
    }

    fn can_hold(&self) -> bool {
        self.engine.can_hold()
    }

    fn run_held(&mut self, inputs: Vec<(&str, Tensor<'_>)>, outputs: &[&str]) -> Result<Box<dyn Held>, EngineError> {
        let inputs = self.normalised(inputs)?;
        self.engine.run_held(inputs, outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::{Calls, FakeEngine};

    const FRONT: Front = Front { mean: [0.5, 0.25, 0.0], std: [0.5, 1.0, 2.0], padded: true };

    /// An engine that takes pixels of `shape`, and what it was asked.
    fn engine(shape: &[usize]) -> (Box<dyn Engine>, Calls) {
        let info = |name: &str, shape: &[usize]| TensorInfo {
            name: name.into(),
            data_type: DataType::F32,
            shape: shape.iter().copied().map(Some).collect(),
        };
        let fake = FakeEngine::new("vision", |_, _| Ok(Vec::new()));
        let fake = fake.with_signature(vec![info(PIXEL_VALUES, shape), info("more", &[1])], Vec::new());
        let calls = fake.calls();
        (on_bytes(Box::new(fake), &FRONT), calls)
    }

    #[test]
    fn a_picture_is_normalised_and_padded_on_the_host() {
        let (mut engine, calls) = engine(&[1, 3, 2, 3]);
        let names: Vec<_> = engine.inputs().iter().map(|info| (info.name.as_str(), info.shape.len())).collect();
        assert_eq!(names, [(PIXEL_BYTES, 4), (PIXEL_EXTENT, 1), ("more", 1)]);
        let rgb = vec![255, 0, 51, 0, 255, 102];
        let mut inputs = picture(rgb, Size::new(2, 1), Size::new(3, 2), true);
        assert_eq!(inputs[0].1.shape(), [1, 2, 3, 3]);
        inputs.push(("more", Tensor::f32(&[1], vec![7.0])));
        engine.run(inputs.clone(), &[]).expect("runs");
        let all = calls.all();
        let found = all[0].input(PIXEL_VALUES).expect("is given");
        let value = |channel, byte| FRONT.value(channel, byte);
        let planes = [
            [value(0, 255), value(0, 0), 0.0, 0.0, 0.0, 0.0],
            [value(1, 0), value(1, 255), 0.0, 0.0, 0.0, 0.0],
            [value(2, 51), value(2, 102), 0.0, 0.0, 0.0, 0.0],
        ];
        assert_eq!(found, &Tensor::f32(&[1, 3, 2, 3], planes.concat()));
        assert_eq!(all[0].inputs.len(), 2, "the extent is the front's");
        // Twice in front is once.
        assert_eq!(on_bytes(engine, &FRONT).inputs().len(), 3);
    }

    #[test]
    fn patches_are_normalised_channel_by_channel() {
        let (mut engine, calls) = engine(&[1, 2, 6]);
        let bytes: Vec<u8> = (0..12).map(|i| i * 20).collect();
        engine.run(vec![(PIXEL_BYTES, Tensor::u8(&[1, 2, 6], &bytes[..]))], &[]).expect("runs");
        let values: Vec<f32> = bytes.iter().enumerate().map(|(i, byte)| FRONT.value(i % 6 / 2, *byte)).collect();
        assert_eq!(calls.all()[0].input(PIXEL_VALUES), Some(&Tensor::f32(&[1, 2, 6], values)));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let (mut engine, _) = engine(&[1, 3, 2, 3]);
        let bytes = Tensor::u8(&[1, 2, 3, 3], vec![0; 18]);
        let extent = |sides: [i32; 2]| (PIXEL_EXTENT, Tensor::i32(&[2], sides.to_vec()));
        let cases = [
            (vec![(PIXEL_BYTES, bytes.clone())], "without its extent"),
            (vec![(PIXEL_BYTES, bytes.clone()), extent([3, 3])], "beyond [2, 3]"),
            (vec![(PIXEL_BYTES, bytes), extent([-1, 3])], "beyond [2, 3]"),
            (vec![(PIXEL_BYTES, Tensor::u8(&[18], vec![0; 18]))], "has shape [18]"),
            (vec![(PIXEL_BYTES, Tensor::f32(&[1, 2, 3, 3], vec![0.0; 18]))], "must be U8"),
            (vec![(PIXEL_EXTENT, Tensor::i32(&[1], vec![2]))], "not of two integers"),
        ];
        for (inputs, said) in cases {
            let error = engine.run(inputs, &[]).expect_err(said);
            let cause = std::error::Error::source(&error).expect("has a cause").to_string();
            assert!(error.kind() == Kind::Input && cause.contains(said), "{said}: {cause}");
        }
    }
}
