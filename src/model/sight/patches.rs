//! Qwen-VL: patches of a frame at about its own size.
//!
//! Source: `transformers`, `models/qwen2_vl`, `models/qwen2_5_vl`, `models/qwen3_vl`.

use super::settings::{Checkpoint, Processor};
use super::{Position, Seen, Sight, deepstack, run};
use crate::engine::{Engine, Tensor};
use crate::frame::Image;
use crate::geometry::{ModelPx, Size, SourcePx};
use crate::import::{Front, PIXEL_BYTES};
use crate::model::ModelError;
use crate::model::branch::NEVER;
use crate::model::preprocess::Pixels;
use crate::model::stages::LoadError;

/// Longest side in shorter ones.
const MAX_RATIO: f64 = 200.0;

/// Patches in windows.
pub(super) struct Patches {
    pixels: Pixels,
    front: Front,
    /// Side of a patch in pixels.
    patch: usize,
    /// Patches along a side of what becomes one token.
    merge: usize,
    /// Least and most pixels of a resized frame.
    range: (u64, u64),
    /// Tokens along a side of a window, where there are windows.
    window: Option<usize>,
    /// Side of the square of learned positions, where there is one.
    learned: Option<usize>,
}

/// Where the tokens of a frame stand: `rows` x `columns` of them, in windows of `slots`.
struct Layout {
    rows: usize,
    columns: usize,
    windows: usize,
    slots: usize,
    /// The slot of every token, row by row, over all windows.
    places: Vec<usize>,
}

impl Patches {
    pub(super) fn new(config: &Checkpoint, processor: Processor) -> Result<Self, LoadError> {
        let windowed = config.class()?.starts_with("Qwen2_5");
        let of_tower = |key: &str, default| config.count(&["vision_config", key], default, 1 << 12);
        let patch = of_tower("patch_size", if windowed { 14 } else { 16 })? as usize;
        let merge = of_tower("spatial_merge_size", 2)? as usize;
        let agrees = processor.count("patch_size", patch as u64)? as usize == patch
            && processor.count("merge_size", merge as u64)? as usize == merge;
        if !agrees {
            return Err(processor.error("`patch_size` or `merge_size` is not that of the vision tower"));
        }
        let window = windowed.then(|| of_tower("window_size", 112)).transpose()?.map(|n| n as usize / merge / patch);
        if window == Some(0) {
            return Err(config.error("`vision_config.window_size` holds no merged patch"));
        }
        let learned = (!windowed).then(|| of_tower("num_position_embeddings", 2304)).transpose()?;
        let learned = learned.map(|n| (n as usize).isqrt());
        let (pixels, front) = (processor.pixels(), processor.front());
        Ok(Self { pixels, front, patch, merge, range: processor.pixel_range()?, window, learned })
    }

    fn resized(&self, size: Size<SourcePx>) -> Result<Size<ModelPx>, ModelError> {
        smart_size(size, self.patch * self.merge, self.range)
    }

    /// How far the dimensions of the vision graph reach, by name: smallest, usual and largest.
    pub(super) fn reach(&self) -> Vec<(&'static str, [u32; 3])> {
        let area = self.merge * self.merge;
        let tokens = (self.range.1 as usize / (area * self.patch * self.patch)).max(1);
        // The longest frame is one row of tokens, which `smart_size` never makes thinner than one.
        let longest = (MAX_RATIO * tokens as f64).sqrt().ceil() as usize;
        let [usual, most] = [tokens, tokens.max(longest)];
        let sizes = |least: usize, usual: usize, most: usize| [least, usual.min(most), most].map(|n| n as u32);
        let Some(side) = self.window else {
            return vec![("patches", sizes(area, usual * area, most * area))];
        };
        let windows = |rows: usize| {
            let columns = if rows == 1 { longest } else { (tokens / rows).min(longest) };
            rows.div_ceil(side) * columns.div_ceil(side)
        };
        let most = (1..=tokens.isqrt()).map(windows).max().unwrap_or(1);
        let patches = side * side * area;
        vec![("windows", sizes(1, usual.div_ceil(side * side), most)), ("patches", sizes(patches, patches, patches))]
    }

