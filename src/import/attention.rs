//! What a decoder's attention is made of: rotated positions, grouped heads, a cache of keys and values. Each asks
//! [`Graph::level`] which operators it is written with.

use super::Level;
use super::error::ImportError;
use super::graph::{Dim, F32, Graph, I32, I64, Value};
use super::nn::{self, Rotation};

/// By what a head's pairs of dimensions turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turns<'a> {
    /// Angle a position, for each pair.
    pub frequencies: &'a [f32],
    /// Where positions have three axes: the one that turns each pair.
    pub axes: Option<&'a [usize]>,
    /// What cosine and sine are multiplied by.
    pub scale: f32,
}

/// Rotary positions: cosine and sine of every position's angles, `[1, 1, S, width / 2]` each, without the second
/// dimension at the fused level.
pub(crate) struct Rotary(Rotation);

impl Rotary {
    /// The angles of `positions`, `[1, S]` or with axes `[1, S, 3]`. They are computed, not looked up: no longest
    /// sequence is built into the graph.
    pub(crate) fn new(g: &mut Graph<'_, '_>, positions: &Value<I32>, turns: Turns<'_>) -> Result<Self, ImportError> {
        let positions = g.cast::<I32, F32>(positions);
        let places = if turns.axes.is_some() { 3 } else { 1 };
        let positions = match g.level() {
            Level::Portable => g.reshape(&positions, &[1, 1, -1, places]),
            Level::Fused => g.reshape(&positions, &[1, -1, places]),
        };
        let angles = match turns.axes {
            None => {
                let frequencies = g.constant(&[turns.frequencies.len()], turns.frequencies)?;
                g.mul(&positions, &frequencies)
            }
            Some(axes) => sum_of_axes(g, &positions, turns.frequencies, axes)?,
        };
        let mut part = |function: &str| {
            let value = g.map(function, &angles);
            if turns.scale == 1.0 {
                return value;
            }
            let scale = g.scalar(turns.scale);
            g.mul(&value, &scale)
        };
        Ok(Self(Rotation { cos: part("Cos"), sin: part("Sin") }))
    }

    /// Rotates the two halves of every head of `x`, `[1, heads, S, width]`.
    pub(crate) fn apply(&self, g: &mut Graph<'_, '_>, x: &Value<F32>, width: usize) -> Value<F32> {
        match g.level() {
            Level::Portable => nn::rotate(g, x, &self.0, width),
            Level::Fused => g.rotary_embedding(x, &self.0.cos, &self.0.sin),
        }
    }
}

/// The angles of positions with three axes, each pair's along its own.
fn sum_of_axes(
    g: &mut Graph<'_, '_>,
    positions: &Value<F32>,
    frequencies: &[f32],
    axes: &[usize],
) -> Result<Value<F32>, ImportError> {
    let mut parts = Vec::with_capacity(3);
    for (axis, places) in g.split(positions, -1, &[1; 3]).iter().enumerate() {
        // Sums of products with zero: exact, whatever a backend makes of matrix products.
        let own = frequencies.iter().zip(axes).map(|(f, a)| if *a == axis { *f } else { 0.0 });
        let own = g.constant(&[frequencies.len()], &own.collect::<Vec<_>>())?;
        parts.push(g.mul(places, &own));
    }
    let sum = g.add(&parts[0], &parts[1]);
    Ok(g.add(&sum, &parts[2]))
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
