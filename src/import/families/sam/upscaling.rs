//! From image tokens to pixels, where SAM's masks are drawn: two transposed convolutions whose kernel is their stride.

use super::Sizes;
use crate::import::error::ImportError;
use crate::import::graph::{F32, Graph, Value};
use crate::import::nn::{self, Activation};

const NAME: &str = "mask_decoder";
/// Epsilon of the normalisation between the two; not configurable in `transformers`.
const EPSILON: f32 = 1e-6;

/// Sixteen pixels of every image token: `[B, h · w, C]` → `[B, h · w · 16, C / 8]`, those of a token and of a quarter of
/// it together. Of SAM 2 each convolution's result has one of the `levels` of the image added to it: `[1, C / 8, 4h, 4w]`
/// the last one, `[1, C / 4, 2h, 2w]` the first.
pub(super) fn upscaled(
    g: &mut Graph<'_, '_>,
    image: &Value<F32>,
    levels: Option<&[Value<F32>; 2]>,
    Sizes { grid, channels, .. }: Sizes,
) -> Result<Value<F32>, ImportError> {
    let (half, quarter) = (channels / 4, channels / 8);
    let (n, cells) = (grid as i64, (grid * grid) as i64);
    let mut x = upscale(g, image, &format!("{NAME}.upscale_conv1"), [channels, half])?;
    if let Some([_, level]) = levels {
        let level = g.reshape(level, &[1, half as i64, n, 2, n, 2]);
        let level = g.transpose(&level, &[0, 2, 4, 3, 5, 1]);
        let level = g.reshape(&level, &[1, cells, 4, half as i64]);
        x = g.add(&x, &level);
    }
    let x = nn::layer_norm(g, &x, &format!("{NAME}.upscale_layer_norm"), half, EPSILON)?;
    let x = Activation::Gelu.apply(g, &x);
    let x = g.reshape(&x, &[-1, cells * 4, half as i64]);
    let mut x = upscale(g, &x, &format!("{NAME}.upscale_conv2"), [half, quarter])?;
    if let Some([level, _]) = levels {
        let level = g.reshape(level, &[1, quarter as i64, n, 2, 2, n, 2, 2]);
        let level = g.transpose(&level, &[0, 2, 5, 3, 6, 4, 7, 1]);
        let level = g.reshape(&level, &[1, cells * 4, 4, quarter as i64]);
        x = g.add(&x, &level);
    }
    let x = Activation::Gelu.apply(g, &x);
    Ok(g.reshape(&x, &[-1, cells * 16, quarter as i64]))
}

/// `nn.ConvTranspose2d` with kernel and stride 2 on tokens: `[B, N, in]` → `[B, N, 4, out]`, four pixels a token.
fn upscale(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    name: &str,
    [input, output]: [usize; 2],
) -> Result<Value<F32>, ImportError> {
    let kernel = g.weight_as(&format!("{name}.weight"), &[input, output, 2, 2], &[input, output * 4])?;
    // Channels before pixels in the kernel, after them in the tokens: turned once, as a constant.
    let kernel = g.reshape(&kernel, &[input as i64, output as i64, 4]);
    let kernel = g.transpose(&kernel, &[0, 2, 1]);
    let kernel = g.reshape(&kernel, &[input as i64, 4 * output as i64]);
    let y = g.matmul(x, &kernel);
    let y = g.reshape(&y, &[0, 0, 4, output as i64]);
    let bias = g.weight(&format!("{name}.bias"), &[output])?;
    Ok(g.add(&y, &bias))
}
