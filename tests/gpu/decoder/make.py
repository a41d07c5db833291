"""Makes a checkpoint of random weights from a configuration alone, to time a decoder of a real size.

    python3 tests/gpu/decoder/make.py 1b OUT       # or 8b: 2.5 and 16 GB, in 16-bit floats

The text model has the sizes of the Llama of that many parameters; the vision tower is as small as can be. Weights are
16-bit floats of either sign between 1/64 and 1/32: data as dense as a trained model's, as a GPU's clock depends on it.
Needs nothing but Python.
"""

import json
import os
import pathlib
import struct
import sys

# hidden, intermediate, layers, heads, heads of keys and values, tied head
SIZES = {
    "tiny": (256, 512, 2, 4, 2, True),
    "1b": (2048, 8192, 16, 32, 8, True),
    "8b": (4096, 14336, 32, 32, 8, False),
}
VOCABULARY, VISION = 128_256, 64
# Sign and two bits of the mantissa from the random byte, exponent -6.
TABLE = bytes(byte & 0x83 | 0x24 for byte in range(256))
CHUNK = 1 << 22


def tensors(hidden, inner, layers, heads, shared, tied):
    width = hidden // heads
    yield "language_model.model.embed_tokens.weight", [VOCABULARY, hidden]
    for i in range(layers):
        name = f"language_model.model.layers.{i}"
        yield f"{name}.input_layernorm.weight", [hidden]
        yield f"{name}.post_attention_layernorm.weight", [hidden]
        for part, rows in (("q", heads), ("k", shared), ("v", shared)):
            yield f"{name}.self_attn.{part}_proj.weight", [rows * width, hidden]
        yield f"{name}.self_attn.o_proj.weight", [hidden, heads * width]
        for part in ("gate", "up"):
            yield f"{name}.mlp.{part}_proj.weight", [inner, hidden]
        yield f"{name}.mlp.down_proj.weight", [hidden, inner]
    yield "language_model.model.norm.weight", [hidden]
    if not tied:
        yield "language_model.lm_head.weight", [VOCABULARY, hidden]
    tower, layer = "vision_tower.vision_model", "vision_tower.vision_model.encoder.layers.0"
    yield f"{tower}.embeddings.patch_embedding.weight", [VISION, 3, 16, 16]
    yield f"{tower}.embeddings.patch_embedding.bias", [VISION]
    yield f"{tower}.embeddings.position_embedding.weight", [4, VISION]
    for norm in ("layer_norm1", "layer_norm2"):
        yield f"{layer}.{norm}.weight", [VISION]
        yield f"{layer}.{norm}.bias", [VISION]
    for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"):
        yield f"{layer}.{part}.weight", [VISION, VISION]
        yield f"{layer}.{part}.bias", [VISION]
    for part, rows, columns in (("linear_1", hidden, VISION), ("linear_2", hidden, hidden)):
        yield f"multi_modal_projector.{part}.weight", [rows, columns]
        yield f"multi_modal_projector.{part}.bias", [rows]


def config(hidden, inner, layers, heads, shared, tied):
    text = dict(model_type="llama", hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers)
    text |= dict(num_attention_heads=heads, num_key_value_heads=shared, vocab_size=VOCABULARY)
    text |= dict(max_position_embeddings=8192, rms_norm_eps=1e-5, rope_theta=500_000.0, tie_word_embeddings=tied)
    vision = dict(model_type="siglip_vision_model", hidden_size=VISION, intermediate_size=VISION, image_size=32)
    vision |= dict(num_hidden_layers=1, num_attention_heads=1, patch_size=16)
    return dict(
        architectures=["LlavaForConditionalGeneration"], model_type="llava", image_token_index=4, text_config=text,
        vision_config=vision, tie_word_embeddings=tied, vision_feature_layer=-1, vision_feature_select_strategy="full")


def write(file, count):
    """`count` random 16-bit floats."""
    while count:
        now = min(count, CHUNK)
        values = bytearray(2 * now)
        values[0::2] = os.urandom(now)
        values[1::2] = os.urandom(now).translate(TABLE)
        file.write(values)
        count -= now


def main():
    sizes, out = SIZES[sys.argv[1]], pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config(*sizes), indent=1))
    header, at, counts = {}, 0, []
    for name, shape in tensors(*sizes):
        count = 1
        for size in shape:
            count *= size
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + 2 * count]}
        at += 2 * count
        counts.append(count)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(out / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for count in counts:
            write(file, count)
    print(f"{sum(counts):,} parameters, {at:,} bytes in {out}")


if __name__ == "__main__":
    main()