    fn layout(&self, size: Size<ModelPx>) -> Layout {
        let cell = self.patch * self.merge;
        let (rows, columns) = (size.height as usize / cell, size.width as usize / cell);
        let (high, wide) = self.window.map_or((rows, columns), |side| (side, side));
        let across = columns.div_ceil(wide);
        let place = |row: usize, column: usize| {
            (row / high * across + column / wide) * high * wide + row % high * wide + column % wide
        };
        let places = (0..rows * columns).map(|i| place(i / columns, i % columns)).collect();
        Layout { rows, columns, windows: rows.div_ceil(high) * across, slots: high * wide, places }
    }

    /// `pixel_bytes`, `patch_positions`, which slots are filled; a bias hides what is in the others.
    fn patches(&self, rgb: &[u8], layout: &Layout) -> (Vec<u8>, Vec<i32>, Vec<bool>) {
        let (merge, patch) = (self.merge, self.patch);
        let (area, depth) = (merge * merge, 3 * patch * patch);
        let count = layout.windows * layout.slots * area;
        let (mut values, mut positions) = (vec![0u8; count * depth], vec![0; count * 2]);
        let mut filled = vec![false; count];
        let width = layout.columns * merge * patch;
        for (token, place) in layout.places.iter().enumerate() {
            for part in 0..area {
                let row = token / layout.columns * merge + part / merge;
                let column = token % layout.columns * merge + part % merge;
                let slot = place * area + part;
                positions[slot * 2..][..2].copy_from_slice(&[row as i32, column as i32]);
                filled[slot] = true;
                let values = &mut values[slot * depth..][..depth];
                for (i, value) in values.iter_mut().enumerate() {
                    let (channel, y, x) = (i / (patch * patch), i / patch % patch, i % patch);
                    let at = ((row * patch + y) * width + column * patch + x) * 3 + channel;
                    *value = rgb[at];
                }
            }
        }
        (values, positions, filled)
    }
}

impl Sight for Patches {
    fn see(&mut self, vision: &mut dyn Engine, width: usize, image: &Image) -> Result<Seen, ModelError> {
        let size = self.resized(image.size())?;
        let rgb = self.pixels.resize(image, size)?;
        let layout = self.layout(size);
        let (values, positions, filled) = self.patches(&rgb, &layout);
        let (windows, patches) = (layout.windows, layout.slots * self.merge * self.merge);
        let depth = 3 * self.patch * self.patch;
        let mut inputs = vec![(PIXEL_BYTES, Tensor::u8(&[windows, patches, depth], values))];
        if self.window.is_some() {
            let bias: Vec<f32> = filled.iter().map(|filled| if *filled { 0.0 } else { NEVER }).collect();
            inputs.push(("attention_bias", Tensor::f32(&[windows, 1, 1, patches], bias)));
        }
        if let Some(side) = self.learned {
            let grid = [layout.rows * self.merge, layout.columns * self.merge];
            let (indices, weights) = learned_positions(&positions, grid, side);
            inputs.push(("position_indices", Tensor::i32(&[4, patches], indices)));
            inputs.push(("position_weights", Tensor::f32(&[4, patches, 1], weights)));
        }
        inputs.push(("patch_positions", Tensor::i32(&[windows, patches, 2], positions)));
        let names = deepstack(vision.outputs());
        let wanted: Vec<&str> = std::iter::once("image_embeds").chain(names.iter().map(String::as_str)).collect();
        let mut outputs = run(vision, width, inputs, &wanted)?.into_iter().map(|all| in_rows(&all, &layout, width));
        let embeds = outputs.next().unwrap_or_default();
        let place = |i: usize| -> Position { [0, (i / layout.columns) as i32, (i % layout.columns) as i32] };
        Ok(Seen {
            embeds,
            deepstack: outputs.collect(),
            positions: (0..layout.rows * layout.columns).map(place).collect(),
            span: layout.rows.max(layout.columns) as i32,
        })
    }

    fn front(&self) -> Front {
        self.front
    }

    fn input(&self, size: Size<SourcePx>) -> Result<Option<Size<ModelPx>>, ModelError> {
        self.resized(size).map(Some)
    }
}

/// The tokens of all slots, row by row, without those that were filled up.
fn in_rows(all: &[f32], layout: &Layout, width: usize) -> Vec<f32> {
    layout
        .places
        .iter()
        .flat_map(|place| all.get(place * width..(place + 1) * width).unwrap_or_default())
        .copied()
        .collect()
}

