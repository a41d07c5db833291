//! A picture that can be drawn on: anti-aliased shapes and bitmap fonts.

use std::convert::Infallible;

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Baseline, Text};

/// A colour, 8 bits a channel.
pub(super) type Rgb = [u8; 3];

/// Packed RGB, row-major.
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) rgb: Vec<u8>,
}

impl Canvas {
    /// Mixes `colour` into a pixel; `alpha` in `0.0..=1.0`; nothing outside the picture.
    pub(super) fn blend(&mut self, x: i32, y: i32, colour: Rgb, alpha: f32) {
        if x < 0 || y < 0 || x as usize >= self.width || y as usize >= self.height || alpha <= 0.0 {
            return;
        }
        let at = (y as usize * self.width + x as usize) * 3;
        let alpha = alpha.min(1.0);
        for (to, from) in self.rgb[at..at + 3].iter_mut().zip(colour) {
            *to = (f32::from(*to) + (f32::from(from) - f32::from(*to)) * alpha).round() as u8;
        }
    }

    /// Draws the shape whose signed distance (negative inside, in pixels) is `distance`, within `bounds`
    /// (left, top, right, bottom).
    fn shape(&mut self, bounds: [f32; 4], colour: Rgb, alpha: f32, distance: impl Fn(f32, f32) -> f32) {
        let clip = |v: f32, side: usize| v.clamp(0.0, side as f32) as i32;
        let (left, right) = (clip(bounds[0].floor() - 1.0, self.width), clip(bounds[2].ceil() + 1.0, self.width));
        let (top, bottom) = (clip(bounds[1].floor() - 1.0, self.height), clip(bounds[3].ceil() + 1.0, self.height));
        for y in top..bottom {
            for x in left..right {
                let coverage = (0.5 - distance(x as f32 + 0.5, y as f32 + 0.5)).clamp(0.0, 1.0);
                self.blend(x, y, colour, alpha * coverage);
            }
        }
    }

    /// A filled disc.
    pub(super) fn disc(&mut self, (cx, cy): (f32, f32), radius: f32, colour: Rgb, alpha: f32) {
        let bounds = [cx - radius, cy - radius, cx + radius, cy + radius];
        self.shape(bounds, colour, alpha, |x, y| (x - cx).hypot(y - cy) - radius);
    }

    /// A circle line, `width` wide and centred on `radius`.
    pub(super) fn ring(&mut self, (cx, cy): (f32, f32), radius: f32, width: f32, colour: Rgb, alpha: f32) {
        let reach = radius + width;
        let bounds = [cx - reach, cy - reach, cx + reach, cy + reach];
        self.shape(bounds, colour, alpha, |x, y| ((x - cx).hypot(y - cy) - radius).abs() - width / 2.0);
    }

    /// A filled rectangle with round corners; `bounds` are left, top, right, bottom.
    pub(super) fn panel(&mut self, bounds: [f32; 4], radius: f32, colour: Rgb, alpha: f32) {
        let (cx, cy) = ((bounds[0] + bounds[2]) / 2.0, (bounds[1] + bounds[3]) / 2.0);
        let (hw, hh) = ((bounds[2] - bounds[0]) / 2.0 - radius, (bounds[3] - bounds[1]) / 2.0 - radius);
        self.shape(bounds, colour, alpha, |x, y| {
            let (dx, dy) = ((x - cx).abs() - hw, (y - cy).abs() - hh);
            dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - radius
        });
    }

    /// A line of text whose top left corner is at `x`, `y`.
    pub(super) fn text(&mut self, text: &str, (x, y): (i32, i32), font: &MonoFont<'_>, [r, g, b]: Rgb) {
        let style = MonoTextStyle::new(font, Rgb888::new(r, g, b));
        match Text::with_baseline(text, Point::new(x, y), style, Baseline::Top).draw(self) {
            Ok(_) => {}
            Err(never) => match never {},
        }
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        for Pixel(p, colour) in pixels {
            self.blend(p.x, p.y, [colour.r(), colour.g(), colour.b()], 1.0);
        }
        Ok(())
    }
}

/// Width of a line of text in pixels.
pub(super) fn text_width(text: &str, font: &MonoFont<'_>) -> usize {
    let (glyph, gap) = (font.character_size.width as usize, font.character_spacing as usize);
    text.chars().count() * (glyph + gap)
}

/// `text`, cut to fit `width` pixels.
pub(super) fn fitted(text: &str, width: usize, font: &MonoFont<'_>) -> String {
    let fits = width / (font.character_size.width + font.character_spacing).max(1) as usize;
    if text.chars().count() <= fits {
        return text.to_owned();
    }
    text.chars().take(fits.saturating_sub(3)).chain("...".chars().take(fits)).collect()
}
