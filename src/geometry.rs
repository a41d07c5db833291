//! Coordinate spaces, one newtype per space, and the only conversions between them.
//!
//! A bare pair of numbers never says which image it belongs to; every box or point in this crate does:
//! [`SourcePx`] (the camera's pixels), [`ModelPx`] (the pixels of a model's resized input) and
//! [`Grid`] (the integers a language model speaks, 0..=999 in the paper).

use std::marker::PhantomData;

/// A coordinate space. Sealed by convention: the three spaces below are the only ones.
pub trait Space: Copy + Clone + std::fmt::Debug + PartialEq + Send + Sync + 'static {}

/// Pixels of the frame as the camera sent it; x right, y down, pixel centres at +0.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourcePx;
/// Pixels of a model's input after resizing; same orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPx;
/// Integers of each axis from 0 up to its [`GridScale`], the language model's coordinates. Source: arXiv 2409.10542,
/// section 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid;

impl Space for SourcePx {}
impl Space for ModelPx {}
impl Space for Grid {}

/// A point in the space `S`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point<S: Space> {
    /// Horizontal coordinate, growing to the right.
    pub x: f32,
    /// Vertical coordinate, growing downwards.
    pub y: f32,
    space: PhantomData<S>,
}

impl<S: Space> Point<S> {
    /// A point at (`x`, `y`) of the space `S`.
    pub const fn new(x: f32, y: f32) -> Self {
        Self { x, y, space: PhantomData }
    }
}

/// An axis-aligned box in the space `S`; `x1 <= x2` and `y1 <= y2` for boxes made by [`BBox::new`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BBox<S: Space> {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge (exclusive where pixels are counted).
    pub x2: f32,
    /// Bottom edge (exclusive where pixels are counted).
    pub y2: f32,
    space: PhantomData<S>,
}

impl<S: Space> BBox<S> {
    /// A box from two opposite corners, in either order.
    pub fn new(x1: f32, y1: f32, x2: f32, y2: f32) -> Self {
        Self { x1: x1.min(x2), y1: y1.min(y2), x2: x1.max(x2), y2: y1.max(y2), space: PhantomData }
    }

    /// Width, never negative.
    pub fn width(&self) -> f32 {
        self.x2 - self.x1
    }

    /// Height, never negative.
    pub fn height(&self) -> f32 {
        self.y2 - self.y1
    }

    /// Area in squared units of the space.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// The centre of the box.
    pub fn centre(&self) -> Point<S> {
        Point::new((self.x1 + self.x2) / 2.0, (self.y1 + self.y2) / 2.0)
    }

    /// Whether `p` lies inside or on the edge.
    pub fn contains(&self, p: Point<S>) -> bool {
        (self.x1..=self.x2).contains(&p.x) && (self.y1..=self.y2).contains(&p.y)
    }

    /// Intersection over union, in `0.0..=1.0`; 0 where both boxes are empty.
    pub fn iou(&self, other: &Self) -> f32 {
        let w = (self.x2.min(other.x2) - self.x1.max(other.x1)).max(0.0);
        let h = (self.y2.min(other.y2) - self.y1.max(other.y1)).max(0.0);
        let inter = w * h;
        let union = self.area() + other.area() - inter;
        if union > 0.0 { inter / union } else { 0.0 }
    }

    /// The box grown by `fraction` of its own side on each side, and clipped to `size`.
    pub fn expanded(&self, fraction: f32, size: Size<S>) -> Self {
        let (dx, dy) = (self.width() * fraction, self.height() * fraction);
        Self::new(self.x1 - dx, self.y1 - dy, self.x2 + dx, self.y2 + dy).clipped(size)
    }

    /// The box moved by `dx` to the right and `dy` down.
    pub fn shifted(&self, dx: f32, dy: f32) -> Self {
        Self::new(self.x1 + dx, self.y1 + dy, self.x2 + dx, self.y2 + dy)
    }

    /// The part of the box inside an image of `size`.
    pub fn clipped(&self, size: Size<S>) -> Self {
        let (w, h) = (size.width as f32, size.height as f32);
        Self::new(self.x1.clamp(0.0, w), self.y1.clamp(0.0, h), self.x2.clamp(0.0, w), self.y2.clamp(0.0, h))
    }
}