/// About the frame's own size: sides that are multiples of `factor`, no fewer and no more pixels than the range has.
///
/// # Errors
/// [`ModelError::Frame`] where one side is more than 200 times the other, or nothing fits the range.
fn smart_size(source: Size<SourcePx>, factor: usize, (least, most): (u64, u64)) -> Result<Size<ModelPx>, ModelError> {
    let (w, h) = (f64::from(source.width), f64::from(source.height));
    if w.max(h) / w.min(h) > MAX_RATIO {
        return Err(ModelError::Frame(format!("{w} x {h}: one side is more than {MAX_RATIO} times the other")));
    }
    let factor = factor as f64;
    let (least, most) = (least as f64, most as f64);
    let (mut high, mut wide) = ((h / factor).round_ties_even() * factor, (w / factor).round_ties_even() * factor);
    if high * wide > most {
        let beta = (h * w / most).sqrt();
        let side = |v: f64| ((v / beta / factor).floor() * factor).max(factor);
        (high, wide) = (side(h), side(w));
    } else if high * wide < least {
        let beta = (least / (h * w)).sqrt();
        let side = |v: f64| (v * beta / factor).ceil() * factor;
        (high, wide) = (side(h), side(w));
    }
    if high < factor || wide < factor {
        return Err(ModelError::Frame(format!("{w} x {h}: no side of {factor} pixels and more fits")));
    }
    Ok(Size::new(wide as u32, high as u32))
}

/// The four learned positions around each patch of a grid of `[rows, columns]` that is stretched over a square of
/// `side`, and their shares: `[4, patches]` each.
fn learned_positions(positions: &[i32], [rows, columns]: [usize; 2], side: usize) -> (Vec<i32>, Vec<f32>) {
    let axis = |at: i32, size: usize| {
        let exact = at as f32 * (side - 1) as f32 / (size.max(2) - 1) as f32;
        let low = (exact.floor() as usize).min(side - 1);
        ([low, (low + 1).min(side - 1)], exact - low as f32)
    };
    let count = positions.len() / 2;
    let (mut indices, mut weights) = (vec![0; 4 * count], vec![0f32; 4 * count]);
    for (i, position) in positions.chunks_exact(2).enumerate() {
        let ((rows, down), (columns, right)) = (axis(position[0], rows), axis(position[1], columns));
        for tap in 0..4 {
            let (y, x) = (tap / 2, tap % 2);
            indices[tap * count + i] = (rows[y] * side + columns[x]) as i32;
            weights[tap * count + i] =
                (if y == 0 { 1.0 - down } else { down }) * (if x == 0 { 1.0 - right } else { right });
        }
    }
    (indices, weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_within_reach() {
        use crate::engine::bundle::{Filter, Resampler};
        for (window, range) in [(Some(4), (3136, 1_003_520)), (Some(2), (3136, 40_000)), (None, (65_536, 300_000))] {
            let pixels = Pixels::new(Filter::Bicubic, Resampler::Pillow);
            let front = Front { mean: [0.5; 3], std: [0.5; 3], padded: false };
            let patches = Patches { pixels, front, patch: 14, merge: 2, range, window, learned: None };
            let reach = patches.reach();
            let within = |name: &str, size: usize| {
                let Some((_, [least, _, most])) = reach.iter().find(|(known, _)| *known == name) else { return };
                assert!((*least..=*most).contains(&(size as u32)), "{name} {size} {reach:?}");
            };
            for (w, h) in (1..400).flat_map(|n| [(n * 17, n * 5), (n * 3, 1), (190, n), (4000, n * 20), (n * n, n)]) {
                let Ok(size) = smart_size(Size::new(w, h), 28, range) else { continue };
                let layout = patches.layout(size);
                within("windows", layout.windows);
                within("patches", layout.slots * 4);
            }
        }
    }

    #[test]
    fn sizes_are_those_of_transformers() {
        // `smart_resize` of 5.24 with factor 28 and the range of Qwen2.5-VL's own checkpoints.
        let cases = [
            ((640, 480), (644, 476)),
            ((1920, 1080), (1316, 728)),
            ((4000, 3000), (1148, 840)),
            ((30, 20), (84, 56)),
            ((1, 190), (28, 784)),
            ((70, 70), (56, 56)),
            ((98, 42), (112, 56)),
            ((3840, 476), (2828, 336)),
        ];
        for ((w, h), (width, height)) in cases {
            let found = smart_size(Size::new(w, h), 28, (3136, 1_003_520)).expect("fits");
            assert_eq!((found.width, found.height), (width, height), "{w} x {h}");
        }
        assert!(smart_size(Size::new(1, 201), 28, (3136, 1_003_520)).is_err());
    }
}
