//! Which part of a frame SAM is shown for a prompt: the whole frame, or a window around the prompt's box.

use crate::engine::bundle::Zoom;
use crate::frame::Image;
use crate::geometry::{Point, Size, SourcePx};
use crate::mask::Mask;
use crate::prompt::Prompt;

/// A part of a frame, in whole pixels, inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    left: u32,
    top: u32,
    size: Size<SourcePx>,
}

impl Window {
    /// The whole of a frame of `size`.
    pub fn whole(size: Size<SourcePx>) -> Self {
        Self { left: 0, top: 0, size }
    }

    /// What SAM is shown of a frame of `size` for `prompt`: the square that `zoom` asks for around its box, moved inside
    /// the frame; the whole frame where there is no box, or where the square would be higher or wider than the frame.
    pub fn of(prompt: &Prompt, size: Size<SourcePx>, zoom: Option<Zoom>) -> Self {
        let (Some(zoom), Some(bbox)) = (zoom, prompt.bbox) else { return Self::whole(size) };
        let side = (bbox.width().max(bbox.height()) * zoom.factor).ceil().max(zoom.least_side as f32);
        // A box that is not finite is shown the whole frame, and refused there.
        let finite = [bbox.x1, bbox.y1, bbox.x2, bbox.y2].iter().all(|v| v.is_finite());
        if !finite || side > size.width.min(size.height) as f32 {
            return Self::whole(size);
        }
        let side = side as u32;
        let start = |centre: f32, limit: u32| ((centre - side as f32 / 2.0).round().max(0.0) as u32).min(limit - side);
        let centre = bbox.centre();
        Self { left: start(centre.x, size.width), top: start(centre.y, size.height), size: Size::new(side, side) }
    }

    /// The pixels of `image` in the window.
    ///
    /// # Panics
    /// Where the window is not one of the image.
    pub fn cut(&self, image: &Image) -> Image {
        if self.size == image.size() {
            return image.clone();
        }
        let row = |y: u32| {
            let start = (y as usize * image.size().width as usize + self.left as usize) * 3;
            &image.rgb()[start..][..self.size.width as usize * 3]
        };
        let rgb: Vec<u8> = (self.top..self.top + self.size.height).flat_map(row).copied().collect();
        Image::from_rgb(self.size, rgb).expect("three bytes a pixel")
    }

    /// `prompt` in the window's own pixels, without the points that cannot be seen in it.
    pub fn enter(&self, prompt: &Prompt) -> Prompt {
        let (dx, dy) = (self.left as f32, self.top as f32);
        let shift = |p: Point<SourcePx>| Point::new(p.x - dx, p.y - dy);
        let unseen = |p: &Point<SourcePx>| {
            p.x < 0.0 || p.y < 0.0 || p.x > self.size.width as f32 || p.y > self.size.height as f32
        };
        Prompt {
            bbox: prompt.bbox.map(|b| b.shifted(-dx, -dy)),
            points: prompt.points.iter().map(|(p, on)| (shift(*p), *on)).filter(|(p, _)| !unseen(p)).collect(),
        }
    }

    /// A mask of the window as a mask of the frame of `size`.
    pub fn leave(&self, mask: Mask, size: Size<SourcePx>) -> Mask {
        if self.size == size { mask } else { mask.pasted(self.left, self.top, size) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::BBox;

    const SIZE: Size<SourcePx> = Size::new(64, 48);
    const ZOOM: Zoom = Zoom { factor: 2.0, least_side: 8 };

    fn boxed(x1: f32, y1: f32, x2: f32, y2: f32) -> Prompt {
        Prompt { bbox: Some(BBox::new(x1, y1, x2, y2)), points: vec![(Point::new(x1 + 1.0, y1 + 2.0), true)] }
    }

    fn window(prompt: &Prompt) -> (u32, u32, u32, u32) {
        let w = Window::of(prompt, SIZE, Some(ZOOM));
        (w.left, w.top, w.size.width, w.size.height)
    }

    #[test]
    fn the_square_is_around_the_box_and_inside_the_frame() {
        assert_eq!(window(&boxed(30.0, 20.0, 40.0, 24.0)), (25, 12, 20, 20));
        assert_eq!(window(&boxed(0.0, 40.0, 10.0, 48.0)), (0, 28, 20, 20), "moved in from the corner");
        assert_eq!(window(&boxed(30.0, 20.0, 31.0, 21.0)), (27, 17, 8, 8), "never smaller than the least side");
        assert_eq!(window(&boxed(10.0, 5.0, 50.0, 45.0)), (0, 0, 64, 48), "does not fit: the whole frame");
        let no_box = Prompt { bbox: None, points: vec![(Point::new(5.0, 5.0), true)] };
        assert_eq!(window(&no_box), (0, 0, 64, 48));
        assert_eq!(Window::of(&boxed(30.0, 20.0, 40.0, 24.0), SIZE, None), Window::whole(SIZE));
    }

    #[test]
    fn what_is_not_finite_is_left_to_the_decoder_to_refuse() {
        for bad in [f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(window(&boxed(bad, 1.0, 3.0, 3.0)), (0, 0, 64, 48));
            assert_eq!(window(&boxed(1.0, 1.0, 3.0, bad)), (0, 0, 64, 48));
        }
    }

    #[test]
    fn pixels_and_masks_go_there_and_back() {
        let value = |x: u32, y: u32| [x as u8, y as u8, 7];
        let rgb: Vec<u8> = (0..48).flat_map(|y| (0..64).flat_map(move |x| value(x, y))).collect();
        let image = Image::from_rgb(SIZE, rgb).expect("sizes match");
        let prompt = boxed(30.0, 20.0, 40.0, 24.0);
        let window = Window::of(&prompt, SIZE, Some(ZOOM));
        let cut = window.cut(&image);
        assert_eq!(&cut.rgb()[..3], &value(25, 12));
        assert_eq!(&cut.rgb()[cut.rgb().len() - 3..], &value(44, 31));
        let inside = window.enter(&prompt);
        assert_eq!(inside.bbox, Some(BBox::new(5.0, 8.0, 15.0, 12.0)));
        assert_eq!(inside.points, [(Point::new(6.0, 10.0), true)]);
        let far =
            Prompt { points: vec![(Point::new(2.0, 2.0), false), (Point::new(45.0, 12.0), false)], ..prompt.clone() };
        assert_eq!(window.enter(&far).points, [(Point::new(20.0, 0.0), false)], "the other one is not to be seen");
        let mask = Mask::from_fn(window.size, |x, y| (5..15).contains(&x) && (8..12).contains(&y));
        assert_eq!(window.leave(mask, SIZE).bbox(), prompt.bbox);
    }

    proptest! {
        #[test]
        fn any_box_gets_a_window_of_the_frame(c in prop::array::uniform4(-1e6f32..1e6), factor in 1f32..16.0, least in 1u32..4096) {
            let zoom = Zoom { factor, least_side: least };
            let w = Window::of(&boxed(c[0], c[1], c[2], c[3]), SIZE, Some(zoom));
            prop_assert!(w.left + w.size.width <= SIZE.width && w.top + w.size.height <= SIZE.height);
            prop_assert!(w.size == SIZE || w.size.width == w.size.height);
        }
    }
}
