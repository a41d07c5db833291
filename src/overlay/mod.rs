//! Pictures of what was understood: tinted masks with outlines, boxes, labelled points, a verdict.

mod canvas;

use embedded_graphics::mono_font::MonoFont;
use embedded_graphics::mono_font::iso_8859_1::{FONT_7X13_BOLD, FONT_9X18_BOLD};
use fast_image_resize::images::{Image as Resized, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use self::canvas::{Canvas, Rgb, fitted, text_width};
use crate::frame::Image;
use crate::geometry::{BBox, Size, SourcePx};
use crate::mask::Mask;
use crate::prompt::{LabelledPoint, PointLabel};

/// Smaller pictures are enlarged by a whole factor until their width is at least this.
const MIN_WIDTH: u32 = 480;
/// Colours of instances, by index: far apart, and readable on wood as on cloth.
const PALETTE: [Rgb; 8] = [
    [46, 196, 255],
    [255, 159, 28],
    [120, 220, 82],
    [233, 83, 172],
    [255, 215, 64],
    [160, 132, 255],
    [255, 107, 107],
    [64, 224, 208],
];
const WHITE: Rgb = [255, 255, 255];
const GREY: Rgb = [150, 155, 160];
const DARK: Rgb = [18, 20, 24];

/// One instance to draw.
#[derive(Debug, Clone, Default)]
pub struct Item<'a> {
    /// Its mask, of the picture's size; another size is not drawn.
    pub mask: Option<&'a Mask>,
    /// Its box.
    pub bbox: Option<BBox<SourcePx>>,
    /// Its points: filled where on, hollow where off, grey where unsure.
    pub points: &'a [LabelledPoint],
    /// Written above it; nothing where empty.
    pub label: String,
    /// Picks its colour; the same index always gets the same one.
    pub colour: usize,
}

/// The mood of a verdict, which colours it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Green.
    Good,
    /// Blue-grey: nothing is wrong and nothing is there.
    Neutral,
    /// Amber.
    Doubt,
    /// Red.
    Bad,
}

/// The strip below the picture.
#[derive(Debug, Clone)]
pub struct Banner {
    /// One word, in a coloured box.
    pub verdict: String,
    /// Its colour.
    pub tone: Tone,
    /// What stands beside it: the command.
    pub text: String,
    /// What stands at the right end.
    pub note: String,
}

