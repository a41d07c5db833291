//! Layers that the families share. A layer that other levels write with other operators asks [`Graph::level`].
//!
//! The forms are those that `rten` 0.27 turns into one operator each: GELU, SiLU, RMS and layer normalisation, product
//! plus bias, product times a constant, scores plus mask into softmax, transpositions into the product that reads them.
//! Measured on one core of an AMD EPYC: a ViT of 192 × 6 over 256 tokens 12 ms; a Llama of 192 × 4 with 258 tokens
//! 7.9 ms, with one token behind 280 cached ones 0.54 ms (0.21 ms behind none; the rest is the copy of the cache); SAM's
//! mask decoder of 128 channels over 16×16 cells 1.4 ms for one box, 5.6 ms for four prompts of twelve points.
//!
//! PyTorch keeps a linear layer's weight as `[out, in]`. The graph transposes it and both runtimes fold that into a
//! constant when they load it (15 ms for 5 million parameters), so nothing is copied on disk; in memory it is one copy
//! instead of the original. A runtime that must not copy, for weights near the size of the memory, would take `Gemm`
//! with `transB`, which `rten` neither prepacks nor fuses with its bias.

use super::Level;
use super::config::Config;
use super::error::ImportError;
use super::graph::{F32, Graph, Value};

/// An elementwise activation, by its name in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x · Φ(x).
    Gelu,
    /// The tanh approximation of [`Activation::Gelu`].
    GeluTanh,
    /// x · σ(1.702 x).
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// x · σ(x).
    Silu,
}

