//! How graphs are written: with which operators, and in which numbers.

/// Which operators a graph may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, clap::ValueEnum)]
#[non_exhaustive]
pub enum Level {
    /// Basic operators, opset 17: rten, TensorRT from 10.3.
    #[default]
    Portable,
    /// RMS normalisation, rotation and attention as one operator each, and a decoder's cache updated in place, opset 24:
    /// TensorRT from 10.16, TensorRT for RTX.
    Fused,
}

impl Level {
    /// Its name, as arguments and keys have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Fused => "fused",
        }
    }
}

/// What matrix products are computed in, and what a language model's weights are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, clap::ValueEnum)]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// 16-bit floats in products and convolutions, 32-bit ones elsewhere.
    #[default]
    Fp16,
    /// As fp16; the weights of the language model's linear layers in 8 bits, with a scale for each output.
    Int8,
    /// As fp16; the weights of the language model's linear layers in 4 bits, with a scale for each block of an output's.
    Int4,
}

impl Precision {
    /// Its name, as arguments and keys have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }

    /// Whether products are computed in 16-bit floats.
    pub fn is_half(self) -> bool {
        self != Self::Fp32
    }
}

/// How graphs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// Which operators they use.
    pub level: Level,
    /// What they compute in.
    pub precision: Precision,
}

impl From<Level> for Form {
    /// In 32-bit floats.
    fn from(level: Level) -> Self {
        Self { level, precision: Precision::Fp32 }
    }
}

impl Form {
    /// Version of ONNX's operator set. Blocks of weights with a scale each are in it since 21.
    pub fn opset(self) -> i64 {
        match (self.level, self.precision) {
            (Level::Portable, Precision::Fp32 | Precision::Fp16) => 17,
            (Level::Portable, Precision::Int8 | Precision::Int4) => 21,
            (Level::Fused, _) => 24,
        }
    }

    /// Version of ONNX's file format: one that knows the types.
    pub(crate) fn ir_version(self) -> i64 {
        if self.opset() < 21 { 8 } else { 10 }
    }
}
