//! What a plan depends on.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Grows with every change of how plans are built, so that those of older versions of this program are not used.
const FORMAT: u32 = 2;

/// All that a plan depends on; equal keys, same plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanKey {
    pub(super) format: u32,
    /// The graph's name: `vision`, `decoder`.
    pub graph: String,
    /// Name and version of the TensorRT that builds it.
    pub tensorrt: String,
    /// The device: `sm86`, and the GPU's name where it is built on that GPU.
    pub device: String,
    /// SHA-256 of the graph, in hex.
    pub onnx: String,
    /// What stands for the weights beside the graph: the bundle's fingerprint.
    pub weights: String,
    /// What matrix products are computed in: `fp16`.
    pub precision: String,
    /// Profiles and options, as text.
    pub options: String,
}

impl PlanKey {
    /// The key of a plan of `onnx`.
    pub fn new(graph: &str, onnx: &[u8]) -> Self {
        Self {
            format: FORMAT,
            graph: graph.to_owned(),
            tensorrt: String::new(),
            device: String::new(),
            onnx: hex(&Sha256::digest(onnx)),
            weights: String::new(),
            precision: String::new(),
            options: String::new(),
        }
    }

    /// The first 16 hex digits of the SHA-256 of all of it.
    pub fn digest(&self) -> String {
        let text = serde_json::to_vec(self).expect("a key is text and a number");
        hex(&Sha256::digest(text)[..8])
    }

    /// What of `found`, another plan's key, is not as here, for people.
    pub fn differences(&self, found: &Self) -> Vec<String> {
        let format = (self.format.to_string(), found.format.to_string());
        let fields = [
            ("TensorRT", &self.tensorrt, &found.tensorrt),
            ("device", &self.device, &found.device),
            ("graph", &self.graph, &found.graph),
            ("ONNX hash", &self.onnx, &found.onnx),
            ("weights", &self.weights, &found.weights),
            ("precision", &self.precision, &found.precision),
            ("options", &self.options, &found.options),
            ("format", &format.0, &format.1),
        ];
        let differ = fields.iter().filter(|(_, wanted, found)| wanted != found);
        differ.map(|(name, wanted, found)| format!("{name} is `{found}`, must be `{wanted}`")).collect()
    }
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
