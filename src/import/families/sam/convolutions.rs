//! Convolutions with the batch normalisation behind them folded in, as the convolutional encoders need them.

use super::sizes::shape_of;
use crate::import::error::ImportError;
use crate::import::graph::{F32, Graph, Value};
use crate::import::nn;

/// An image `[1, channels, side, side]`.
#[derive(Clone)]
pub(super) struct Picture {
    /// The values.
    pub value: Value<F32>,
    /// Channels.
    pub channels: usize,
    /// Width and height, in cells.
    pub side: usize,
}

/// A convolution of square kernel, padded so that a stride of 1 keeps the size.
pub(super) struct Convolution {
    /// The convolution's tensors, `weight` and where there is one `bias`.
    pub name: String,
    /// The batch normalisation's tensors; the checkpoint need not have them.
    pub norm: Option<String>,
    /// The normalisation's epsilon.
    pub epsilon: f32,
    /// Width and height of the kernel.
    pub kernel: usize,
    /// Step, in cells.
    pub stride: usize,
    /// Channels of the result.
    pub output: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Convolution {
    /// The convolution at `name`, with the kernel and the groups that its weight's shape tells.
    pub(super) fn of_weight(
        g: &Graph<'_, '_>,
        x: &Picture,
        [name, norm]: [String; 2],
        epsilon: f32,
        stride: usize,
    ) -> Result<Self, ImportError> {
        let &[output, seen, kernel, _] = shape_of(g.weights().checkpoint(), &format!("{name}.weight"))?;
        // Depthwise, or whole: any other number of channels is of the wrong shape, which is found out when it is built.
        let groups = if seen == 1 && output == x.channels { x.channels } else { 1 };
        Ok(Self { name, norm: Some(norm), epsilon, kernel, stride, output, groups })
    }

    /// The convolution, then the normalisation if the checkpoint has one.
    ///
    /// The factors of the normalisation multiply the kernel in the graph; both runtimes make one constant of that when
    /// they load it. So the kernel stays where it lies, and nothing is left to do at run time.
    pub(super) fn build(&self, g: &mut Graph<'_, '_>, x: &Picture) -> Result<Picture, ImportError> {
        let Self { output, kernel, .. } = *self;
        let weight = format!("{}.weight", self.name);
        let mut weights = g.weight(&weight, &[output, x.channels / self.groups, kernel, kernel])?;
        let mut bias = match g.weights().checkpoint().has(&format!("{}.bias", self.name)) {
            true => g.weights_mut().read(&format!("{}.bias", self.name), &[output])?,
            false => vec![0.0; output],
        };
        let norm = self.norm.as_ref().filter(|norm| g.weights().checkpoint().has(&format!("{norm}.weight")));
        if let Some(norm) = norm {
            let mut read = |part: &str| g.weights_mut().read(&format!("{norm}.{part}"), &[output]);
            let (gain, shift) = (read("weight")?, read("bias")?);
            let (mean, variance) = (read("running_mean")?, read("running_var")?);
            let factor = |c: usize| gain[c] / (variance[c] + self.epsilon).sqrt();
            let factors: Vec<f32> = (0..output).map(factor).collect();
            bias = (0..output).map(|c| (bias[c] - mean[c]) * factors[c] + shift[c]).collect();
            let factors = g.constant(&[output, 1, 1, 1], &factors)?;
            weights = g.mul(&weights, &factors);
        }
        let bias = g.constant(&[output], &bias)?;
        let value = g.conv_of(&x.value, [&weights, &bias], [self.stride, kernel / 2, self.groups]);
        Ok(Picture { value, channels: output, side: (x.side - 1) / self.stride + 1 })
    }
}

/// A picture as tokens, `[1, side · side, channels]`.
pub(super) fn tokens(g: &mut Graph<'_, '_>, x: &Picture) -> Value<F32> {
    let flat = g.reshape(&x.value, &[1, x.channels as i64, -1]);
    g.transpose(&flat, &[0, 2, 1])
}

/// Tokens as a picture again.
pub(super) fn picture(g: &mut Graph<'_, '_>, tokens: &Value<F32>, channels: usize, side: usize) -> Picture {
    let turned = g.transpose(tokens, &[0, 2, 1]);
    let value = g.reshape(&turned, &[1, channels as i64, side as i64, side as i64]);
    Picture { value, channels, side }
}

/// A normalisation over the channels of each cell, at `name`.
pub(super) fn channel_norm(
    g: &mut Graph<'_, '_>,
    x: &Picture,
    name: &str,
    epsilon: f32,
) -> Result<Picture, ImportError> {
    let flat = tokens(g, x);
    let normal = nn::layer_norm(g, &flat, name, x.channels, epsilon)?;
    Ok(picture(g, &normal, x.channels, x.side))
}

/// Resizes to `side` by cubic interpolation, as PyTorch does it (a = -0.75, corners not aligned, no antialiasing): rows
/// and columns are each one product with a constant matrix.
pub(super) fn upsample(g: &mut Graph<'_, '_>, x: &Picture, side: usize) -> Result<Picture, ImportError> {
    if x.side == side {
        return Ok(x.clone());
    }
    let rows = cubic_rows(x.side, side);
    let columns: Vec<f32> = (0..x.side).flat_map(|from| rows.iter().skip(from).step_by(x.side).copied()).collect();
    let (rows, columns) = (g.constant(&[side, x.side], &rows)?, g.constant(&[x.side, side], &columns)?);
    let value = g.matmul(&x.value, &columns);
    let value = g.matmul(&rows, &value);
    Ok(Picture { value, channels: x.channels, side })
}

/// What each of `to` places takes of each of `from`: `[to, from]`.
fn cubic_rows(from: usize, to: usize) -> Vec<f32> {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let mut rows = vec![0.0; to * from];
    for (place, row) in rows.chunks_exact_mut(from).enumerate() {
        let source = (place as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let (start, t) = (source.floor(), source - source.floor());
        for (step, weight) in [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)].into_iter().enumerate() {
            let at = (start as i64 + step as i64 - 1).clamp(0, from as i64 - 1);
            row[at as usize] += weight as f32;
        }
    }
    rows
}