impl Activation {
    /// The activation under `key`.
    pub(crate) fn read(config: &Config, key: &str, default: &str) -> Result<Self, ImportError> {
        match config.text(key, default)? {
            "gelu" => Ok(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" => Ok(Self::GeluTanh),
            "quick_gelu" => Ok(Self::QuickGelu),
            "relu" => Ok(Self::Relu),
            "silu" | "swish" => Ok(Self::Silu),
            other => Err(config.unsupported(key, format!("activation `{other}` is not one of those known"))),
        }
    }

    /// Applies it. The forms are those that `rten` fuses into one operator.
    pub(crate) fn apply(self, g: &mut Graph<'_, '_>, x: &Value<F32>) -> Value<F32> {
        match self {
            Self::Relu => g.map("Relu", x),
            Self::Silu => {
                let gate = g.map("Sigmoid", x);
                g.mul(x, &gate)
            }
            Self::QuickGelu => {
                let alpha = g.scalar(1.702);
                let scaled = g.mul(&alpha, x);
                let gate = g.map("Sigmoid", &scaled);
                g.mul(x, &gate)
            }
            Self::Gelu => {
                let (scale, one, half) = (g.scalar(std::f32::consts::FRAC_1_SQRT_2), g.scalar(1.0), g.scalar(0.5));
                let scaled = g.mul(x, &scale);
                let erf = g.map("Erf", &scaled);
                let sum = g.add(&erf, &one);
                let product = g.mul(x, &sum);
                g.mul(&product, &half)
            }
            Self::GeluTanh => {
                let (three, cubic) = (g.scalar(3.0), g.scalar(0.044_715));
                let (scale, one, half) = (g.scalar((2.0 / std::f32::consts::PI).sqrt()), g.scalar(1.0), g.scalar(0.5));
                let cube = g.pow(x, &three);
                let cube = g.mul(&cube, &cubic);
                let sum = g.add(x, &cube);
                let scaled = g.mul(&scale, &sum);
                let tanh = g.map("Tanh", &scaled);
                let gate = g.add(&one, &tanh);
                let halved = g.mul(x, &half);
                g.mul(&halved, &gate)
            }
        }
    }
}

/// `nn.Linear(input, output)` at `name`, over the last dimension of `x`, with what an adapter adds to it.
pub(crate) fn linear(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    name: &str,
    [input, output]: [usize; 2],
    bias: bool,
) -> Result<Value<F32>, ImportError> {
    let mut y = match g.quantised(&format!("{name}.weight"), [output, input])? {
        Some(turned) => g.matmul(x, &turned),
        None => {
            let weight = g.weight(&format!("{name}.weight"), &[output, input])?;
            times_transposed(g, x, &weight)
        }
    };
    if bias {
        let bias = g.weight(&format!("{name}.bias"), &[output])?;
        y = g.add(&y, &bias);
    }
    add_side_path(g, x, y, name, [input, output])
}

/// `y + s · (x · Aᵀ) · Bᵀ` where an adapter is kept beside the linear layer at `name`, which made `y` of `x`.
pub(crate) fn add_side_path(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    y: Value<F32>,
    name: &str,
    [input, output]: [usize; 2],
) -> Result<Value<F32>, ImportError> {
    let Some(pair) = g.weights_mut().side_path(&format!("{name}.weight")) else { return Ok(y) };
    let a = g.weight(&pair.a, &[pair.rank, input])?;
    let b = g.weight(&pair.b, &[output, pair.rank])?;
    let scale = g.scalar(pair.scale);
    let low = times_transposed(g, x, &a);
    let low = g.mul(&low, &scale);
    let side = times_transposed(g, &low, &b);
    Ok(g.add(&y, &side))
}

/// `x · weightᵀ`, for a weight of `[out, in]`.
pub(crate) fn times_transposed(g: &mut Graph<'_, '_>, x: &Value<F32>, weight: &Value<F32>) -> Value<F32> {
    let transposed = g.transpose(weight, &[1, 0]);
    g.matmul(x, &transposed)
}

/// `nn.LayerNorm(width)` at `name`, over the last dimension of `x`.
pub(crate) fn layer_norm(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    name: &str,
    width: usize,
    epsilon: f32,
) -> Result<Value<F32>, ImportError> {
    let scale = g.weight(&format!("{name}.weight"), &[width])?;
    let bias = g.weight(&format!("{name}.bias"), &[width])?;
    Ok(g.layer_norm(x, &scale, &bias, epsilon))
}

/// `LlamaRMSNorm(width)` at `name`, over the last dimension of `x`.
pub(crate) fn rms_norm(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    name: &str,
    width: usize,
    epsilon: f32,
) -> Result<Value<F32>, ImportError> {
    let scale = g.weight(&format!("{name}.weight"), &[width])?;
    match g.level() {
        // No such operator before opset 23; this is the form that `rten` recognises as one.
        Level::Portable => {
            let (two, epsilon) = (g.scalar(2.0), g.scalar(epsilon));
            let square = g.pow(x, &two);
            let mean = g.mean_last(&square);
            let sum = g.add(&mean, &epsilon);
            let root = g.map("Sqrt", &sum);
            let inverse = g.map("Reciprocal", &root);
            let normal = g.mul(x, &inverse);
            Ok(g.mul(&normal, &scale))
        }
        Level::Fused => Ok(g.rms_normalization(x, &scale, epsilon)),
    }
}

/// Queries, keys and values of an attention, `[B, tokens, heads · width]` each, before they are split into heads.
pub(crate) struct Attention<'a> {
    /// `[B, S, heads · width]`.
    pub query: &'a Value<F32>,
    /// `[B, T, heads · width]`.
    pub key: &'a Value<F32>,
    /// `[B, T, heads · width]`.
    pub value: &'a Value<F32>,
    /// Number of heads.
    pub heads: usize,
    /// Width of a head.
    pub width: usize,
}