/// Draws `items` over `image` and the banner below it. Pictures narrower than 480 pixels are enlarged by a whole
/// factor first.
pub fn draw(image: &Image, items: &[Item<'_>], banner: Option<&Banner>) -> Image {
    let factor = MIN_WIDTH.div_ceil(image.size().width).clamp(1, 8);
    let mut canvas = enlarged(image, factor);
    for item in items {
        if let Some(mask) = item.mask.filter(|m| m.size() == image.size()) {
            draw_mask(&mut canvas, mask, factor, PALETTE[item.colour % PALETTE.len()]);
        }
    }
    for item in items {
        draw_box_and_points(&mut canvas, item, factor as f32);
    }
    // Labels last: nothing is to cover them.
    let mut taken = Vec::new();
    for item in items {
        draw_label(&mut canvas, item, factor as f32, &mut taken);
    }
    if let Some(banner) = banner {
        draw_banner(&mut canvas, banner);
    }
    let size = Size::new(canvas.width as u32, canvas.height as u32);
    Image::from_rgb(size, canvas.rgb).expect("a canvas has three bytes a pixel")
}

/// The picture, `factor` times as large.
fn enlarged(image: &Image, factor: u32) -> Canvas {
    let (w, h) = (image.size().width, image.size().height);
    let mut canvas = Canvas { width: (w * factor) as usize, height: (h * factor) as usize, rgb: image.rgb().to_vec() };
    if factor > 1 {
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        let mut out = Resized::new(w * factor, h * factor, PixelType::U8x3);
        let done = ImageRef::new(w, h, image.rgb(), PixelType::U8x3)
            .is_ok_and(|source| Resizer::new().resize(&source, &mut out, &options).is_ok());
        canvas.rgb = if done { out.into_vec() } else { vec![0; canvas.width * canvas.height * 3] };
    }
    canvas
}

/// Tint and outline. The outline is where the softened mask passes one half, so it is smooth however coarse the mask.
fn draw_mask(canvas: &mut Canvas, mask: &Mask, factor: u32, colour: Rgb) {
    let Some(bbox) = mask.bbox() else { return };
    let (factor_f, margin) = (factor as f32, 4);
    let left = (bbox.x1 * factor_f) as i32 - margin;
    let top = (bbox.y1 * factor_f) as i32 - margin;
    let (w, h) = ((bbox.width() * factor_f) as usize + 8, (bbox.height() * factor_f) as usize + 8);
    let size = mask.size();
    let on = |x: i32, y: i32| {
        // Beyond the frame's edge the mask goes on as it was at the edge: no outline along the picture's border.
        let column = x.div_euclid(factor as i32).clamp(0, size.width as i32 - 1) as usize;
        let row = y.div_euclid(factor as i32).clamp(0, size.height as i32 - 1) as u32;
        f32::from(mask.row(row)[column])
    };
    let mut soft: Vec<f32> = (0..h * w).map(|i| on(left + (i % w) as i32, top + (i / w) as i32)).collect();
    for _ in 0..2 + factor {
        soft = blurred(&soft, w);
    }
    for (i, &s) in soft.iter().enumerate() {
        let (x, y) = (left + (i % w) as i32, top + (i / w) as i32);
        canvas.blend(x, y, colour, 0.42 * ((s - 0.5) * 4.0 + 0.5).clamp(0.0, 1.0));
        let line = |level: f32, width: f32| (1.0 - ((s - level).abs() - width).max(0.0) * 9.0).clamp(0.0, 1.0);
        canvas.blend(x, y, DARK, 0.5 * line(0.16, 0.10));
        canvas.blend(x, y, colour, line(0.5, 0.24));
    }
}

/// One pass of a separable 1-2-1 filter; the border keeps its values.
fn blurred(values: &[f32], width: usize) -> Vec<f32> {
    let pass = |v: &[f32], step: usize| {
        let mut out = v.to_vec();
        for i in step..v.len() - step {
            out[i] = (v[i - step] + 2.0 * v[i] + v[i + step]) / 4.0;
        }
        out
    };
    pass(&pass(values, 1), width)
}

fn draw_box_and_points(canvas: &mut Canvas, item: &Item<'_>, factor: f32) {
    let colour = PALETTE[item.colour % PALETTE.len()];
    if let Some(b) = item.bbox {
        draw_box(canvas, [b.x1, b.y1, b.x2, b.y2].map(|v| v * factor), colour);
    }
    // Small enough that the points of a small box stay apart.
    let spacing = item.bbox.map_or(20.0, |b| (b.area() / item.points.len().max(1) as f32).sqrt() * factor);
    let radius = (spacing * 0.22).clamp(1.6, 4.5);
    for p in item.points {
        let at = (p.point.x * factor, p.point.y * factor);
        match p.label {
            PointLabel::On => {
                canvas.disc(at, radius + 1.2, DARK, 0.7);
                canvas.disc(at, radius, WHITE, 1.0);
                canvas.disc(at, radius * 0.62, colour, 1.0);
            }
            PointLabel::Off => {
                canvas.ring(at, radius * 0.85, 2.6, DARK, 0.55);
                canvas.ring(at, radius * 0.85, 1.2, WHITE, 0.95);
            }
            PointLabel::Unsure => {
                canvas.disc(at, radius * 0.7 + 0.8, DARK, 0.5);
                canvas.disc(at, radius * 0.7, GREY, 0.95);
            }
        }
    }
}

/// A thin line all round and heavy corners.
fn draw_box(canvas: &mut Canvas, [x1, y1, x2, y2]: [f32; 4], colour: Rgb) {
    let corner = ((x2 - x1).min(y2 - y1) * 0.22).clamp(4.0, 22.0);
    let mut bar = |x1: f32, y1: f32, x2: f32, y2: f32, width: f32, colour: Rgb, alpha: f32| {
        let half = width / 2.0;
        canvas.panel([x1 - half, y1 - half, x2 + half, y2 + half], half.min(1.0), colour, alpha);
    };
    for (width, colour, alpha) in [(2.6, DARK, 0.3), (1.2, colour, 0.8)] {
        bar(x1, y1, x2, y1, width, colour, alpha);
        bar(x1, y2, x2, y2, width, colour, alpha);
        bar(x1, y1, x1, y2, width, colour, alpha);
        bar(x2, y1, x2, y2, width, colour, alpha);
    }
    for (width, colour, alpha) in [(4.6, DARK, 0.45), (3.0, colour, 1.0)] {
        for (x, dx) in [(x1, corner), (x2, -corner)] {
            for (y, dy) in [(y1, corner), (y2, -corner)] {
                bar(x.min(x + dx), y, x.max(x + dx), y, width, colour, alpha);
                bar(x, y.min(y + dy), x, y.max(y + dy), width, colour, alpha);
            }
        }
    }
}

/// The label on a panel of the instance's colour, above its box or mask, or below where there is no room or another
/// label is in the way.
fn draw_label(canvas: &mut Canvas, item: &Item<'_>, factor: f32, taken: &mut Vec<[f32; 4]>) {
    let Some(b) = item.bbox.or_else(|| item.mask.and_then(Mask::bbox)).filter(|_| !item.label.is_empty()) else {
        return;
    };
    let font = &FONT_7X13_BOLD;
    let text = fitted(&item.label, canvas.width.saturating_sub(12), font);
    let (w, h) = (text_width(&text, font) as f32 + 10.0, font.character_size.height as f32 + 5.0);
    let (width, height) = (canvas.width as f32, canvas.height as f32);
    let left = (b.x1 * factor - 1.0).clamp(1.0, (width - w - 1.0).max(1.0));
    let tops = [b.y1 * factor - h - 4.0, b.y2 * factor + 4.0, b.y1 * factor + 4.0, b.y1 * factor + h + 6.0];
    let free = |top: &f32| {
        let inside = *top >= 1.0 && top + h <= height - 1.0;
        let clear = |o: &[f32; 4]| left > o[2] || left + w < o[0] || *top > o[3] || top + h < o[1];
        inside && taken.iter().all(clear)
    };
    let top = tops.into_iter().find(free).unwrap_or_else(|| tops[0].clamp(1.0, (height - h - 1.0).max(1.0)));
    let bounds = [left, top, left + w, top + h];
    taken.push(bounds);
    let colour = PALETTE[item.colour % PALETTE.len()];
    canvas.panel(bounds.map(|v| v + 1.0), 4.0, DARK, 0.45);
    canvas.panel(bounds, 4.0, colour, 0.95);
    canvas.text(&text, (left as i32 + 5, top as i32 + 3), font, contrast(colour));
}

/// A strip below the picture: verdict, command, note.
fn draw_banner(canvas: &mut Canvas, banner: &Banner) {
    let font: &MonoFont<'_> = if canvas.width >= 600 { &FONT_9X18_BOLD } else { &FONT_7X13_BOLD };
    let (glyph, line) = (font.character_size.width as usize, font.character_size.height as usize);
    let (top, strip) = (canvas.height, line + 16);
    canvas.height += strip;
    canvas.rgb.resize(canvas.width * canvas.height * 3, 0);
    canvas.rgb[canvas.width * top * 3..].chunks_exact_mut(3).for_each(|p| p.copy_from_slice(&DARK));
    let colour = match banner.tone {
        Tone::Good => [74, 200, 110],
        Tone::Neutral => [128, 150, 176],
        Tone::Doubt => [245, 178, 54],
        Tone::Bad => [236, 84, 84],
    };
    let baseline = (top + 8) as i32;
    let verdict = fitted(&banner.verdict, canvas.width / 2, font);
    let pill = text_width(&verdict, font) + 2 * glyph;
    canvas.panel([8.0, top as f32 + 5.0, 8.0 + pill as f32, (top + strip) as f32 - 5.0], 5.0, colour, 1.0);
    canvas.text(&verdict, (8 + glyph as i32, baseline), font, DARK);
    let left = 8 + pill + glyph;
    let note = fitted(&banner.note, canvas.width.saturating_sub(left + 8) / 2, font);
    let right = canvas.width.saturating_sub(text_width(&note, font) + 10);
    let text = fitted(&banner.text, right.saturating_sub(left + glyph), font);
    canvas.text(&text, (left as i32, baseline), font, [236, 238, 240]);
    canvas.text(&note, (right as i32, baseline), font, GREY);
}

/// Black or white, whichever can be read on `colour`.
fn contrast([r, g, b]: Rgb) -> Rgb {
    let luma = 0.299 * f32::from(r) + 0.587 * f32::from(g) + 0.114 * f32::from(b);
    if luma > 140.0 { DARK } else { WHITE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Point;

    fn grey(width: u32, height: u32) -> Image {
        let size = Size::new(width, height);
        Image::from_rgb(size, vec![100; size.pixels() * 3]).expect("sizes match")
    }

    fn pixel(image: &Image, x: u32, y: u32) -> &[u8] {
        &image.rgb()[((y * image.size().width + x) * 3) as usize..][..3]
    }

    #[test]
    fn tints_inside_and_leaves_the_rest_alone() {
        let image = grey(640, 480);
        let mask = Mask::from_fn(image.size(), |x, y| (200..400).contains(&x) && (100..300).contains(&y));
        let out = draw(&image, &[Item { mask: Some(&mask), ..Item::default() }], None);
        assert_eq!(out.size(), image.size());
        let inside = pixel(&out, 300, 200);
        assert!(inside[2] > 150 && inside[0] < 100, "{inside:?}");
        assert_eq!(pixel(&out, 50, 50), [100; 3]);
        assert_eq!(pixel(&out, 420, 200), [100; 3]);
        // The outline is stronger than the tint.
        assert!(pixel(&out, 200, 200)[2] > inside[2]);
    }

    #[test]
    fn points_differ_by_label() {
        let image = grey(640, 480);
        let point = |x: f32, label| LabelledPoint { point: Point::new(x, 100.5), p_yes: 0.5, label };
        let points = [point(100.5, PointLabel::On), point(200.5, PointLabel::Off), point(300.5, PointLabel::Unsure)];
        let out = draw(&image, &[Item { points: &points, ..Item::default() }], None);
        assert_eq!(pixel(&out, 100, 100), PALETTE[0], "filled");
        assert_eq!(pixel(&out, 200, 100), [100; 3], "hollow");
        assert!(pixel(&out, 300, 100)[0].abs_diff(GREY[0]) < 8, "grey");
    }

    #[test]
    fn any_item_on_any_size_is_drawn_without_panic() {
        let long = "a very long label ünd mehr ".repeat(9);
        let banner = Banner { verdict: long.clone(), tone: Tone::Bad, text: long.clone(), note: long.clone() };
        for (w, h) in [(1, 1), (3, 200), (200, 3), (481, 320), (700, 40)] {
            let image = grey(w, h);
            let full = Mask::from_fn(image.size(), |_, _| true);
            let other = Mask::empty(Size::new(7, 7));
            let points = [LabelledPoint { point: Point::new(-50.0, 1e6), p_yes: 1.0, label: PointLabel::On }];
            let items = [
                Item { mask: Some(&full), label: long.clone(), ..Item::default() },
                Item {
                    mask: Some(&other),
                    bbox: Some(BBox::new(-1e4, -5.0, 1e5, 9.0)),
                    points: &points,
                    label: "x".into(),
                    colour: 99,
                },
            ];
            let out = draw(&image, &items, Some(&banner));
            assert!(out.size().height > h && out.size().width >= w);
        }
    }
}
