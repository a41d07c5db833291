//! The objects a scene can hold: the table `objects.csv` and one sprite per row.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DatasetError;
use super::background::Textures;
use super::colour::{self, Colour};
use super::expression::Lexicon;
use super::rng::sin_cos_turns;

/// Side of a sprite file in pixels.
pub const SPRITE_SIDE: usize = 256;
/// Mip levels kept per sprite: 256, 128, 64, 32 and 16 pixels.
const LEVELS: usize = 5;
/// Directions in which a silhouette's extreme points are kept.
const HULL_DIRECTIONS: usize = 40;

/// One row of `objects.csv`.
#[derive(Debug, Clone)]
pub struct ObjectClass {
    /// The plain name, such as `coffee cup`.
    pub name: String,
    /// The one colour word that describes it.
    pub colour: Colour,
    /// What it is one of, such as `fruit`.
    pub kind: String,
    /// Other names.
    pub synonyms: Vec<String>,
    /// Share of its opaque pixels that read as each colour word, each in `0.0..=1.0`.
    pub(crate) colour_shares: [f32; Colour::COUNT],
}

/// One mip level: premultiplied RGBA, row-major, `side * side`.
#[derive(Debug)]
pub(crate) struct Level {
    pub side: usize,
    pub texels: Vec<[u8; 4]>,
}

/// A sprite with its mip levels and the geometry of its silhouette.
#[derive(Debug)]
pub(crate) struct Sprite {
    pub levels: Vec<Level>,
    /// Centre of the opaque part, in pixels of level 0.
    pub centre: [f32; 2],
    /// Longer side of the opaque part, in pixels of level 0.
    pub extent: f32,
    /// Outermost points of the silhouette, relative to `centre` and in units of `extent`.
    pub hull: Vec<[f32; 2]>,
}

impl Sprite {
    /// Alpha in `0..=255` at a local point (see [`Sprite::hull`]), nearest texel of `level`.
    pub fn alpha(&self, level: usize, p: [f32; 2]) -> u8 {
        let l = &self.levels[level];
        let scale = l.side as f32 / SPRITE_SIDE as f32;
        let x = (self.centre[0] + p[0] * self.extent) * scale;
        let y = (self.centre[1] + p[1] * self.extent) * scale;
        if x < 0.0 || y < 0.0 || x >= l.side as f32 || y >= l.side as f32 {
            return 0;
        }
        l.texels[y as usize * l.side + x as usize][3]
    }

    fn from_rgba(pixels: &[u8]) -> Option<Self> {
        let mut levels = vec![Level { side: SPRITE_SIDE, texels: premultiply(pixels) }];
        while levels.len() < LEVELS {
            let halved = halve(levels.last().expect("level 0 exists"));
            levels.push(halved);
        }
        let outline = outline(&levels[0]);
        let (mut lo, mut hi) = ([f32::MAX; 2], [f32::MIN; 2]);
        for p in &outline {
            for a in 0..2 {
                lo[a] = lo[a].min(p[a]);
                hi[a] = hi[a].max(p[a]);
            }
        }
        if outline.is_empty() {
            return None;
        }
        let centre = [(lo[0] + hi[0]) / 2.0, (lo[1] + hi[1]) / 2.0];
        let extent = (hi[0] - lo[0]).max(hi[1] - lo[1]);
        Some(Self { levels, centre, extent, hull: hull(&outline, centre, extent) })
    }
}

fn premultiply(pixels: &[u8]) -> Vec<[u8; 4]> {
    let mul = |c: u8, a: u8| ((u32::from(c) * u32::from(a) + 127) / 255) as u8;
    pixels.chunks_exact(4).map(|p| [mul(p[0], p[3]), mul(p[1], p[3]), mul(p[2], p[3]), p[3]]).collect()
}

fn halve(level: &Level) -> Level {
    let side = level.side / 2;
    let mut texels = Vec::with_capacity(side * side);
    for y in 0..side {
        for x in 0..side {
            let at = |dx: usize, dy: usize| level.texels[(2 * y + dy) * level.side + 2 * x + dx];
            let four = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
            texels.push(std::array::from_fn(|c| ((four.iter().map(|t| u32::from(t[c])).sum::<u32>() + 2) / 4) as u8));
        }
    }
    Level { side, texels }
}

