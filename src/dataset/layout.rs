//! Which objects lie where: chosen on a coarse bit grid, so that occlusion is known before a pixel is drawn.

use std::ops::RangeInclusive;

use super::assets::{Assets, Sprite};
use super::pose::Pose;
use super::rng::SceneRng;
use super::split::Split;

/// Grid cells per longest image side; a row of cells fits a `u128`.
const CELLS: f32 = 96.0;
/// No placement may leave less than this share of any object visible, where another placement exists.
const MIN_VISIBLE: f32 = 0.42;
/// The visible share of an object that is meant to be occluded.
const OCCLUDED: RangeInclusive<f32> = 0.44..=0.76;
/// Smallest and largest side of an object's whole silhouette, in units of the longest image side.
const SIDES: (f32, f32) = (0.09, 0.335);
/// Smallest side of the visible part: 6 % of the image, and the two cells by which the grid may be wrong.
const MIN_VISIBLE_SIDE: f32 = 0.083;
const TRIES: usize = 40;
/// Depth of the main object of a crop; those of its neighbours lie around it.
const MAIN_DEPTH: f32 = 0.5;

/// One object of a layout.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub class: usize,
    pub pose: Pose,
}

/// Objects from back to front.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub items: Vec<Item>,
    /// The object in the middle of a crop.
    pub main: Option<usize>,
}

impl Layout {
    /// A tabletop of `count` objects on an image of `extent` (width and height, the longer of them 1).
    pub fn tabletop(
        assets: &Assets,
        split: Split,
        extent: [f32; 2],
        count: &RangeInclusive<usize>,
        rng: &mut SceneRng,
    ) -> Self {
        let least = *count.start();
        let count = rng.between(least, *count.end());
        let classes = choose_classes(assets, count, rng);
        let crowded = (count as f32 - 3.0).clamp(0.0, 9.0) / 6.0;
        let sides = (SIDES.0, SIDES.1 - 0.05 * crowded);
        let overlap = if split.held_out() { 0.5 } else { 0.38 };
        let mut table = Table::new(extent, least);
        for class in classes {
            let t = rng.unit();
            let side = sides.0 + (sides.1 - sides.0) * t * (0.6 + 0.4 * t);
            let aim = if !table.pieces.is_empty() && rng.chance(overlap) { Aim::Overlap } else { Aim::Free };
            table.add(assets, class, side, aim, rng);
        }
        table.into_layout()
    }

    /// One object in the middle that covers 30 to 95 % of the side, often with neighbours that peek in.
    pub fn crop(assets: &Assets, extent: [f32; 2], rng: &mut SceneRng) -> Self {
        let mut table = Table::new(extent, 1);
        let class = rng.below(assets.classes().len());
        let mut pose = Pose::random(assets.sprite(class), rng.range(0.3, 0.95), rng);
        let b = pose.bounds(assets.sprite(class));
        let drift = 0.07;
        pose.centre = [
            extent[0] / 2.0 - (b[0] + b[2]) / 2.0 + rng.spread(drift),
            extent[1] / 2.0 - (b[1] + b[3]) / 2.0 + rng.spread(drift),
        ];
        table.push(Piece::new(assets.sprite(class), class, pose));
        let neighbours = rng.weighted(&[0.35, 0.4, 0.25]);
        for _ in 0..neighbours {
            table.add_neighbour(assets, rng);
        }
        let main = table.main();
        Self { main: Some(main), ..table.into_layout() }
    }
}

/// Draws the classes of a scene: often several of one class, often a shared kind or colour.
fn choose_classes(assets: &Assets, count: usize, rng: &mut SceneRng) -> Vec<usize> {
    let classes = assets.classes();
    let theme: Vec<usize> = match rng.weighted(&[0.5, 0.3, 0.2]) {
        0 => Vec::new(),
        1 => {
            let kind = &rng.pick(classes).kind;
            (0..classes.len()).filter(|&c| classes[c].kind == *kind).collect()
        }
        _ => {
            let colour = rng.pick(classes).colour;
            (0..classes.len()).filter(|&c| classes[c].colour == colour).collect()
        }
    };
    let mut chosen = Vec::with_capacity(count);
    if rng.chance(0.48) {
        let class = rng.below(classes.len());
        let copies = [2, 2, 2, 3, 3, 4][rng.below(6)].min(count);
        chosen.resize(copies, class);
    }
    while chosen.len() < count {
        let themed = !theme.is_empty() && rng.chance(0.55);
        chosen.push(if themed { *rng.pick(&theme) } else { rng.below(classes.len()) });
    }
    rng.shuffle(&mut chosen);
    chosen
}

/// What a new object should do to those already there.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Aim {
    Free,
    Overlap,
}

/// A silhouette on the grid.
#[derive(Debug, Clone)]
struct Piece {
    class: usize,
    pose: Pose,
    depth: f32,
    /// Cell position of the first bit of the first row.
    x0: i32,
    y0: i32,
    rows: Vec<u128>,
    full: u32,
}

