//! Operators of the fused level alone: opset 23 and 24 of ONNX.

use super::graph::{Attr, F32, Graph, I64, Value};

impl Graph<'_, '_> {
    /// RMS normalisation over the last dimension.
    pub(super) fn rms_normalization(&mut self, x: &Value<F32>, scale: &Value<F32>, epsilon: f32) -> Value<F32> {
        let attributes = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(epsilon))];
        self.op("RMSNormalization", &[x.name(), scale.name()], &attributes)
    }

    /// Rotates the two halves of every head of `x`, `[B, heads, S, width]`; `cos` and `sin` are `[B, S, width / 2]`.
    pub(super) fn rotary_embedding(&mut self, x: &Value<F32>, cos: &Value<F32>, sin: &Value<F32>) -> Value<F32> {
        self.op("RotaryEmbedding", &[x.name(), cos.name(), sin.name()], &[("interleaved", Attr::Int(0))])
    }

    /// Scaled dot-product attention of `[B, heads, S, width]` over `[B, kv_heads, T, width]`, with `bias` added to the
    /// scores where there is one. TensorRT takes it with one output alone.
    pub(super) fn fused_attention(
        &mut self,
        query: &Value<F32>,
        key: &Value<F32>,
        value: &Value<F32>,
        bias: Option<&Value<F32>>,
    ) -> Value<F32> {
        let mut inputs = vec![query.name(), key.name(), value.name()];
        inputs.extend(bias.map(Value::name));
        self.op("Attention", &inputs, &[])
    }

    /// `cache`, `[1, heads, capacity, width]`, with `update`, `[1, heads, S, width]`, written from position
    /// `start`, `[1]`, on. In TensorRT the result has the memory of `cache`.
    pub(super) fn tensor_scatter(&mut self, cache: &Value<F32>, update: &Value<F32>, start: &Value<I64>) -> Value<F32> {
        let attributes = [("axis", Attr::Int(-2))];
        self.op("TensorScatter", &[cache.name(), update.name(), start.name()], &attributes)
    }

    /// Dimension `axis` of `x`: `[1]`.
    pub(super) fn dimension<T>(&mut self, x: &Value<T>, axis: i64) -> Value<I64> {
        self.op("Shape", &[x.name()], &[("start", Attr::Int(axis)), ("end", Attr::Int(axis + 1))])
    }

    /// The first `count`, `[1]`, elements along `axis`.
    pub(super) fn first<T>(&mut self, x: &Value<T>, axis: i64, count: &Value<I64>) -> Value<T> {
        let (start, axis) = (self.indices(&[0]), self.indices(&[axis]));
        self.op("Slice", &[x.name(), start.name(), count.name(), axis.name()], &[])
    }
}
