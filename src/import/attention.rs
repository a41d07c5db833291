//! What a decoder's attention is made of: rotated positions, grouped heads, a cache of keys and values. Each asks
//! [`Graph::level`] which operators it is written with.

use super::Level;
use super::error::ImportError;
use super::graph::{Dim, F32, Graph, I32, I64, Value};
use super::nn;

/// Cosine and sine of every position's angles: `[1, 1, S, width / 2]` each, without the second dimension at the fused
/// level.
pub(crate) struct Rotation {
    cos: Value<F32>,
    sin: Value<F32>,
}

impl Rotation {
    /// The angles of `positions`, `[1, S]`, at each of `frequencies`. They are computed, not looked up: no longest
    /// sequence is built into the graph.
    pub(crate) fn new(g: &mut Graph<'_, '_>, positions: &Value<I32>, frequencies: &[f32]) -> Result<Self, ImportError> {
        let positions = g.cast::<I32, F32>(positions);
        let positions = match g.level() {
            Level::Portable => g.reshape(&positions, &[1, 1, -1, 1]),
            Level::Fused => g.reshape(&positions, &[1, -1, 1]),
        };
        let frequencies = g.constant(&[frequencies.len()], frequencies)?;
        let angles = g.mul(&positions, &frequencies);
        Ok(Self { cos: g.map("Cos", &angles), sin: g.map("Sin", &angles) })
    }

    /// Rotates the two halves of every head of `x`, `[1, heads, S, width]`.
    pub(crate) fn apply(&self, g: &mut Graph<'_, '_>, x: &Value<F32>, width: usize) -> Value<F32> {
        if g.level() == Level::Fused {
            return g.rotary_embedding(x, &self.cos, &self.sin);
        }
        let half = width / 2;
        let halves = g.split(x, -1, &[half, half]);
        let (first, second) = (&halves[0], &halves[1]);
        let (a, b) = (g.mul(first, &self.cos), g.mul(second, &self.sin));
        let (c, d) = (g.mul(second, &self.cos), g.mul(first, &self.sin));
        let (low, high) = (g.sub(&a, &b), g.add(&c, &d));
        g.concat(&[&low, &high], -1)
    }
}

/// Heads of an attention, as many as there are queries, and how many of them have keys and values of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    /// Heads of the queries.
    pub count: usize,
    /// Heads of the keys and values; divides the other.
    pub shared: usize,
    /// Width of a head.
    pub width: usize,
}

/// Attention of `query`, `[1, heads, S, width]`, over `key` and `value`, `[1, kv_heads, T, width]`: `[1, S, heads ·
/// width]`. `bias`, `[1, 1, S, T]`, is added to the scores.
pub(crate) fn attend(
    g: &mut Graph<'_, '_>,
    [query, key, value]: [&Value<F32>; 3],
    bias: &Value<F32>,
    heads: Heads,
) -> Value<F32> {
    let context = match g.level() {
        Level::Portable => grouped(g, [query, key, value], bias, heads),
        Level::Fused => g.fused_attention(query, key, value, Some(bias)),
    };
    let context = g.transpose(&context, &[0, 2, 1, 3]);
    g.reshape(&context, &[0, 0, (heads.count * heads.width) as i64])
}

/// The queries that share a key head are stacked along the sequence, so keys and values are never repeated.
fn grouped(
    g: &mut Graph<'_, '_>,
    [query, key, value]: [&Value<F32>; 3],
    bias: &Value<F32>,
    heads: Heads,
) -> Value<F32> {
    let (count, groups, width) = (heads.count as i64, heads.shared as i64, heads.width as i64);
    let shared = count != groups;
    let key = g.transpose(key, &[0, 1, 3, 2]);
    let query = if shared { g.reshape(query, &[0, groups, -1, width]) } else { query.clone() };
    let scores = nn::scaled(g, &query, &key, heads.width);
    let scores = if shared { g.reshape(&scores, &[0, count, -1, 0]) } else { scores };
    let scores = g.add(&scores, bias);
    let weights = g.softmax(&scores);
    let weights = if shared { g.reshape(&weights, &[0, groups, -1, 0]) } else { weights };
    let context = g.matmul(&weights, value);
    if shared { g.reshape(&context, &[0, count, -1, width]) } else { context }
}

/// The keys and values of earlier positions, which come in and go out with every pass.
///
/// At the portable level they are as long as the conversation, and what goes out is longer than what came in. At the
/// fused one they have room for `capacity` positions, and the pass writes its own behind those that are there.
pub(crate) struct Cache(Option<InPlace>);

struct InPlace {
    /// Where the pass writes: `[1]`.
    start: Value<I64>,
    /// How many positions there are then: `[1]`.
    total: Value<I64>,
}

impl Cache {
    /// The cache of a decoder with the attention bias `bias`, `[1, 1, S, total]`.
    pub(crate) fn new(g: &mut Graph<'_, '_>, bias: &Value<F32>) -> Self {
        match g.level() {
            Level::Portable => Self(None),
            Level::Fused => {
                let start = g.input::<I64>("write_indices", &[Dim::Fixed(1)]);
                let total = g.dimension(bias, 3);
                Self(Some(InPlace { start, total }))
            }
        }
    }

    /// All keys and values of `layer`, with those of this pass, `[1, kv_heads, S, width]`, behind the earlier ones.
    pub(crate) fn append(
        &self,
        g: &mut Graph<'_, '_>,
        layer: usize,
        [key, value]: [&Value<F32>; 2],
        heads: Heads,
    ) -> [Value<F32>; 2] {
        let dims = |length| [Dim::Fixed(1), Dim::Fixed(heads.shared), Dim::Named(length), Dim::Fixed(heads.width)];
        let names = if self.0.is_some() { ["capacity"; 2] } else { ["past", "total"] };
        let [past, present] = names.map(dims);
        [("key", key), ("value", value)].map(|(part, new)| {
            let held = g.input::<F32>(&format!("past_{part}.{layer}"), &past);
            let grown = match &self.0 {
                None => g.concat(&[&held, new], 2),
                Some(at) => g.tensor_scatter(&held, new, &at.start),
            };
            g.output(&format!("present_{part}.{layer}"), &grown, &present);
            match &self.0 {
                None => grown,
                Some(at) => g.first(&grown, 2, &at.total),
            }
        })
    }
}