impl Piece {
    fn new(sprite: &Sprite, class: usize, pose: Pose) -> Self {
        let b = pose.bounds(sprite).map(|v| v * CELLS);
        let (x0, y0) = (b[0].floor() as i32, b[1].floor() as i32);
        let (columns, rows) = ((b[2].ceil() as i32 - x0).clamp(1, 127), (b[3].ceil() as i32 - y0).max(1));
        let inverse = pose.inverse();
        let bits = (0..rows).map(|j| {
            let y = (y0 + j) as f32 + 0.5;
            (0..columns).fold(0u128, |row, i| {
                let x = (x0 + i) as f32 + 0.5;
                let local = inverse.local([x / CELLS - pose.centre[0], y / CELLS - pose.centre[1]]);
                row | (u128::from(sprite.alpha(2, local) > 127) << i)
            })
        });
        let rows: Vec<u128> = bits.collect();
        Self { class, pose, depth: MAIN_DEPTH, x0, y0, rows, full: 0 }
    }

    /// Width and height in cells.
    fn size(&self) -> (i32, i32) {
        let all = self.rows.iter().fold(0u128, |all, row| all | row);
        (128 - all.leading_zeros() as i32, self.rows.len() as i32)
    }

    /// Moves the silhouette by whole cells.
    fn shifted(&self, dx: i32, dy: i32) -> Self {
        let mut moved = self.clone();
        moved.x0 += dx;
        moved.y0 += dy;
        moved.pose.centre[0] += dx as f32 / CELLS;
        moved.pose.centre[1] += dy as f32 / CELLS;
        moved
    }
}

/// The grid while it fills.
struct Table {
    width: i32,
    height: i32,
    /// Sorted back to front.
    pieces: Vec<Piece>,
    /// Number of objects that are placed at any price.
    least: usize,
}

/// Summary of a table: the least visible share and visible side, and how many objects are partly hidden.
#[derive(Debug, Clone, Copy)]
struct Verdict {
    least: f32,
    smallest: f32,
    touched: usize,
    occluded: usize,
}

/// How much of a piece is seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    share: f32,
    side: f32,
}

impl Table {
    fn new(extent: [f32; 2], least: usize) -> Self {
        let cells = |e: f32| (e * CELLS + 0.5) as i32;
        Self { width: cells(extent[0]), height: cells(extent[1]), pieces: Vec::new(), least }
    }

    fn into_layout(self) -> Layout {
        Layout { items: self.pieces.into_iter().map(|p| Item { class: p.class, pose: p.pose }).collect(), main: None }
    }

    /// The bits of `piece` on grid row `y`, cut to the frame.
    #[inline]
    fn bits(&self, piece: &Piece, y: i32) -> u128 {
        let j = y - piece.y0;
        if j < 0 || j >= piece.rows.len() as i32 || y < 0 || y >= self.height {
            return 0;
        }
        let row = piece.rows[j as usize];
        let moved = match piece.x0 {
            x if x <= -128 || x >= 128 => 0,
            x if x < 0 => row >> -x,
            x => row << x,
        };
        moved & ((1u128 << self.width) - 1)
    }

    /// Inserts a piece by depth and returns its index.
    fn push(&mut self, mut piece: Piece) -> usize {
        let rows = piece.y0..piece.y0 + piece.rows.len() as i32;
        piece.full = rows.map(|y| self.bits(&piece, y).count_ones()).sum();
        let at = self.pieces.partition_point(|p| p.depth <= piece.depth);
        self.pieces.insert(at, piece);
        at
    }

    /// How much of the piece at `index` is seen under those in front of it.
    fn seen(&self, index: usize) -> Seen {
        let piece = &self.pieces[index];
        let front = &self.pieces[index + 1..];
        let (mut count, mut columns, mut first, mut last) = (0, 0u128, i32::MAX, i32::MIN);
        for y in piece.y0..piece.y0 + piece.rows.len() as i32 {
            let covered = front.iter().fold(0u128, |all, p| all | self.bits(p, y));
            let visible = self.bits(piece, y) & !covered;
            if visible != 0 {
                count += visible.count_ones();
                columns |= visible;
                first = first.min(y);
                last = y;
            }
        }
        if count == 0 {
            return Seen { share: 0.0, side: 0.0 };
        }
        let wide = 128 - columns.leading_zeros() as i32 - columns.trailing_zeros() as i32;
        Seen { share: count as f32 / piece.full.max(1) as f32, side: wide.max(last + 1 - first) as f32 / CELLS }
    }

