//! Scenes as files: pictures, COCO-style instances, expressions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::degrade::encode_jpeg;
use super::scene::{Scene, SceneGenerator, SceneOptions};
use super::{DatasetError, ExpressionType};
use crate::mask::{Mask, Rle};

/// File format of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PictureFormat {
    /// JPEG of quality 92.
    Jpeg,
    /// PNG, lossless.
    Png,
}

/// Quality of JPEG files; lower ones are part of the scenes themselves.
const QUALITY: u8 = 92;

impl PictureFormat {
    /// Writes 8-bit RGB of the scene's size to `path` with this format's extension; returns the file's name.
    pub(crate) fn write(self, scene: &Scene, path: &Path) -> Result<String, DatasetError> {
        let (width, height) = (scene.size.width, scene.size.height);
        let path = path.with_extension(if self == Self::Jpeg { "jpg" } else { "png" });
        match self {
            Self::Jpeg => {
                let bytes = encode_jpeg(&scene.rgb, width as usize, height as usize, QUALITY)
                    .expect("sides are limited to 16 bits");
                fs::write(&path, bytes).map_err(|e| DatasetError::io(&path, e))?;
            }
            Self::Png => image::save_buffer(&path, &scene.rgb, width, height, image::ExtendedColorType::Rgb8)
                .map_err(|source| DatasetError::Image { path: path.clone(), source })?,
        }
        Ok(path.file_name().expect("a file has a name").to_string_lossy().into_owned())
    }
}

/// What to write.
#[derive(Debug, Clone)]
pub struct RenderOptions {
    /// Index of the first scene.
    pub start: u64,
    /// Number of scenes.
    pub count: u64,
    /// Expressions per scene.
    pub expressions: usize,
    /// Format of the pictures.
    pub format: PictureFormat,
    /// Size and content of the scenes.
    pub scenes: SceneOptions,
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Scenes.
    pub scenes: u64,
    /// Scenes with two or more objects of one class.
    pub with_twins: u64,
    /// Objects.
    pub objects: u64,
    /// Targets of expressions, each time one is referred to.
    pub targets: u64,
    /// Targets of which 20 to 60 % are hidden.
    pub occluded_targets: u64,
    /// Expressions by type.
    pub expressions: BTreeMap<ExpressionType, u64>,
    /// Expressions of type none that match but for one property.
    pub near_misses: u64,
    /// Least and greatest longer side of a visible part, as a share of the longest image side.
    pub sides: Option<(f32, f32)>,
}

impl Summary {
    /// Counts one scene.
    pub fn add(&mut self, scene: &Scene, expressions: &[super::Expression]) {
        self.scenes += 1;
        self.objects += scene.objects.len() as u64;
        let twins = |i: usize| scene.objects[..i].iter().any(|o| o.class == scene.objects[i].class);
        self.with_twins += u64::from((0..scene.objects.len()).any(twins));
        let longest = scene.size.width.max(scene.size.height) as f32;
        for object in &scene.objects {
            let side = object.bbox.width().max(object.bbox.height()) / longest;
            let (lo, hi) = self.sides.unwrap_or((side, side));
            self.sides = Some((lo.min(side), hi.max(side)));
        }
        for e in expressions {
            *self.expressions.entry(e.kind).or_default() += 1;
            self.near_misses += u64::from(e.near_miss);
            self.targets += e.targets.len() as u64;
            let occluded = |&&t: &&usize| (0.4..=0.8).contains(&scene.objects[t].visible);
            self.occluded_targets += e.targets.iter().filter(occluded).count() as u64;
        }
    }

    /// Expressions of all types.
    pub fn total_expressions(&self) -> u64 {
        self.expressions.values().sum()
    }
}

