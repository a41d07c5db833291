"""Makes small random checkpoints of the language models that can be imported, and what transformers makes of them.

    python tests/reference/make_mllm_goldens.py [NAME ...]

Writes mllms/{name}/ (ordinary Hugging Face directories) and goldens/mllm-{name}.safetensors. Every golden holds two
pictures of different shape as the camera would give them, the tokens of a prompt about each, its logits, 32 greedy
tokens and theirs, all by transformers' own processor and `generate`. All is a function of the seeds below; provenance
is in each file's metadata. Needs torch, transformers, safetensors, tokenizers, numpy and pillow.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import PIL
import torch
import transformers
from make_goldens import picture, randomise
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

HERE = pathlib.Path(__file__).parent
GREEDY = 32
LLAVA = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
QWEN = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
]
# Templates in the manner of the families' own, with what those use of Jinja: loops with their state, namespaces,
# tests, methods of Python's strings, white space control, errors.
LLAVA_CHAT = """
{%- if messages[0]['role'] not in ['user', 'assistant'] %}
    {{- raise_exception('a conversation begins with its user') }}
{%- endif %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
{{ 'USER: ' -}}
        {%- for part in message['content'] | selectattr('type', 'equalto', 'image') %}
            {{- '<image>\n' }}
        {%- endfor %}
        {%- for part in message['content'] | selectattr('type', 'equalto', 'text') %}
            {{- part['text'].strip() }}
        {%- endfor %}
    {%- else %}
        {{- ' ASSISTANT:' + message['content'][0]['text'] + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- ' ASSISTANT:' }}
{%- endif %}
"""
QWEN_CHAT = """
{% set seen = namespace(images=0) %}
{% for message in messages %}
{% if loop.first and message.role != 'system' %}
<|im_start|>system
You point at things.<|im_end|>
{% endif %}
<|im_start|>{{ message.role }}
{% if message.content is string %}
{{ message.content }}<|im_end|>
{% else %}
{% for part in message.content %}
{%- if part.type == 'image' or 'image' in part %}
{%- set seen.images = seen.images + 1 %}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif 'text' in part %}
{{- part.text }}
{%- endif %}
{%- endfor %}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}"""
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def tokenizer(special: list[str], end: str) -> PreTrainedTokenizerFast:
    """Bytes and special tokens, nothing merged: every text has its tokens."""
    vocabulary = {byte: i for i, byte in enumerate(BYTES)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    chat = {"bos_token": "<s>", "chat_template": LLAVA_CHAT} if "<s>" in special else {"chat_template": QWEN_CHAT}
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=end, pad_token=special[0], **chat)


def token(special: list[str], text: str) -> int:
    return len(BYTES) + special.index(text)


def llava_text(kind: type, **more):
    return kind(
        vocab_size=len(BYTES) + len(LLAVA), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, **more,
    )


def clip(size: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=size, patch_size=8,
        projection_dim=16,
    )


def llava_mistral():
    """A tower behind a centre crop, as LLaVA 1.5 has it."""
    config = LlavaConfig(
        vision_config=clip(32), text_config=llava_text(MistralConfig, sliding_window=None),
        image_token_index=token(LLAVA, "<image>"), image_seq_length=16,
    )
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return LlavaForConditionalGeneration(config), processor, torch.float16, "10MB"


def llava_qwen2():
    """Biases, a tied head and YaRN, in shards of 16-bit brain floats."""
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            patch_size=8, vision_use_head=False,
        ),
        text_config=llava_text(
            Qwen2Config, tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64,
            },
        ),
        vision_feature_layer=-1, vision_feature_select_strategy="full", tie_word_embeddings=True,
        image_token_index=token(LLAVA, "<image>"), image_seq_length=16,
    )
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=3)
    return LlavaForConditionalGeneration(config), processor, torch.bfloat16, "40KB"


def llava_next():
    """Tiles of several shapes; a Llama 3 with its scaled rotations."""
    config = LlavaNextConfig(
        vision_config=clip(32),
        text_config=llava_text(
            LlamaConfig,
            rope_parameters={
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 128,
            },
        ),
        image_grid_pinpoints=[[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]],
        image_token_index=token(LLAVA, "<image>"), image_seq_length=16,
    )
    processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32},
        image_grid_pinpoints=config.image_grid_pinpoints,
    )
    return LlavaNextForConditionalGeneration(config), processor, torch.float32, "10MB"


def qwen_ids() -> dict:
    return {
        "image_token_id": token(QWEN, "<|image_pad|>"), "video_token_id": token(QWEN, "<|video_pad|>"),
        "vision_start_token_id": token(QWEN, "<|vision_start|>"),
        "vision_end_token_id": token(QWEN, "<|vision_end|>"),
    }


def qwen_text(**more) -> dict:
    return {
        "vocab_size": len(BYTES) + len(QWEN), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024, **more,
    }


def qwen2_5_vl():
    """Windows of 4 x 4 patches that do not divide the image, full attention in the second of three layers."""
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4, "window_size": 16,
            "fullatt_block_indexes": [1], "out_hidden_size": 32, "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        text_config=qwen_text(
            rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        ),
        **qwen_ids(),
    )
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 256, "longest_edge": 2304}, patch_size=4)
    return Qwen2_5_VLForConditionalGeneration(config), processor, torch.bfloat16, "10MB"


def qwen3_vl():
    """Features of two layers for the first layers of the text model, rotations whose axes take turns."""
    config = Qwen3VLConfig(
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4,
            "out_hidden_size": 32, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 36,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config=qwen_text(
            head_dim=16, tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True,
            },
        ),
        tie_word_embeddings=True,
        **qwen_ids(),
    )
    processor = Qwen2VLImageProcessorPil(
        size={"shortest_edge": 256, "longest_edge": 2304}, patch_size=4, image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )
    return Qwen3VLForConditionalGeneration(config), processor, torch.float32, "10MB"


FAMILIES = {f.__name__.replace("_", "-"): f for f in (llava_mistral, llava_qwen2, llava_next, qwen2_5_vl, qwen3_vl)}
# Shapes that Pillow resizes columns first, whatever they are resized to here: for some tall ones it begins with the rows.
SIZES = [(150, 41), (59, 83)]


def prompt(name: str, tokens: PreTrainedTokenizerFast, count: int) -> tuple[list[int], list[int]]:
    """The tokens of a prompt with `count` for the image, and those of them that stand behind it."""
    if name.startswith("qwen"):
        before, image, after = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"
    else:
        before, image, after = "<s>", "<image>", ""
    one = lambda text: tokens.encode(text, add_special_tokens=False) if text else []
    query = one("\nfind the red cup:")
    return one(before) + one(image) * count + one(after) + query, query


def answers(name: str, model, processor, tokens, image: np.ndarray) -> dict:
    inputs = dict(processor(images=PIL.Image.fromarray(image), return_tensors="pt"))
    inputs.pop("num_crops", None)
    features = model.get_image_features(**{"pixel_values": inputs["pixel_values"], **{
        k: v for k, v in inputs.items() if k in ("image_sizes", "image_grid_thw")
    }}).pooler_output
    embeds = torch.cat([f.reshape(-1, f.shape[-1]) for f in features])
    ids, query = prompt(name, tokens, embeds.shape[0])
    ids = torch.tensor([ids])
    if name.startswith("qwen"):
        inputs["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    logits = model(**inputs).logits
    said = model.generate(
        **inputs, max_new_tokens=GREEDY, min_new_tokens=GREEDY, do_sample=False, eos_token_id=None, pad_token_id=0,
        return_dict_in_generate=True, output_logits=True,
    )
    greedy = said.sequences[0, ids.shape[1] :]
    scores = torch.stack([step[0] for step in said.logits])
    return {
        "image": image, "image_embeds": embeds, "query": torch.tensor(query), "logits": logits[0, -len(query) :],
        "greedy": greedy, "greedy_logits": scores,
    }


def conversations(tokens: PreTrainedTokenizerFast) -> dict:
    """The tokens of a first query about an image, and of a second one behind an answer."""
    text = lambda text: {"type": "text", "text": text}
    first = [{"role": "user", "content": [{"type": "image"}, text("Find one: the red cup.")]}]
    answer = {"role": "assistant", "content": [text("[001,002,003,004]")]}
    second = [*first, answer, {"role": "user", "content": [text("On [001,002,003,004]? [005,006]")]}]
    written = {
        f"chat.{name}": tokens.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
        for name, chat in (("first", first), ("second", second))
    }
    return {name: torch.tensor(ids) for name, ids in written.items()}


def make(name: str) -> None:
    for seed in range(100, 200):
        torch.manual_seed(seed)
        model, processor, dtype, shard = FAMILIES[name]()
        model = model.eval().float()
        randomise(model, seed)
        model.tie_weights()
        # What is stored is rounded first: the comparison is of the arithmetic, not of the rounding. Frequencies of
        # rotations are not stored, and stay as they are.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype).float()
        special, end = (QWEN, "<|im_end|>") if name.startswith("qwen") else (LLAVA, "</s>")
        tokens = tokenizer(special, end)
        with torch.no_grad():
            found = [answers(name, model, processor, tokens, picture(*size, seed)) for size in SIZES]
        best = torch.stack([f["greedy_logits"].topk(2).values for f in found])
        gap = (best[..., 0] - best[..., 1]).min().item()
        said = torch.cat([f["greedy"] for f in found])
        # Special tokens would end the answer or stand for another image; ties are nobody's to decide.
        if said.max() < len(BYTES) and gap > 2e-3 and len(said.unique()) > 12:
            break
    else:
        raise SystemExit(f"{name}: no seed will do")
    directory = HERE / "mllms" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    model.to(dtype).save_pretrained(directory, max_shard_size=shard)
    processor.save_pretrained(directory)
    tokens.save_pretrained(directory)
    tensors = {f"{i}.{key}": value for i, f in enumerate(found) for key, value in f.items()} | conversations(tokens)
    ready = {k: (torch.from_numpy(v) if isinstance(v, np.ndarray) else v).contiguous() for k, v in tensors.items()}
    ready = {k: v.to(torch.int32) if v.dtype == torch.int64 else v for k, v in ready.items()}
    provenance = {
        "generator": "tests/reference/make_mllm_goldens.py", "seed": str(seed), "torch": torch.__version__,
        "transformers": transformers.__version__, "pillow": PIL.__version__,
    }
    save_file(ready, HERE / "goldens" / f"mllm-{name}.safetensors", metadata=provenance)
    shapes = [list(f["image_embeds"].shape) for f in found]
    print(f"{name}: seed {seed}, image tokens {shapes}, gap {gap:.4f}, {len(said.unique())} different tokens said")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in sys.argv[1:] or FAMILIES:
        make(name)
