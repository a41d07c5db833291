//! Where something is in a picture, as its data set gives it: rasterised when asked for.

use crate::geometry::{Size, SourcePx};
use crate::mask::{Mask, Polygon, Rle};

/// Pixels of a picture, not yet rasterised. Checked when it was read, so that a mask can always be made.
#[derive(Debug, Clone)]
pub struct Region {
    size: Size<SourcePx>,
    shape: Shape,
}

#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// The union of polygons.
    Polygons(Vec<Polygon>),
    /// The union of run-length encoded masks, all of the picture's size.
    Runs(Vec<Rle>),
    /// Polygons painted one over the other.
    Layers(Vec<Layer>),
}

/// A polygon that turns its pixels on or off.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub on: bool,
    pub polygon: Polygon,
}

impl Region {
    /// A region of a picture of `size`; run lengths must be of that size.
    pub(super) fn new(size: Size<SourcePx>, shape: Shape) -> Self {
        Self { size, shape }
    }

    /// Size of the picture, in source pixels.
    pub fn size(&self) -> Size<SourcePx> {
        self.size
    }

    /// Its pixels, rasterised now, by the rule of COCO's mask API.
    pub fn mask(&self) -> Mask {
        match &self.shape {
            Shape::Polygons(parts) => Mask::from_polygons(self.size, parts),
            Shape::Runs(runs) => {
                let mut all = Mask::empty(self.size);
                for rle in runs {
                    all.union_with(&rle.decode().expect("run lengths were checked when they were read"));
                }
                all
            }
            Shape::Layers(layers) => paint(self.size, layers),
        }
    }
}

fn paint(size: Size<SourcePx>, layers: &[Layer]) -> Mask {
    let mut bits = vec![0; size.pixels()];
    for layer in layers {
        let mask = layer.polygon.mask(size);
        for (bit, inside) in bits.iter_mut().zip(mask.bits()) {
            if *inside == 1 {
                *bit = u8::from(layer.on);
            }
        }
    }
    Mask::from_bits(size, bits).expect("one byte a pixel, each 0 or 1")
}