/// An image size in the space `S`, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size<S: Space> {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    space: PhantomData<S>,
}

impl<S: Space> Size<S> {
    /// A size of `width` columns and `height` rows.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height, space: PhantomData }
    }

    /// Number of pixels.
    pub fn pixels(&self) -> usize {
        self.width as usize * self.height as usize
    }
}

/// An independent scale per axis between two spaces that share their origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AxisScale<A: Space, B: Space> {
    /// Horizontal factor from `A` to `B`.
    pub x: f32,
    /// Vertical factor from `A` to `B`.
    pub y: f32,
    spaces: PhantomData<(A, B)>,
}

impl<A: Space, B: Space> AxisScale<A, B> {
    /// The scale that maps an image of size `from` onto one of size `to`.
    pub fn between(from: Size<A>, to: Size<B>) -> Self {
        Self { x: to.width as f32 / from.width as f32, y: to.height as f32 / from.height as f32, spaces: PhantomData }
    }

    /// The same mapping backwards.
    pub fn inverse(&self) -> AxisScale<B, A> {
        AxisScale { x: 1.0 / self.x, y: 1.0 / self.y, spaces: PhantomData }
    }

    /// Maps a point.
    pub fn point(&self, p: Point<A>) -> Point<B> {
        Point::new(p.x * self.x, p.y * self.y)
    }

    /// Maps a box.
    pub fn bbox(&self, b: BBox<A>) -> BBox<B> {
        BBox::new(b.x1 * self.x, b.y1 * self.y, b.x2 * self.x, b.y2 * self.y)
    }
}

/// The language model's integer grid: that many steps along each axis, over the whole image. In the paper 999 along both;
/// of a model that counts pixels of its input, the sides of that.
///
/// Source: arXiv 2409.10542, section 3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GridScale {
    /// Steps from left to right, at least 1.
    pub x: u32,
    /// Steps from top to bottom, at least 1.
    pub y: u32,
}

impl GridScale {
    /// As many steps along both axes.
    pub const fn square(steps: u32) -> Self {
        Self { x: steps, y: steps }
    }

    /// One step a pixel of a model's input.
    pub const fn pixels(input: Size<ModelPx>) -> Self {
        Self { x: input.width, y: input.height }
    }

    /// Steps along the axis of slot `slot` of x, y, x, y.
    pub(crate) const fn of_slot(self, slot: usize) -> u32 {
        if slot.is_multiple_of(2) { self.x } else { self.y }
    }

    /// The nearest grid point of a source pixel position, integral and within the grid.
    pub fn to_grid(self, p: Point<SourcePx>, size: Size<SourcePx>) -> Point<Grid> {
        let q = |v: f32, side: u32, s: f32| (v / side as f32 * s).round().clamp(0.0, s);
        Point::new(q(p.x, size.width, self.x as f32), q(p.y, size.height, self.y as f32))
    }

    /// The source pixel position of a grid point.
    pub fn to_source(self, p: Point<Grid>, size: Size<SourcePx>) -> Point<SourcePx> {
        Point::new(p.x / self.x as f32 * size.width as f32, p.y / self.y as f32 * size.height as f32)
    }

    /// [`GridScale::to_grid`] for both corners.
    pub fn bbox_to_grid(self, b: BBox<SourcePx>, size: Size<SourcePx>) -> BBox<Grid> {
        let (a, c) = (self.to_grid(Point::new(b.x1, b.y1), size), self.to_grid(Point::new(b.x2, b.y2), size));
        BBox::new(a.x, a.y, c.x, c.y)
    }

    /// [`GridScale::to_source`] for both corners.
    pub fn bbox_to_source(self, b: BBox<Grid>, size: Size<SourcePx>) -> BBox<SourcePx> {
        let (a, c) = (self.to_source(Point::new(b.x1, b.y1), size), self.to_source(Point::new(b.x2, b.y2), size));
        BBox::new(a.x, a.y, c.x, c.y)
    }
}