/// The first and last opaque pixel corner of every row.
fn outline(level: &Level) -> Vec<[f32; 2]> {
    let mut points = Vec::new();
    for (y, row) in level.texels.chunks_exact(level.side).enumerate() {
        let opaque = |t: &[u8; 4]| t[3] > 127;
        let (Some(a), Some(b)) = (row.iter().position(opaque), row.iter().rposition(opaque)) else { continue };
        for dy in [0, 1] {
            points.push([a as f32, (y + dy) as f32]);
            points.push([(b + 1) as f32, (y + dy) as f32]);
        }
    }
    points
}

fn hull(outline: &[[f32; 2]], centre: [f32; 2], extent: f32) -> Vec<[f32; 2]> {
    let mut points: Vec<[f32; 2]> = (0..HULL_DIRECTIONS)
        .filter_map(|d| {
            let (s, c) = sin_cos_turns(d as f32 / HULL_DIRECTIONS as f32);
            let along = |p: &[f32; 2]| p[0] * c + p[1] * s;
            outline.iter().copied().max_by(|a, b| along(a).total_cmp(&along(b)))
        })
        .map(|p| [(p[0] - centre[0]) / extent, (p[1] - centre[1]) / extent])
        .collect();
    points.dedup();
    points
}

/// Everything a generator needs that is loaded once: the table, the sprites, the background textures, the words.
/// Cloning shares it.
#[derive(Debug, Clone)]
pub struct Assets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    classes: Vec<ObjectClass>,
    sprites: Vec<Sprite>,
    textures: Textures,
    lexicon: Arc<Lexicon>,
}

impl Assets {
    /// Loads `objects.csv` and `sprites/*.webp` below `dir` (the bundle `engines/tabletop`).
    ///
    /// # Errors
    /// [`DatasetError`] where a file is missing, a row is malformed or a sprite is not 256 × 256.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, DatasetError> {
        let dir = dir.as_ref();
        let table = dir.join("objects.csv");
        let text = std::fs::read_to_string(&table).map_err(|e| DatasetError::io(&table, e))?;
        let (mut classes, mut sprites) = (Vec::new(), Vec::new());
        for (row, line) in text.lines().enumerate().skip(1).filter(|(_, l)| !l.trim().is_empty()) {
            let (mut class, file) = parse_row(line, row + 1)?;
            let path = dir.join("sprites").join(format!("{file}.webp"));
            let pixels = decode(&path)?;
            class.colour_shares = colour::shares(&pixels);
            sprites.push(Sprite::from_rgba(&pixels).ok_or(DatasetError::Sprite { path })?);
            classes.push(class);
        }
        if classes.is_empty() || classes.len() > 128 {
            return Err(DatasetError::Table { row: classes.len(), reason: "between 1 and 128 objects are expected" });
        }
        let lexicon = Arc::new(Lexicon::new(&classes));
        Ok(Self(Arc::new(Inner { classes, sprites, textures: Textures::new(), lexicon })))
    }

    /// The rows of `objects.csv`, in file order.
    pub fn classes(&self) -> &[ObjectClass] {
        &self.0.classes
    }

    /// The nouns that name the objects.
    pub fn lexicon(&self) -> &Arc<Lexicon> {
        &self.0.lexicon
    }

    pub(crate) fn sprite(&self, class: usize) -> &Sprite {
        &self.0.sprites[class]
    }

    pub(crate) fn textures(&self) -> &Textures {
        &self.0.textures
    }
}

fn parse_row(line: &str, row: usize) -> Result<(ObjectClass, &str), DatasetError> {
    let fields: Vec<&str> = line.trim_end().split(',').collect();
    let &[name, file, colour, kind, synonyms] = fields.as_slice() else {
        return Err(DatasetError::Table { row, reason: "five fields are expected" });
    };
    let colour = Colour::parse(colour).ok_or(DatasetError::Table { row, reason: "the colour is unknown" })?;
    let class = ObjectClass {
        name: name.to_owned(),
        colour,
        kind: kind.to_owned(),
        synonyms: synonyms.split(';').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        colour_shares: [0.0; Colour::COUNT],
    };
    Ok((class, file))
}

fn decode(path: &PathBuf) -> Result<Vec<u8>, DatasetError> {
    let image = image::open(path).map_err(|source| DatasetError::Image { path: path.clone(), source })?.into_rgba8();
    if image.dimensions() != (SPRITE_SIDE as u32, SPRITE_SIDE as u32) {
        return Err(DatasetError::Sprite { path: path.clone() });
    }
    Ok(image.into_raw())
}
