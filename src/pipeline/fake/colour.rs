//! Colour words, and connected regions of one colour.

use std::collections::HashMap;

use crate::frame::Image;
use crate::geometry::{Point, Size, SourcePx};
use crate::mask::Mask;

/// A colour that has a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Colour {
    /// Hue around 0°.
    Red,
    /// Hue around 30°.
    Orange,
    /// Hue around 55°.
    Yellow,
    /// Hue around 120°.
    Green,
    /// Hue around 185°.
    Cyan,
    /// Hue around 235°.
    Blue,
    /// Hue around 275°.
    Purple,
    /// Hue around 320°.
    Pink,
}

impl Colour {
    const WORDS: [(&'static str, Self); 8] = [
        ("red", Self::Red),
        ("orange", Self::Orange),
        ("yellow", Self::Yellow),
        ("green", Self::Green),
        ("cyan", Self::Cyan),
        ("blue", Self::Blue),
        ("purple", Self::Purple),
        ("pink", Self::Pink),
    ];

    /// The first colour word of a text.
    pub fn in_text(text: &str) -> Option<Self> {
        let lower = text.to_lowercase();
        let mut words = lower.split(|c: char| !c.is_alphanumeric());
        words.find_map(|word| Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, colour)| *colour))
    }

    /// The colour of a pixel; `None` where it is too grey or too dark to have one.
    fn of(rgb: &[u8]) -> Option<Self> {
        let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(f32::from);
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        let chroma = max - min;
        if max < 60.0 || chroma < 0.4 * max {
            return None;
        }
        let hue = 60.0
            * if max == r {
                ((g - b) / chroma).rem_euclid(6.0)
            } else if max == g {
                (b - r) / chroma + 2.0
            } else {
                (r - g) / chroma + 4.0
            };
        Some(match hue {
            h if h < 18.0 => Self::Red,
            h if h < 42.0 => Self::Orange,
            h if h < 70.0 => Self::Yellow,
            h if h < 165.0 => Self::Green,
            h if h < 205.0 => Self::Cyan,
            h if h < 258.0 => Self::Blue,
            h if h < 295.0 => Self::Purple,
            h if h < 342.0 => Self::Pink,
            _ => Self::Red,
        })
    }
}

/// A frame cut into 4-connected regions of one colour.
pub(super) struct Regions {
    size: Size<SourcePx>,
    /// `[height, width]`, 0 for background, else the number of the region.
    labels: Vec<u32>,
    /// Colour of region `i + 1`.
    colours: Vec<Colour>,
}

impl Regions {
    pub(super) fn of(image: &Image) -> Self {
        let size = image.size();
        let width = size.width as usize;
        let classes: Vec<_> = image.rgb().chunks_exact(3).map(Colour::of).collect();
        let (mut labels, mut colours) = (vec![0u32; classes.len()], Vec::new());
        let mut stack = Vec::new();
        for seed in 0..classes.len() {
            let Some(colour) = classes[seed].filter(|_| labels[seed] == 0) else { continue };
            colours.push(colour);
            let label = colours.len() as u32;
            labels[seed] = label;
            stack.push(seed);
            while let Some(at) = stack.pop() {
                let x = at % width;
                let sides = [
                    (x > 0).then(|| at - 1),
                    (x + 1 < width).then(|| at + 1),
                    at.checked_sub(width),
                    Some(at + width).filter(|a| *a < classes.len()),
                ];
                for next in sides.into_iter().flatten() {
                    if labels[next] == 0 && classes[next] == Some(colour) {
                        labels[next] = label;
                        stack.push(next);
                    }
                }
            }
        }
        Self { size, labels, colours }
    }

    pub(super) fn size(&self) -> Size<SourcePx> {
        self.size
    }

    /// The masks of all regions of `colour`, in reading order of their first pixels.
    pub(super) fn all(&self, colour: Colour) -> Vec<Mask> {
        let mut masks: HashMap<u32, Mask> = HashMap::new();
        // Count first: noise makes many tiny regions, and each mask is as large as the frame.
        let mut areas = vec![0u64; self.colours.len() + 1];
        self.labels.iter().for_each(|l| areas[*l as usize] += 1);
        let mut order = Vec::new();
        for (at, &label) in self.labels.iter().enumerate().filter(|(_, l)| **l > 0) {
            if self.colours[label as usize - 1] != colour || areas[label as usize] < super::MIN_PIXELS {
                continue;
            }
            let mask = masks.entry(label).or_insert_with(|| {
                order.push(label);
                Mask::empty(self.size)
            });
            mask.set((at % self.size.width as usize) as u32, (at / self.size.width as usize) as u32, true);
        }
        order.iter().filter_map(|label| masks.remove(label)).collect()
    }

    /// The mask of the region under `p`; `None` on background and outside.
    pub(super) fn at(&self, p: Point<SourcePx>) -> Option<Mask> {
        let (w, h) = (self.size.width as f32, self.size.height as f32);
        if !(0.0..w).contains(&p.x) || !(0.0..h).contains(&p.y) {
            return None;
        }
        let width = self.size.width as usize;
        let label = self.labels[p.y as usize * width + p.x as usize];
        (label > 0).then(|| Mask::from_fn(self.size, |x, y| self.labels[y as usize * width + x as usize] == label))
    }
}
