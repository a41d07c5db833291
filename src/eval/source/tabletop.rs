//! Rendered tabletop scenes, made when they are asked for.

use serde_json::{Value, json};

use super::{Picture, Sample, Source, SourceError};
use crate::dataset::{Assets, Expression, Scene, SceneGenerator, SceneOptions, Split};
use crate::frame::Image;
use crate::prompt::CountHint;

/// Which scenes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TabletopOptions {
    /// First scene of the split. Default: 0.
    pub first: u64,
    /// Scenes. Default: 500.
    pub scenes: u64,
    /// Most expressions a scene. Default: 4.
    pub expressions: usize,
    /// Most expressions a scene that say what is not meant, besides. Default: 0.
    pub exclusions: usize,
    /// Longest image side in pixels. Default: 320, which alone gives the fixed test split.
    pub side: u32,
}

impl Default for TabletopOptions {
    fn default() -> Self {
        Self { first: 0, scenes: 500, expressions: 4, exclusions: 0, side: 320 }
    }
}

/// Scenes of one split.
pub struct Tabletop {
    generator: SceneGenerator,
    split: Split,
    options: TabletopOptions,
}

impl Tabletop {
    /// The scenes of `split` that `options` choose, drawn from `assets`.
    pub fn new(assets: &Assets, split: Split, options: TabletopOptions) -> Self {
        Self { generator: SceneGenerator::new(assets, split, 0), split, options }
    }
}

impl Source for Tabletop {
    fn pictures(&self) -> u64 {
        self.options.scenes
    }

    fn describe(&self) -> Value {
        let TabletopOptions { first, scenes, expressions, exclusions, side } = self.options;
        let split = self.split.to_string();
        json!({ "data": "tabletop", "split": split, "first": first, "pictures": scenes, "expressions": expressions,
            "exclusions": exclusions, "side": side })
    }

    fn picture(&self, index: u64) -> Result<Picture, SourceError> {
        let look = SceneOptions { longest_side: self.options.side, ..SceneOptions::default() };
        let number = self.options.first + index;
        let scene = self.generator.scene(number, &look);
        let image = Image::from_rgb(scene.size, scene.rgb.clone()).expect("a scene fills its size");
        let mut expressions = scene.expressions(self.options.expressions);
        expressions.extend(scene.exclusions(self.options.exclusions));
        let samples = expressions.iter().enumerate().map(|(i, e)| sample(&scene, e, format!("scene {number}, {i}")));
        Ok(Picture { image, samples: samples.collect() })
    }
}

fn sample(scene: &Scene, expression: &Expression, id: String) -> Sample {
    let hidden = expression.targets.iter().map(|&t| 1.0 - scene.objects[t].visible);
    Sample {
        id,
        expression: expression.text.clone(),
        kind: expression.kind.word().to_owned(),
        near_miss: expression.near_miss,
        hint: CountHint::NoneOrMore,
        targets: expression.targets.iter().map(|&t| scene.mask(t)).collect(),
        hidden: hidden.reduce(f32::max),
        ignored: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_come_with_the_truth_of_each_target() {
        let assets = Assets::load(concat!(env!("CARGO_MANIFEST_DIR"), "/engines/tabletop")).expect("loads");
        let options = TabletopOptions { first: 7, scenes: 3, side: 160, ..TabletopOptions::default() };
        let source = Tabletop::new(&assets, Split::Val, options);
        assert_eq!(source.pictures(), 3);
        for index in 0..3 {
            let picture = source.picture(index).expect("is rendered");
            assert!((1..=4).contains(&picture.samples.len()));
            for s in &picture.samples {
                assert!(s.targets.iter().all(|m| m.size() == picture.image.size() && m.area() > 0), "{}", s.id);
                assert_eq!(s.targets.is_empty(), s.kind == "none");
                assert_eq!((s.hidden.is_none(), s.truth().is_none()), (s.targets.is_empty(), s.targets.is_empty()));
            }
        }
        assert_eq!(source.picture(0).expect("is rendered").samples[0].id, "scene 7, 0");
    }
}
