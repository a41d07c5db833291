//! Pictures with known truth.

use sam4mllm::geometry::Size;
use sam4mllm::mask::Mask;
use sam4mllm::server::wire;

/// Grey noise with filled boxes in front.
#[derive(Debug, Clone)]
pub struct Scene {
    pub width: u32,
    pub height: u32,
    boxes: Vec<([u32; 4], [u8; 3])>,
}

pub const RED: [u8; 3] = [205, 25, 35];
pub const BLUE: [u8; 3] = [25, 45, 200];
pub const GREEN: [u8; 3] = [20, 160, 40];

impl Scene {
    pub fn new() -> Self {
        Self { width: 320, height: 240, boxes: Vec::new() }
    }

    pub fn sized(width: u32, height: u32) -> Self {
        Self { width, height, ..Self::new() }
    }

    /// With a 60 × 60 box whose left top corner is at (`x`, `y`).
    pub fn with(self, colour: [u8; 3], x: u32, y: u32) -> Self {
        self.with_box(colour, [x, y, x + 60, y + 60])
    }

    pub fn with_box(mut self, colour: [u8; 3], corners: [u32; 4]) -> Self {
        self.boxes.push((corners, colour));
        self
    }

    pub fn rgb(&self) -> Vec<u8> {
        let pixel = |x: u32, y: u32| {
            let inside = |c: &[u32; 4]| (c[0]..c[2]).contains(&x) && (c[1]..c[3]).contains(&y);
            let grey = 120 + ((x * 7 + y * 13) % 9) as u8;
            self.boxes.iter().rev().find(|(c, _)| inside(c)).map_or([grey; 3], |(_, rgb)| *rgb)
        };
        (0..self.height).flat_map(|y| (0..self.width).flat_map(move |x| pixel(x, y))).collect()
    }

    pub fn jpeg(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let encoder = jpeg_encoder::Encoder::new(&mut out, 92);
        let (w, h) = (self.width as u16, self.height as u16);
        encoder.encode(&self.rgb(), w, h, jpeg_encoder::ColorType::Rgb).expect("encodes");
        out
    }

    pub fn frame(&self, seq: u64) -> wire::Frame {
        wire::Frame {
            seq,
            stamp_ns: 1_000_000 + seq as i64,
            optical_frame: "camera_optical".into(),
            encoding: "jpeg".into(),
            data: self.jpeg().into(),
            ..Default::default()
        }
    }

    /// Where the box number `index` is, nothing being in front of it.
    pub fn truth(&self, index: usize) -> Mask {
        let ([x1, y1, x2, y2], _) = self.boxes[index];
        Mask::from_fn(Size::new(self.width, self.height), |x, y| (x1..x2).contains(&x) && (y1..y2).contains(&y))
    }
}
