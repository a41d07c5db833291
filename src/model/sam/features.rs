//! What goes from SAM's image encoder to its mask decoder.

use std::sync::OnceLock;

use super::{ENCODER, output};
use crate::engine::{DataType, Engine, EngineError, Held, Tensor};
use crate::model::ModelError;
use crate::model::front::Inputs;

/// The embedding, then the finer levels of SAM 2, each with how many of its cells are along one of the embedding's.
const LEVELS: [(&str, usize); 3] = [("image_embedding", 1), ("high_res_features_0", 4), ("high_res_features_1", 2)];

/// What an image encoder gives and a mask decoder takes: `f32[1, C, h, w]`, of SAM 2 also `f32[1, C0, 4h, 4w]` and
/// `f32[1, C1, 2h, 2w]`.
pub(in crate::model) struct Features {
    /// Height and width of the embedding, in cells; neither is zero.
    grid: [usize; 2],
    /// Whether there are finer levels.
    finer: bool,
    source: Source,
}

enum Source {
    Host(Vec<Tensor<'static>>),
    /// Where the encoder computes, and copies of that on the host once they were asked for.
    Engine(Box<dyn Held>, OnceLock<Vec<Tensor<'static>>>),
}

impl Features {
    /// What `encoder` is to be asked for.
    pub(in crate::model) fn names(encoder: &dyn Engine) -> Vec<&'static str> {
        let gives = |name: &str| encoder.outputs().iter().any(|output| output.name == name);
        let finer = LEVELS[1..].iter().map(|(name, _)| *name).filter(|name| gives(name));
        std::iter::once(LEVELS[0].0).chain(finer).collect()
    }

    /// The features that `encoder` sees in a picture; they stay where it computes, if that is elsewhere than on the host.
    ///
    /// # Errors
    /// The engine's, and as [`new`](Self::new) and [`held`](Self::held).
    pub(super) fn of(encoder: &mut dyn Engine, inputs: Inputs) -> Result<Self, ModelError> {
        let names = Self::names(encoder);
        match encoder.can_hold() {
            true => Self::held(encoder.run_held(inputs, &names)?),
            false => Self::new(encoder.run(inputs, &names)?),
        }
    }

    /// The encoder's outputs of those names.
    ///
    /// # Errors
    /// [`ModelError::Output`] where one is misshapen, not of floats, or holds NaN or infinity.
    pub(in crate::model) fn new(outputs: Vec<Tensor<'static>>) -> Result<Self, ModelError> {
        for (tensor, (name, _)) in outputs.iter().zip(LEVELS) {
            match tensor.as_f32() {
                Some(values) if values.iter().all(|v| v.is_finite()) => {}
                Some(_) => return Err(output(ENCODER, name, "holds NaN or infinity")),
                None => return Err(output(ENCODER, name, "is not of floats")),
            }
        }
        let grid = grid_of(&outputs.iter().map(|tensor| tensor.shape().to_vec()).collect::<Vec<_>>())?;
        Ok(Self { grid, finer: outputs.len() > 1, source: Source::Host(outputs) })
    }

    /// The encoder's outputs, where it computes. Nobody looks at their elements there: NaN and infinity, which the first
    /// normalisation makes NaN, show in the mask decoder's outputs, and in the self-test, which has these on the host.
    ///
    /// # Errors
    /// [`ModelError::Output`] where one is misshapen or not of floats.
    pub(in crate::model) fn held(outputs: Box<dyn Held>) -> Result<Self, ModelError> {
        let infos = outputs.infos();
        if let Some((_, (name, _))) = infos.iter().zip(LEVELS).find(|(info, _)| info.data_type != DataType::F32) {
            return Err(output(ENCODER, name, "is not of floats"));
        }
        let shape = |shape: &Vec<Option<usize>>| shape.iter().map(|size| size.unwrap_or(0)).collect();
        let grid = grid_of(&infos.iter().map(|info| shape(&info.shape)).collect::<Vec<_>>())?;
        Ok(Self { grid, finer: infos.len() > 1, source: Source::Engine(outputs, OnceLock::new()) })
    }

    /// Height and width of the embedding, in cells; neither is zero.
    pub(in crate::model) fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// Whether there are the finer levels of SAM 2.
    pub(super) fn have_finer(&self) -> bool {
        self.finer
    }

    /// All of them on the host, where the first call brings them if they are not there.
    ///
    /// # Errors
    /// Those of [`Held::fetch`].
    pub(super) fn tensors(&self) -> Result<&[Tensor<'static>], EngineError> {
        match &self.source {
            Source::Host(tensors) => Ok(tensors),
            Source::Engine(held, fetched) => match fetched.get() {
                Some(tensors) => Ok(tensors),
                None => {
                    let tensors = held.fetch()?;
                    Ok(fetched.get_or_init(|| tensors))
                }
            },
        }
    }

    /// Runs `decoder` with these and with `inputs`.
    ///
    /// # Errors
    /// The engine's.
    pub(in crate::model) fn decode(
        &self,
        decoder: &mut dyn Engine,
        inputs: Vec<(&str, Tensor<'_>)>,
        outputs: &[&str],
    ) -> Result<Vec<Tensor<'static>>, EngineError> {
        match &self.source {
            Source::Host(tensors) => {
                let levels = LEVELS.iter().zip(tensors).map(|((name, _), tensor)| (*name, tensor.view()));
                decoder.run(levels.chain(inputs).collect(), outputs)
            }
            Source::Engine(held, _) => decoder.run_with(&**held, inputs, outputs),
        }
    }
}

/// The embedding's height and width, where all levels have shapes that go with it.
fn grid_of(shapes: &[Vec<usize>]) -> Result<[usize; 2], ModelError> {
    if ![1, LEVELS.len()].contains(&shapes.len()) {
        return Err(output(ENCODER, "*", format!("gave {} outputs, expected 1 or {}", shapes.len(), LEVELS.len())));
    }
    let misshapen = |i: usize| output(ENCODER, LEVELS[i].0, format!("has shape {:?}", shapes[i]));
    let [1, c, h, w] = shapes[0][..] else { return Err(misshapen(0)) };
    if c * h * w == 0 {
        return Err(misshapen(0));
    }
    let fits =
        |i: &usize| matches!(shapes[*i][..], [1, c, y, x] if c > 0 && y == LEVELS[*i].1 * h && x == LEVELS[*i].1 * w);
    match (1..shapes.len()).find(|i| !fits(i)) {
        Some(i) => Err(misshapen(i)),
        None => Ok([h, w]),
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::engine::TensorInfo;
    use crate::engine::fake::FakeEngine;

    /// Outputs of an engine's, and how often they were fetched.
    #[derive(Debug)]
    struct Elsewhere(Vec<TensorInfo>, Arc<AtomicUsize>);

    impl Held for Elsewhere {
        fn infos(&self) -> &[TensorInfo] {
            &self.0
        }

        fn fetch(&self) -> Result<Vec<Tensor<'static>>, EngineError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            let tensor = |info: &TensorInfo| {
                let shape: Vec<_> = info.shape.iter().flatten().copied().collect();
                Tensor::f32(&shape, vec![0.5; shape.iter().product()])
            };
            Ok(self.0.iter().map(tensor).collect())
        }

        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    fn elsewhere(shapes: &[[usize; 4]], data_type: DataType) -> (Box<dyn Held>, Arc<AtomicUsize>) {
        let info = |(shape, (name, _)): (&[usize; 4], (&str, usize))| TensorInfo {
            name: name.to_owned(),
            data_type,
            shape: shape.iter().copied().map(Some).collect(),
        };
        let fetched = Arc::default();
        (Box::new(Elsewhere(shapes.iter().zip(LEVELS).map(info).collect(), Arc::clone(&fetched))), fetched)
    }

    #[test]
    fn what_is_held_is_fetched_for_whoever_asks() {
        let (held, fetched) = elsewhere(&[[1, 8, 4, 4], [1, 1, 16, 16], [1, 2, 8, 8]], DataType::F32);
        let features = Features::held(held).expect("fits");
        assert_eq!((features.grid(), features.have_finer()), ([4, 4], true));
        assert_eq!(fetched.load(Ordering::Relaxed), 0, "nobody asked yet");
        for _ in 0..2 {
            assert_eq!(features.tensors().expect("are fetched")[2].shape(), [1, 2, 8, 8]);
        }
        assert_eq!(fetched.load(Ordering::Relaxed), 1);
        // An engine on the host takes them as inputs of their names.
        let mut decoder = FakeEngine::new("mask_decoder", |inputs, _| {
            let names: Vec<_> = inputs.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["points", "image_embedding", "high_res_features_0", "high_res_features_1"]);
            Ok(Vec::new())
        });
        let points = vec![("points", Tensor::f32(&[1], vec![0.0]))];
        features.decode(&mut decoder, points, &[]).expect("runs");
    }

    #[test]
    fn what_is_held_is_refused_by_its_shape() {
        let cases = [
            (vec![], DataType::F32, "*"),
            (vec![[1, 8, 4, 4], [1, 1, 16, 16]], DataType::F32, "*"),
            (vec![[1, 8, 4, 0]], DataType::F32, "image_embedding"),
            (vec![[1, 8, 4, 4]], DataType::I32, "image_embedding"),
            (vec![[1, 8, 4, 4], [1, 1, 16, 16], [1, 2, 8, 4]], DataType::F32, "high_res_features_1"),
        ];
        for (shapes, data_type, name) in cases {
            let error = Features::held(elsewhere(&shapes, data_type).0).err().expect("is refused");
            assert!(matches!(error, ModelError::Output { tensor, .. } if tensor == name), "{error}");
        }
    }
}
