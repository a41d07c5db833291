//! Plans of the stand-in's, and what the cases do with them.

use std::path::{Path, PathBuf};

use sam4mllm::engine::tensorrt::plan::PlanRecord;
use sam4mllm::engine::tensorrt::{Device, Library, Plan, PlanKey, PlanStore, TensorRtEngine, TensorRtError};
use sam4mllm::engine::{EngineError, Tensor};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Two inputs of one varying size, two outputs.
pub const PAIR: &str = "input x f32 n 3\ninput k i32 n\noutput y f32 n 3 = x\noutput m i64 n = k\nprofile n=1:4:64\n";

/// One input, and an output that is sized while it is computed.
pub const LATE: &str = "input x f32 n\noutput y f32 n? = x\noutput z f32 n = x\nprofile n=0:4:1000\n";

/// A decoder whose caches, of one layer, two heads of width two and room for eight positions, are updated in place.
pub const IN_PLACE: &str = "input inputs_embeds f32 1 s 4\ninput attention_bias f32 1 1 s t\n\
    input write_indices i64 1\ninput past_key.0 f32 1 2 8 2\ninput past_value.0 f16 1 2 8 2\n\
    cache present_key.0 f32 1 2 8 2 = past_key.0 inputs_embeds write_indices\n\
    cache present_value.0 f16 1 2 8 2 = past_value.0 inputs_embeds write_indices\n\
    output logits f32 1 s 4 = inputs_embeds\nprofile s=1:2:8 t=1:4:8\n";

/// The libraries, which are the stand-in.
pub fn library() -> Library {
    Library::find().expect("the stand-in loads")
}

/// Writes a plan and its record as the cache has them.
pub fn write(text: &str) -> (TempDir, Plan) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = PlanKey::new("graph", text.as_bytes());
    let path = put(folder.path(), &key, text);
    let plan = Plan::open(&path, &key).expect("is a plan");
    (folder, plan)
}

/// Puts a plan into the cache in `folder`, under `key`.
pub fn put(folder: &Path, key: &PlanKey, text: &str) -> PathBuf {
    let path = PlanStore::open(folder).expect("a cache").path(key);
    let sha256 = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    let record = PlanRecord { key: key.clone(), layers: 2, seconds: 0.5, bytes: text.len() as u64, sha256 };
    std::fs::write(&path, text).expect("is written");
    std::fs::write(path.with_extension("json"), serde_json::to_vec(&record).expect("is JSON")).expect("is written");
    path
}

/// Loads a plan as an engine called `graph`.
pub fn try_load(text: &str) -> Result<TensorRtEngine, EngineError> {
    let (_folder, plan) = write(text);
    TensorRtEngine::load("graph", library(), &Device::open().expect("a GPU"), &plan)
}

/// As [`try_load`], which must work.
pub fn load(text: &str) -> TensorRtEngine {
    try_load(text).expect("is loaded")
}

/// Makes a call of the stand-in's fail from now on; none for an empty name.
pub fn fail_at(call: &str) {
    tell("fail", call);
}

/// Makes the stand-in's GPU one of a board's, `integrated`, or one that cannot map the host's memory, `unmappable`.
pub fn be(kind: &str) {
    tell("device", kind);
}

fn tell(file: &str, words: &str) {
    let folder = std::env::var_os("STANDIN").expect("the stand-in's folder is told");
    std::fs::write(Path::new(&folder).join(file), words).expect("is written");
}

/// What of TensorRT is behind an engine's error.
pub fn cause(error: &EngineError) -> &TensorRtError {
    let source = std::error::Error::source(error).expect("has a cause");
    source.downcast_ref().unwrap_or_else(|| panic!("is TensorRT's: {source}"))
}

/// Floats that differ from each other.
pub fn floats(shape: &[usize]) -> Tensor<'static> {
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32 * 0.5 - 3.0).collect();
    Tensor::f32(shape, values)
}

/// Integers that differ from each other.
pub fn whole(shape: &[usize]) -> Tensor<'static> {
    let values: Vec<i32> = (0..shape.iter().product::<usize>()).map(|i| i as i32 - 2).collect();
    Tensor::i32(shape, values)
}

/// `tensor` plus `more`, as the stand-in writes it into outputs.
pub fn plus(tensor: &Tensor<'_>, more: i32) -> Tensor<'static> {
    use sam4mllm::engine::Data;
    match tensor.data() {
        Data::F32(values) => Tensor::f32(tensor.shape(), values.iter().map(|v| v + more as f32).collect::<Vec<_>>()),
        Data::I32(values) => Tensor::i32(tensor.shape(), values.iter().map(|v| v + more).collect::<Vec<_>>()),
        Data::U8(_) => panic!("bytes are only taken"),
    }
}