    /// Adds an object where the aim is met; where that fails, at the place that hides the least. An object that would
    /// hide too much wherever it lies is left out, unless there are fewer than `least`.
    fn add(&mut self, assets: &Assets, class: usize, mut side: f32, aim: Aim, rng: &mut SceneRng) {
        let sprite = assets.sprite(class);
        let before = self.judge();
        let mut best: Option<(f32, Piece)> = None;
        let rounds = if self.pieces.len() < self.least { 16 } else { 3 };
        for round in 0..rounds {
            let template = Piece::new(sprite, class, Pose::random(sprite, side, rng));
            for attempt in 0..TRIES {
                let aim = if attempt < TRIES / 2 { aim } else { Aim::Free };
                let index = self.push(self.candidate(&template, aim, rng));
                let now = self.judge();
                let fair = now.least >= MIN_VISIBLE && now.smallest >= MIN_VISIBLE_SIDE;
                let met = match aim {
                    Aim::Free => now.touched <= before.touched,
                    Aim::Overlap => now.occluded > before.occluded,
                };
                if fair && met {
                    return;
                }
                let piece = self.pieces.remove(index);
                let score = if fair { now.least } else { now.least.min(now.smallest) - 1.0 };
                if best.as_ref().is_none_or(|(s, _)| score > *s) {
                    best = Some((score, piece));
                }
            }
            if best.as_ref().is_some_and(|(score, _)| *score >= MIN_VISIBLE) {
                break;
            }
            // Smaller hides less; where even that fails, it may be too small to be seen itself.
            side = if round < 2 { (side * 0.75).max(SIDES.0) } else { SIDES.0 * 1.5 };
        }
        let (score, piece) = best.expect("something was tried");
        if score >= MIN_VISIBLE || self.pieces.len() < self.least {
            self.push(piece);
        }
    }

    /// What a viewer sees of the table as it stands.
    fn judge(&self) -> Verdict {
        let mut v = Verdict { least: 1.0, smallest: 1.0, touched: 0, occluded: 0 };
        for seen in (0..self.pieces.len()).map(|i| self.seen(i)) {
            v.least = v.least.min(seen.share);
            v.smallest = v.smallest.min(seen.side);
            v.touched += usize::from(seen.share < 0.93);
            v.occluded += usize::from(OCCLUDED.contains(&seen.share));
        }
        v
    }

    /// A random place for `template`: beside a random piece so that they overlap, or anywhere in the frame.
    fn candidate(&self, template: &Piece, aim: Aim, rng: &mut SceneRng) -> Piece {
        let (w, h) = template.size();
        let (x, y) = if aim == Aim::Overlap && !self.pieces.is_empty() {
            let other = rng.pick(&self.pieces);
            let (ow, oh) = other.size();
            let reach = rng.range(0.3, 0.85);
            let place = |o: i32, os: i32, s: i32, rng: &mut SceneRng| {
                let middle = o as f32 + (os - s) as f32 / 2.0;
                (middle + reach * (os + s) as f32 / 2.0 * rng.spread(1.0)) as i32
            };
            (place(other.x0, ow, w, rng), place(other.y0, oh, h, rng))
        } else {
            let margin = if rng.chance(0.12) { 0.2 } else { 0.0 };
            let place = |cells: i32, s: i32, rng: &mut SceneRng| {
                let out = margin * s as f32;
                rng.range(-out, (cells - s) as f32 + out) as i32
            };
            (place(self.width, w, rng), place(self.height, h, rng))
        };
        // An object stays at least three quarters inside the frame.
        let clamp = |v: i32, cells: i32, s: i32| v.clamp(-s / 5, (cells - s + s / 5).max(-s / 5));
        let (x, y) = (clamp(x, self.width, w), clamp(y, self.height, h));
        let mut piece = template.shifted(x - template.x0, y - template.y0);
        // What stands lower in the picture is nearer and usually in front.
        piece.depth = (y + h) as f32 / CELLS + rng.spread(0.12);
        piece
    }

    /// Index of the main object of a crop, which alone keeps the depth of a new piece.
    fn main(&self) -> usize {
        self.pieces.iter().position(|p| p.depth == MAIN_DEPTH).expect("the main object was pushed first")
    }

    /// Adds a neighbour at the border of a crop, leaving at least half of the main object in sight.
    fn add_neighbour(&mut self, assets: &Assets, rng: &mut SceneRng) {
        let class = rng.below(assets.classes().len());
        let sprite = assets.sprite(class);
        let template = Piece::new(sprite, class, Pose::random(sprite, rng.range(0.3, 0.9), rng));
        for _ in 0..8 {
            let (s, c) = super::rng::sin_cos_turns(rng.unit());
            let reach = rng.range(0.4, 0.66) * CELLS;
            let (w, h) = template.size();
            let x = (self.width as f32 / 2.0 + c * reach) as i32 - w / 2;
            let y = (self.height as f32 / 2.0 + s * reach) as i32 - h / 2;
            let mut piece = template.shifted(x - template.x0, y - template.y0);
            piece.depth = rng.unit();
            let index = self.push(piece);
            if self.seen(self.main()).share >= 0.5 {
                return;
            }
            self.pieces.remove(index);
        }
    }
}
