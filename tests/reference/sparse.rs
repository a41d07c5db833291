//! Checkpoints of any size that take no space: headers, and zeros that the file system does not store.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Sizes of a `LlavaNextForConditionalGeneration` with a CLIP tower.
pub(crate) struct Shape {
    pub hidden: usize,
    pub inner: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub vocabulary: usize,
    /// Width, inner width, layers, heads, side of the picture and of a patch.
    pub tower: [usize; 6],
    /// Files that the weights are spread over.
    pub shards: usize,
}

/// The sizes of `llama3-llava-next-8b`: Llama 3 behind CLIP ViT-L/14 at 336 pixels.
pub(crate) const EIGHT_BILLION: Shape = Shape {
    hidden: 4096,
    inner: 14336,
    layers: 32,
    heads: 32,
    kv_heads: 8,
    vocabulary: 128_320,
    tower: [1024, 4096, 24, 16, 336, 14],
    shards: 4,
};

/// A tensor's name and shape.
type Tensor = (String, Vec<usize>);

fn bytes((_, shape): &Tensor) -> u64 {
    2 * shape.iter().product::<usize>() as u64
}

impl Shape {
    /// Writes the checkpoint in BF16 into `dir`, which exists; gives the bytes of its tensors.
    pub(crate) fn write(&self, dir: &Path) -> u64 {
        fs::write(dir.join("config.json"), self.config().to_string()).expect("writes");
        let tensors = self.tensors();
        let (mut map, mut total) = (Map::new(), 0);
        for (number, part) in self.parts(&tensors).enumerate() {
            let file = format!("model-{:05}-of-{:05}.safetensors", number + 1, self.shards);
            map.extend(part.iter().map(|(name, _)| (name.clone(), json!(file))));
            total += write_zeros(&dir.join(&file), part);
        }
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        fs::write(dir.join("model.safetensors.index.json"), index.to_string()).expect("writes");
        total
    }

    /// Tensors in their order, cut into files of about the same length.
    fn parts<'t>(&self, tensors: &'t [Tensor]) -> impl Iterator<Item = &'t [Tensor]> {
        let share = tensors.iter().map(bytes).sum::<u64>().div_ceil(self.shards as u64);
        let mut at = 0;
        tensors.chunk_by(move |tensor, _| {
            let before = at / share;
            at += bytes(tensor);
            at / share == before
        })
    }

    fn config(&self) -> Value {
        let [width, inner, layers, heads, side, patch] = self.tower;
        json!({
            "architectures": ["LlavaNextForConditionalGeneration"],
            "model_type": "llava_next",
            "dtype": "bfloat16",
            "image_grid_pinpoints": [[side, 2 * side], [2 * side, side], [2 * side, 2 * side], [3 * side, side], [side, 3 * side]],
            "image_token_index": self.vocabulary - 64,
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": false,
            "text_config": {
                "model_type": "llama", "hidden_size": self.hidden, "intermediate_size": self.inner,
                "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
                "num_key_value_heads": self.kv_heads, "vocab_size": self.vocabulary, "rms_norm_eps": 1e-5,
                "rope_theta": 500_000.0, "max_position_embeddings": 8192,
            },
            "vision_config": {
                "model_type": "clip_vision_model", "hidden_size": width, "intermediate_size": inner,
                "num_hidden_layers": layers, "num_attention_heads": heads, "image_size": side, "patch_size": patch,
            },
        })
    }

    /// Every tensor, as `save_pretrained` calls it.
    fn tensors(&self) -> Vec<Tensor> {
        let mut all = vec![("image_newline".to_owned(), vec![self.hidden])];
        self.text(&mut all);
        self.tower(&mut all);
        for (part, input) in [("linear_1", self.tower[0]), ("linear_2", self.hidden)] {
            linear(&mut all, &format!("multi_modal_projector.{part}"), [self.hidden, input]);
        }
        all
    }

    fn text(&self, all: &mut Vec<Tensor>) {
        let (hidden, shared) = (self.hidden, self.hidden / self.heads * self.kv_heads);
        let mut add = |name: String, shape: &[usize]| all.push((format!("language_model.{name}"), shape.to_vec()));
        add("model.embed_tokens.weight".into(), &[self.vocabulary, hidden]);
        for layer in 0..self.layers {
            let mut of_layer = |part: &str, shape: &[usize]| add(format!("model.layers.{layer}.{part}.weight"), shape);
            of_layer("input_layernorm", &[hidden]);
            of_layer("post_attention_layernorm", &[hidden]);
            for (part, rows) in [("q", hidden), ("k", shared), ("v", shared), ("o", hidden)] {
                of_layer(&format!("self_attn.{part}_proj"), &[rows, hidden]);
            }
            of_layer("mlp.gate_proj", &[self.inner, hidden]);
            of_layer("mlp.up_proj", &[self.inner, hidden]);
            of_layer("mlp.down_proj", &[hidden, self.inner]);
        }
        add("model.norm.weight".into(), &[hidden]);
        add("lm_head.weight".into(), &[self.vocabulary, hidden]);
    }

    fn tower(&self, all: &mut Vec<Tensor>) {
        let [width, inner, layers, _, side, patch] = self.tower;
        let root = "vision_tower.vision_model";
        let mut plain = |name: &str, shape: &[usize]| all.push((format!("{root}.{name}"), shape.to_vec()));
        plain("embeddings.class_embedding", &[width]);
        plain("embeddings.patch_embedding.weight", &[width, 3, patch, patch]);
        plain("embeddings.position_embedding.weight", &[(side / patch).pow(2) + 1, width]);
        for norm in ["pre_layrnorm", "post_layernorm"] {
            plain(&format!("{norm}.weight"), &[width]);
            plain(&format!("{norm}.bias"), &[width]);
        }
        for layer in 0..layers {
            let name = format!("{root}.encoder.layers.{layer}");
            for norm in ["layer_norm1", "layer_norm2"] {
                all.push((format!("{name}.{norm}.weight"), vec![width]));
                all.push((format!("{name}.{norm}.bias"), vec![width]));
            }
            for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                linear(all, &format!("{name}.self_attn.{part}"), [width, width]);
            }
            linear(all, &format!("{name}.mlp.fc1"), [inner, width]);
            linear(all, &format!("{name}.mlp.fc2"), [width, inner]);
        }
    }
}

fn linear(all: &mut Vec<Tensor>, name: &str, [output, input]: [usize; 2]) {
    all.push((format!("{name}.weight"), vec![output, input]));
    all.push((format!("{name}.bias"), vec![output]));
}

/// A safetensors file of BF16 zeros; gives their bytes.
fn write_zeros(path: &Path, tensors: &[Tensor]) -> u64 {
    let (mut header, mut at) = (Map::new(), 0);
    for tensor in tensors {
        let (name, shape) = tensor;
        let end = at + bytes(tensor);
        header.insert(name.clone(), json!({ "dtype": "BF16", "shape": shape, "data_offsets": [at, end] }));
        at = end;
    }
    let mut text = Value::Object(header).to_string();
    text.extend(std::iter::repeat_n(' ', text.len().next_multiple_of(8) - text.len()));
    let mut file = File::create(path).expect("is made");
    file.write_all(&(text.len() as u64).to_le_bytes()).expect("writes");
    file.write_all(text.as_bytes()).expect("writes");
    file.set_len(8 + text.len() as u64 + at).expect("the file system has sparse files");
    at
}
