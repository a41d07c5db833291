//! What a camera does to a picture: exposure, uneven light, blur, sensor noise, JPEG.

use std::sync::OnceLock;

use image::ImageDecoder as _;

use super::canvas::Canvas;
use super::rng::{SceneRng, sin_cos_turns};

const NOISE_VALUES: usize = 1 << 16;
/// Room behind the noise table for the longest row (RGB of 2,048 pixels).
const NOISE_ROW: usize = 3 * 2048;

/// One camera setting.
#[derive(Debug, Clone)]
pub(crate) struct Camera {
    /// Gain per channel, exposure and light colour together.
    gain: [f32; 3],
    /// Relative change of the light from one side to the other, per axis.
    slope: [f32; 2],
    /// Darkening at distance 1 (longest side) from the middle.
    vignette: f32,
    /// Passes of a `[w, 1 - 2w, w]` blur, at 320 pixels.
    blur: Option<(usize, f32)>,
    /// Motion in units of the longest side.
    motion: Option<[f32; 2]>,
    /// Standard deviation in 8-bit steps.
    noise: f32,
    /// Quality of a JPEG round trip.
    jpeg: Option<u8>,
}

impl Camera {
    /// Draws a setting.
    pub fn random(rng: &mut SceneRng) -> Self {
        let exposure = if rng.chance(0.8) { rng.range(0.84, 1.12) } else { rng.range(0.62, 1.25) };
        let warm = rng.spread(0.09);
        let green = rng.spread(0.025);
        let gain = [exposure * (1.0 + warm), exposure * (1.0 + green), exposure * (1.0 - warm)];
        let slope = [rng.spread(0.22), rng.spread(0.22)];
        let vignette = if rng.chance(0.5) { rng.range(0.0, 0.45) } else { 0.0 };
        let (blur, motion) = match rng.weighted(&[0.72, 0.2, 0.08]) {
            0 => (None, None),
            1 => (Some((rng.between(1, 3), rng.range(0.1, 0.3))), None),
            _ => {
                let (s, c) = sin_cos_turns(rng.unit());
                let length = rng.range(0.006, 0.018);
                (None, Some([c * length, s * length]))
            }
        };
        let noise = if rng.chance(0.7) { rng.range(0.5, 4.0) } else { rng.range(4.0, 11.0) };
        let jpeg = rng.chance(0.4).then(|| rng.between(40, 95) as u8);
        Self { gain, slope, vignette, blur, motion, noise, jpeg }
    }

    /// The same setting without a JPEG round trip (for pictures that are saved as JPEG anyway).
    pub fn without_jpeg(mut self) -> Self {
        self.jpeg = None;
        self
    }

    /// Turns the canvas into 8-bit RGB, row-major `[height, width, 3]`.
    pub fn expose(&self, canvas: &mut Canvas, rng: &mut SceneRng) -> Vec<u8> {
        let longest = canvas.width.max(canvas.height) as f32;
        if let Some((passes, weight)) = self.blur {
            // The kernel is meant for 320 pixels; smaller pictures (crops) get less of it, larger ones more passes.
            let scale = longest / 320.0;
            let passes = ((passes as f32 * scale * scale + 0.5) as usize).clamp(1, 8);
            let weight = if scale < 1.0 { weight * scale.max(0.3) } else { weight };
            for _ in 0..passes {
                soften(canvas, weight);
            }
        }
        if let Some(motion) = self.motion {
            smear(canvas, [motion[0] * longest, motion[1] * longest]);
        }
        let rgb = self.develop(canvas, rng);
        match self.jpeg {
            Some(quality) => through_jpeg(&rgb, canvas.width, canvas.height, quality).unwrap_or(rgb),
            None => rgb,
        }
    }

    fn develop(&self, canvas: &Canvas, rng: &mut SceneRng) -> Vec<u8> {
        let (w, h) = (canvas.width, canvas.height);
        let longest = w.max(h) as f32;
        let falloff = |d: f32| 1.0 - self.vignette * d * d;
        let across: Vec<f32> = (0..w)
            .flat_map(|x| {
                let d = (x as f32 + 0.5 - w as f32 / 2.0) / longest;
                self.gain.map(|g| g * (1.0 + self.slope[0] * d) * falloff(d))
            })
            .collect();
        let noise = noise_table();
        let mut out = vec![0u8; w * h * 3];
        for (y, (row, pixels)) in out.chunks_exact_mut(w * 3).zip(canvas.rgb.chunks_exact(w * 3)).enumerate() {
            let d = (y as f32 + 0.5 - h as f32 / 2.0) / longest;
            let down = (1.0 + self.slope[1] * d) * falloff(d);
            let from = rng.below(NOISE_VALUES);
            let row_noise = &noise[from..];
            for (((o, &p), &g), &n) in row.iter_mut().zip(pixels).zip(&across).zip(row_noise) {
                *o = (p * g * down + n * self.noise + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
        out
    }
}

/// Standard normal values (sums of twelve uniforms: the same on every platform).
fn noise_table() -> &'static [f32] {
    static TABLE: OnceLock<Vec<f32>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut rng = SceneRng::new(&[0x6e6f_6973]);
        (0..NOISE_VALUES + NOISE_ROW).map(|_| (0..12).map(|_| rng.unit()).sum::<f32>() - 6.0).collect()
    })
}

