//! LLaVA-NeXT: the whole frame, squashed, and tiles of the frame at the best of some shapes.
//!
//! Source: `transformers`, `models/llava_next`.

use super::settings::{Checkpoint, Processor};
use super::{Seen, Sight, run_square, tower_size};
use crate::engine::Engine;
use crate::frame::Image;
use crate::geometry::{ModelPx, Size, SourcePx};
use crate::import::Front;
use crate::model::ModelError;
use crate::model::front::{Inputs, picture};
use crate::model::preprocess::Pixels;
use crate::model::stages::LoadError;

/// Most shapes that are chosen from, and most tiles of one.
const MAX_SHAPES: usize = 256;
const MAX_TILES: u64 = 256;

/// The whole and its tiles.
pub(super) struct Tiles {
    pixels: Pixels,
    front: Front,
    /// Shapes that a frame may be shown in, multiples of a tile.
    shapes: Vec<Size<ModelPx>>,
    tile: Size<ModelPx>,
    /// Tokens along a side of a tile.
    grid: usize,
}

impl Tiles {
    pub(super) fn new(config: &Checkpoint, processor: Processor, vision: &dyn Engine) -> Result<Self, LoadError> {
        let tile = processor.whole()?;
        if tile.width != tile.height || tower_size(vision) != Some(tile) || processor.crop()?.is_some_and(|c| c != tile)
        {
            return Err(processor.error("`size` and `crop_size` are not the square that the vision tower takes"));
        }
        let patch = config.count(&["vision_config", "patch_size"], 32, u64::from(tile.width))?;
        let grid = (u64::from(tile.width) / patch) as usize;
        let tokens = vision.outputs().iter().find(|o| o.name == "image_embeds").and_then(|o| o.shape[1]);
        if tokens != Some(grid * grid + 1) {
            return Err(config.error("the vision tower does not give one token a patch: tiles cannot be put together"));
        }
        Ok(Self { pixels: processor.pixels(), front: processor.front(), shapes: shapes(config, tile)?, tile, grid })
    }

    fn picture(&self, rgb: Vec<u8>) -> Inputs {
        picture(rgb, self.tile, self.tile, self.front.padded)
    }
}

/// `image_grid_pinpoints`, `[height, width]` each.
fn shapes(config: &Checkpoint, tile: Size<ModelPx>) -> Result<Vec<Size<ModelPx>>, LoadError> {
    const KEY: &str = "image_grid_pinpoints";
    let wrong =
        || config.error(format!("`{KEY}` is not a list of up to {MAX_SHAPES} heights and widths that are whole tiles"));
    let list = config.at(&[KEY]).and_then(|v| v.as_array()).ok_or_else(wrong)?;
    let side = u64::from(tile.width);
    let one = |value: &serde_json::Value| {
        let (h, w) = (value[0].as_u64()?, value[1].as_u64()?);
        let whole = h > 0 && w > 0 && h.is_multiple_of(side) && w.is_multiple_of(side);
        let few = (h / side).checked_mul(w / side).is_some_and(|tiles| tiles <= MAX_TILES);
        (whole && few).then(|| Size::new(w as u32, h as u32))
    };
    let shapes: Option<Vec<_>> = list.iter().map(one).collect();
    shapes.filter(|shapes| (1..=MAX_SHAPES).contains(&shapes.len())).ok_or_else(wrong)
}

impl Sight for Tiles {
    fn see(&mut self, vision: &mut dyn Engine, width: usize, image: &Image) -> Result<Seen, ModelError> {
        let shape = best_shape(image.size(), &self.shapes);
        let whole = self.pixels.resize(image, self.tile)?;
        let mut embeds = run_square(vision, width, self.picture(whole))?;
        // The graph gives the token that ends a row last, with every tile the same.
        let newline = embeds.split_off(embeds.len().saturating_sub(width));

        let resized = fit(image.size(), shape);
        let rgb = self.pixels.resize(image, resized)?;
        let padded = pad(&rgb, resized, shape);
        let side = self.tile.width as usize;
        let (rows, columns) = (shape.height as usize / side, shape.width as usize / side);
        let mut tiles = Vec::with_capacity(rows * columns);
        for tile in 0..rows * columns {
            let cut = cut(&padded, shape, [tile / columns * side, tile % columns * side], side);
            tiles.push(run_square(vision, width, self.picture(cut))?);
        }
        let grid = self.grid;
        let [top, left, bottom, right] = unpadded(image.size(), [rows * grid, columns * grid]);
        for row in top..bottom {
            for column in left..right {
                let tile = &tiles[row / grid * columns + column / grid];
                let at = (row % grid * grid + column % grid) * width;
                embeds.extend_from_slice(&tile[at..at + width]);
            }
            embeds.extend_from_slice(&newline);
        }
        Ok(Seen::plain(embeds))
    }