/// Writes `images/`, `instances.json` and `expressions.json` below `out`; `progress` is called after every scene.
///
/// `instances.json` is COCO's format (`bbox` is `[x, y, width, height]`, `segmentation` compressed RLE of the visible
/// part, plus `visible`, its share of the silhouette inside the frame). `expressions.json` is a list whose `targets`
/// are annotation ids.
///
/// # Errors
/// [`DatasetError`] where a file cannot be written.
pub fn render(
    generator: &SceneGenerator,
    options: &RenderOptions,
    out: &Path,
    mut progress: impl FnMut(),
) -> Result<Summary, DatasetError> {
    let folder = out.join("images");
    fs::create_dir_all(&folder).map_err(|e| DatasetError::io(&folder, e))?;
    let mut summary = Summary::default();
    let (mut images, mut annotations, mut sentences) = (Vec::new(), Vec::new(), Vec::new());
    for index in options.start..options.start + options.count {
        let scene = generator.scene(index, &options.scenes);
        let file = options.format.write(&scene, &folder.join(format!("{index:06}")))?;
        let first = annotations.len() + 1;
        images.push(json!({"id": index, "file_name": file, "width": scene.size.width, "height": scene.size.height}));
        for object in 0..scene.objects.len() {
            annotations.push(annotation(&scene, object, first + object, index));
        }
        let expressions = scene.expressions(options.expressions);
        for e in &expressions {
            let targets: Vec<usize> = e.targets.iter().map(|t| first + t).collect();
            sentences.push(json!({
                "image_id": index, "type": e.kind.word(), "text": e.text, "targets": targets, "near_miss": e.near_miss,
            }));
        }
        summary.add(&scene, &expressions);
        progress();
    }
    let instances = json!({"images": images, "annotations": annotations, "categories": categories(generator)});
    write_json(&out.join("instances.json"), &instances)?;
    write_json(&out.join("expressions.json"), &Value::Array(sentences))?;
    Ok(summary)
}

fn categories(generator: &SceneGenerator) -> Value {
    let classes = generator.assets().classes().iter().enumerate();
    classes.map(|(i, c)| json!({"id": i + 1, "name": c.name, "supercategory": c.kind})).collect()
}

fn annotation(scene: &Scene, object: usize, id: usize, image: u64) -> Value {
    let o = &scene.objects[object];
    json!({
        "id": id, "image_id": image, "category_id": o.class + 1, "iscrowd": 0,
        "bbox": [o.bbox.x1, o.bbox.y1, o.bbox.width(), o.bbox.height()],
        "area": o.area, "visible": o.visible, "segmentation": segmentation(&scene.mask(object)),
    })
}

/// COCO's compressed RLE of a mask.
pub(crate) fn segmentation(mask: &Mask) -> Value {
    let size = mask.size();
    json!({"size": [size.height, size.width], "counts": Rle::encode(mask).to_coco_string()})
}

pub(crate) fn write_json(path: &PathBuf, value: &Value) -> Result<(), DatasetError> {
    let bytes = serde_json::to_vec(value).expect("plain data serialises");
    fs::write(path, bytes).map_err(|e| DatasetError::io(path, e))
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::super::tests::assets;
    use super::*;

    #[test]
    fn files_agree_with_each_other() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let generator = SceneGenerator::new(assets(), Split::Val, 3);
        let scenes = SceneOptions { longest_side: 96, ..SceneOptions::default() };
        let options = RenderOptions { start: 4, count: 3, expressions: 5, format: PictureFormat::Png, scenes };
        let mut steps = 0;
        render(&generator, &options, dir.path(), || steps += 1).expect("the directory is writable");
        assert_eq!(steps, 3);
        let read = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(dir.path().join(name)).expect("written")).expect("JSON")
        };
        let (instances, expressions) = (read("instances.json"), read("expressions.json"));
        let scene = generator.scene(4, &options.scenes);
        let picture = image::open(dir.path().join("images/000004.png")).expect("a picture").into_rgb8();
        assert_eq!(picture.as_raw(), &scene.rgb);
        let first = &instances["annotations"][0];
        let size = scene.size;
        let counts = first["segmentation"]["counts"].as_str().expect("a string");
        let mask = Rle::from_coco_string(counts, size).and_then(|r| r.decode()).expect("own RLE");
        assert_eq!(mask, scene.mask(0));
        let ids = instances["annotations"].as_array().expect("a list").len() as u64;
        for e in expressions.as_array().expect("a list") {
            for t in e["targets"].as_array().expect("a list") {
                let id = t.as_u64().expect("an id");
                assert!((1..=ids).contains(&id));
                assert_eq!(instances["annotations"][id as usize - 1]["image_id"], e["image_id"]);
            }
        }
    }
}