/// One pass of `[w, 1 - 2w, w]` along both axes; edges repeat.
fn soften(canvas: &mut Canvas, w: f32) {
    let stride = canvas.width * 3;
    let centre = 1.0 - 2.0 * w;
    let mut line = vec![0.0f32; stride + 6];
    for row in canvas.rgb.chunks_exact_mut(stride) {
        line[3..stride + 3].copy_from_slice(row);
        line.copy_within(3..6, 0);
        line.copy_within(stride..stride + 3, stride + 3);
        for (i, out) in row.iter_mut().enumerate() {
            *out = centre * line[i + 3] + w * (line[i] + line[i + 6]);
        }
    }
    let mut above = canvas.rgb[..stride].to_vec();
    for y in 0..canvas.height {
        let (head, tail) = canvas.rgb.split_at_mut((y + 1) * stride);
        let row = &mut head[y * stride..];
        let current = row.to_vec();
        let below: &[f32] = if tail.is_empty() { &current } else { &tail[..stride] };
        for (((out, &a), &b), &c) in row.iter_mut().zip(&above).zip(below).zip(&current) {
            *out = centre * c + w * (a + b);
        }
        above = current;
    }
}

/// Averages the picture along `motion` (pixels), centred.
fn smear(canvas: &mut Canvas, motion: [f32; 2]) {
    let steps = (motion[0].abs().max(motion[1].abs()).ceil() as usize).clamp(1, 12);
    let (w, h) = (canvas.width as i32, canvas.height as i32);
    let source = canvas.rgb.clone();
    let weight = 1.0 / (steps + 1) as f32;
    canvas.rgb.fill(0.0);
    for step in 0..=steps {
        let t = step as f32 / steps as f32 - 0.5;
        let (dx, dy) = ((motion[0] * t).round() as i32, (motion[1] * t).round() as i32);
        for y in 0..h {
            let from = &source[((y + dy).clamp(0, h - 1) * w * 3) as usize..][..(w * 3) as usize];
            let into = &mut canvas.rgb[(y * w * 3) as usize..][..(w * 3) as usize];
            let (a, b) = ((-dx).clamp(0, w), (w - dx).clamp(0, w));
            let inner = &from[((a + dx) * 3) as usize..];
            for (o, &s) in into[(a * 3) as usize..(b * 3) as usize].iter_mut().zip(inner) {
                *o += weight * s;
            }
            for x in (0..a).chain(b..w) {
                let sx = (x + dx).clamp(0, w - 1);
                for c in 0..3 {
                    into[(x * 3 + c) as usize] += weight * from[(sx * 3 + c) as usize];
                }
            }
        }
    }
}

/// Encodes and decodes; `None` where the codec refuses (it does not, for sizes that fit 16 bits).
fn through_jpeg(rgb: &[u8], width: usize, height: usize, quality: u8) -> Option<Vec<u8>> {
    let encoded = encode_jpeg(rgb, width, height, quality)?;
    let decoder = image::codecs::jpeg::JpegDecoder::new(std::io::Cursor::new(encoded)).ok()?;
    let mut out = vec![0; rgb.len()];
    (decoder.total_bytes() == out.len() as u64).then_some(())?;
    decoder.read_image(&mut out).ok()?;
    Some(out)
}

/// Encodes 8-bit RGB as JPEG; `None` where a side does not fit 16 bits.
pub(crate) fn encode_jpeg(rgb: &[u8], width: usize, height: usize, quality: u8) -> Option<Vec<u8>> {
    let (w, h) = (u16::try_from(width).ok()?, u16::try_from(height).ok()?);
    let mut encoded = Vec::with_capacity(rgb.len() / 8);
    jpeg_encoder::Encoder::new(&mut encoded, quality).encode(rgb, w, h, jpeg_encoder::ColorType::Rgb).ok()?;
    Some(encoded)
}