    fn front(&self) -> Front {
        self.front
    }
}

/// The shape in which most of the frame's own pixels are left; of equals the one with the least empty space.
fn best_shape(source: Size<SourcePx>, shapes: &[Size<ModelPx>]) -> Size<ModelPx> {
    let (w, h) = (f64::from(source.width), f64::from(source.height));
    let worth = |shape: &Size<ModelPx>| {
        let (sw, sh) = (f64::from(shape.width), f64::from(shape.height));
        let scale = (sw / w).min(sh / h);
        let used = ((w * scale).floor() * (h * scale).floor()).min(w * h);
        (used, sw * sh - used)
    };
    let mut best = (shapes[0], 0.0, f64::INFINITY);
    for shape in shapes {
        let (used, wasted) = worth(shape);
        if used > best.1 || (used == best.1 && wasted < best.2) {
            best = (*shape, used, wasted);
        }
    }
    best.0
}

/// The frame's size within `shape`; the side that does not fill it is rounded up.
fn fit(source: Size<SourcePx>, shape: Size<ModelPx>) -> Size<ModelPx> {
    let (w, h) = (f64::from(source.width), f64::from(source.height));
    let (x, y) = (f64::from(shape.width) / w, f64::from(shape.height) / h);
    if x < y {
        Size::new(shape.width, ((h * x).ceil() as u32).clamp(1, shape.height))
    } else {
        Size::new(((w * y).ceil() as u32).clamp(1, shape.width), shape.height)
    }
}

/// Packed RGB bytes in the middle of black ones.
fn pad(rgb: &[u8], size: Size<ModelPx>, to: Size<ModelPx>) -> Vec<u8> {
    let (top, left) = ((to.height - size.height) as usize / 2, (to.width - size.width) as usize / 2);
    let (wide, row_bytes) = (to.width as usize * 3, size.width as usize * 3);
    let mut out = vec![0; wide * to.height as usize];
    for (y, row) in rgb.chunks_exact(row_bytes).enumerate() {
        out[(top + y) * wide + left * 3..][..row_bytes].copy_from_slice(row);
    }
    out
}

/// The square of `side` at `[top, left]` of packed RGB bytes.
fn cut(rgb: &[u8], size: Size<ModelPx>, [top, left]: [usize; 2], side: usize) -> Vec<u8> {
    let rows = rgb.chunks_exact(size.width as usize * 3).skip(top).take(side);
    rows.flat_map(|row| &row[left * 3..(left + side) * 3]).copied().collect()
}

/// The tokens of `[rows, columns]` that show the frame rather than padding: top, left, bottom, right.
fn unpadded(source: Size<SourcePx>, [rows, columns]: [usize; 2]) -> [usize; 4] {
    let (w, h) = (f64::from(source.width), f64::from(source.height));
    // Rounded first, as Python does, so that a product just below a whole number counts as one.
    let whole = |x: f64| ((x * 1e7).round_ties_even() / 1e7) as usize;
    if w / h > columns as f64 / rows as f64 {
        let kept = whole(h * (columns as f64 / w));
        let padding = rows.saturating_sub(kept) / 2;
        [padding, 0, rows - padding, columns]
    } else {
        let kept = whole(w * (rows as f64 / h));
        let padding = columns.saturating_sub(kept) / 2;
        [0, padding, rows, columns - padding]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_padding_are_those_of_transformers() {
        let shapes = [(672, 336), (336, 672), (672, 672), (336, 1008), (1008, 336)].map(|(w, h)| Size::new(w, h));
        // `select_best_resolution`, `get_patch_output_size` and `unpad_image` of 5.24 with patches of 14 pixels.
        let cases = [
            ((640, 480), (672, 672), (672, 504), [6, 0, 42, 48]),
            ((1920, 1080), (672, 672), (672, 378), [10, 0, 38, 48]),
            ((480, 640), (672, 672), (504, 672), [0, 6, 48, 42]),
            ((100, 1000), (336, 1008), (101, 1008), [0, 8, 72, 16]),
            ((336, 336), (672, 336), (336, 336), [0, 12, 24, 36]),
            ((2000, 300), (1008, 336), (1008, 152), [7, 0, 17, 72]),
            ((673, 671), (672, 672), (672, 671), [0, 0, 48, 48]),
            ((1000, 999), (672, 672), (672, 672), [0, 0, 48, 48]),
        ];
        for ((w, h), shape, fitted, kept) in cases {
            let source = Size::new(w, h);
            let found = best_shape(source, &shapes);
            assert_eq!((found.width, found.height), shape, "{w} x {h}");
            let size = fit(source, found);
            assert_eq!((size.width, size.height), fitted, "{w} x {h}");
            let grid = [found.height as usize / 14, found.width as usize / 14];
            assert_eq!(unpadded(source, grid), kept, "{w} x {h}");
        }
    }
}