impl Attention<'_> {
    /// Scaled dot-product attention without a mask: `[B, S, heads · width]`.
    pub(crate) fn build(&self, g: &mut Graph<'_, '_>) -> Value<F32> {
        let split = [0, 0, self.heads as i64, self.width as i64];
        let heads_first = |g: &mut Graph<'_, '_>, x: &Value<F32>, order: &[i64]| {
            let x = g.reshape(x, &split);
            g.transpose(&x, order)
        };
        let query = heads_first(g, self.query, &[0, 2, 1, 3]);
        let value = heads_first(g, self.value, &[0, 2, 1, 3]);
        let context = match g.level() {
            Level::Portable => {
                let key = heads_first(g, self.key, &[0, 2, 3, 1]);
                let scores = scaled(g, &query, &key, self.width);
                let weights = g.softmax(&scores);
                g.matmul(&weights, &value)
            }
            Level::Fused => {
                let key = heads_first(g, self.key, &[0, 2, 1, 3]);
                g.fused_attention(&query, &key, &value, None)
            }
        };
        let context = g.transpose(&context, &[0, 2, 1, 3]);
        g.reshape(&context, &[0, 0, (self.heads * self.width) as i64])
    }
}

/// `query · key / √width`, for a key that is already transposed. `rten` folds the factor into the product.
pub(crate) fn scaled(g: &mut Graph<'_, '_>, query: &Value<F32>, key: &Value<F32>, width: usize) -> Value<F32> {
    let scores = g.matmul(query, key);
    let factor = g.scalar((width as f32).sqrt().recip());
    g.mul(&scores, &factor)
}

/// The convolution that cuts an image `[1, channels, side, side]` into patches and projects each: kernel and stride
/// are one patch. As a product of matrices: `[1, patches, hidden]`, without bias.
pub(crate) fn patches(
    g: &mut Graph<'_, '_>,
    pixels: &Value<F32>,
    name: &str,
    [channels, side, patch, hidden]: [usize; 4],
) -> Result<Value<F32>, ImportError> {
    let (grid, size, depth) = ((side / patch) as i64, patch as i64, channels * patch * patch);
    let x = g.reshape(pixels, &[1, channels as i64, grid, size, grid, size]);
    let x = g.transpose(&x, &[0, 2, 4, 1, 3, 5]);
    let x = g.reshape(&x, &[1, grid * grid, depth as i64]);
    let kernel = g.weight_as(&format!("{name}.weight"), &[hidden, channels, patch, patch], &[hidden, depth])?;
    Ok(times_transposed(g, &x, &kernel))
}

/// A gated perceptron at `name`, `[hidden, intermediate]` wide: `down(activation(gate(x)) · up(x))`.
pub(crate) fn gated_mlp(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    name: &str,
    ([hidden, intermediate], bias): ([usize; 2], bool),
    activation: Activation,
) -> Result<Value<F32>, ImportError> {
    let gate = linear(g, x, &format!("{name}.gate_proj"), [hidden, intermediate], bias)?;
    let up = linear(g, x, &format!("{name}.up_proj"), [hidden, intermediate], bias)?;
    let gate = activation.apply(g, &gate);
    let inner = g.mul(&gate, &up);
    linear(g, &inner, &format!("{name}.down_proj"), [intermediate, hidden], bias)
}

/// Cosine and sine of every position's angles, `[B, 1, S, width / 2]` each.
pub(crate) struct Rotation {
    /// Cosine.
    pub cos: Value<F32>,
    /// Sine.
    pub sin: Value<F32>,
}

/// Turns the pairs of dimensions `(i, i + width / 2)` of `[B, heads, S, width]`.
pub(crate) fn rotate(g: &mut Graph<'_, '_>, x: &Value<F32>, rotation: &Rotation, width: usize) -> Value<F32> {
    let half = width / 2;
    let halves = g.split(x, -1, &[half, half]);
    let (first, second) = (&halves[0], &halves[1]);
    let (a, b) = (g.mul(first, &rotation.cos), g.mul(second, &rotation.sin));
    let (c, d) = (g.mul(second, &rotation.cos), g.mul(first, &rotation.sin));
    let (low, high) = (g.sub(&a, &b), g.add(&c, &d));
    g.concat(&[&low, &high], -1)
}
