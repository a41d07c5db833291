"""Makes the reference checkpoints and goldens: small random models of the exact classes, run by transformers.

    python tests/reference/make_goldens.py

Writes checkpoints/{llava-siglip,llava-clip,sam}/ (ordinary Hugging Face directories) and goldens/*.safetensors. All is
a function of the seeds below; provenance (versions, seeds) is in each golden file's metadata. Needs torch,
transformers, safetensors, tokenizers, numpy and pillow.

Every golden file holds `image`, u8[h, w, 3], as the camera would give it: comparisons start there.
"""

import pathlib
import shutil

import numpy as np
import PIL
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    SamConfig,
    SamImageProcessorPil,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

HERE = pathlib.Path(__file__).parent
WORDS = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "<user>", "<assistant>", "find", "the", "red", "cup", "yes", "no"]
IMAGE_TOKEN = WORDS.index("<image>")


def picture(width: int, height: int, seed: int) -> np.ndarray:
    """A deterministic non-square picture with gradients, edges and noise: u8[height, width, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 255 / width, y * 255 / height, (x + 2 * y) % 256], axis=-1)
    base[height // 4 : height // 2, width // 3 : width // 2] = (250, 30, 60)
    return np.clip(base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8)


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights whose activations stay near 1 and whose norms, biases and embeddings are not trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1.0 + 0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif "positional_embedding" in name or "embed" in name and parameter.dim() <= 2 or "pos_embed" in name:
                parameter.copy_(0.5 * noise)
            elif parameter.dim() >= 2:
                fan_in = parameter[0].numel()
                parameter.copy_(1.2 * noise / fan_in**0.5)
            else:
                parameter.copy_(noise)


def fresh(name: str) -> pathlib.Path:
    directory = HERE / "checkpoints" / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def write(name: str, tensors: dict, seed: int) -> None:
    (HERE / "goldens").mkdir(exist_ok=True)
    provenance = {
        "generator": "tests/reference/make_goldens.py",
        "seed": str(seed),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "pillow": PIL.__version__,
    }
    ready = {k: (torch.from_numpy(v) if isinstance(v, np.ndarray) else v).contiguous() for k, v in tensors.items()}
    ready = {k: v.to(torch.int32) if v.dtype == torch.int64 else v for k, v in ready.items()}
    save_file(ready, HERE / "goldens" / f"{name}.safetensors", metadata=provenance)
    for key, value in ready.items():
        scale = f"max |x| {value.abs().max():.3f}" if value.is_floating_point() else ""
        print(f"  {name}.{key}: {value.dtype} {list(value.shape)} {scale}")


def tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def llava(name: str, config: LlavaConfig, processor, seed: int, shard: str) -> None:
    model = LlavaForConditionalGeneration(config).eval().float()
    randomise(model, seed)
    model.tie_weights()
    directory = fresh(name)
    model.save_pretrained(directory, max_shard_size=shard)
    processor.save_pretrained(directory)
    tokenizer().save_pretrained(directory)

    image = picture(53, 37, seed)
    pixels = processor(images=PIL.Image.fromarray(image), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        embeds = torch.stack(list(model.get_image_features(pixel_values=pixels).pooler_output))
        words = [WORDS.index(w) for w in "<user> find the red cup <assistant>".split()]
        prompt = [WORDS.index("<s>")] + [IMAGE_TOKEN] * embeds.shape[1] + words
        ids = torch.tensor([prompt])
        logits = model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids)).logits
        greedy = []
        for _ in range(8):
            step = torch.tensor([prompt + greedy])
            last = model(input_ids=step, pixel_values=pixels, attention_mask=torch.ones_like(step)).logits[0, -1]
            last[IMAGE_TOKEN] = -torch.inf  # never said; transformers would look for another image
            greedy.append(int(last.argmax()))
        spoken = torch.tensor([prompt + greedy])
        after = model(input_ids=spoken, pixel_values=pixels, attention_mask=torch.ones_like(spoken)).logits
        # Two questions behind one prompt, each asked on its own: what one pass with a branched mask must equal.
        branches = torch.tensor([[5, 7, 8, 6], [5, 9, 10, 6]])
        alone = []
        for branch in branches.tolist():
            asked = torch.tensor([prompt + branch])
            out = model(input_ids=asked, pixel_values=pixels, attention_mask=torch.ones_like(asked)).logits
            alone.append(out[0, -len(branch) :])
    write(
        name,
        {
            "image": image,
            "pixel_values": pixels,
            "image_embeds": embeds,
            "input_ids": ids,
            "logits": logits,
            "greedy": torch.tensor(greedy),
            "greedy_logits": after[:, len(prompt) :],
            "branches": branches,
            "branch_logits": torch.stack(alone),
        },
        seed,
    )


def llava_siglip() -> None:
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=3,
            image_size=32,
            patch_size=8,
            vision_use_head=False,
        ),
        text_config=LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
        ),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_token_index=IMAGE_TOKEN,
        image_seq_length=16,
        tie_word_embeddings=True,
    )
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2)
    llava("llava-siglip", config, processor, seed=11, shard="100KB")


def llava_clip() -> None:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=24,
            patch_size=8,
            projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=40,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            head_dim=12,
            attention_bias=True,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        ),
        vision_feature_layer=[-2, -3],
        vision_feature_select_strategy="default",
        image_token_index=IMAGE_TOKEN,
        image_seq_length=9,
        tie_word_embeddings=False,
    )
    processor = CLIPImageProcessorPil(size={"height": 24, "width": 24}, do_center_crop=False, resample=3)
    llava("llava-clip", config, processor, seed=12, shard="10MB")


def sam() -> None:
    seed = 13
    side, patch, channels = 32, 8, 32
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=40,
            output_channels=channels,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=side,
            patch_size=patch,
            mlp_dim=64,
            use_rel_pos=False,
            window_size=0,
            global_attn_indexes=[0, 1],
            num_pos_feats=channels // 2,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=channels, image_size=side, patch_size=patch),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=channels, mlp_dim=64, num_attention_heads=4, iou_head_hidden_dim=24
        ),
    )
    model = SamModel(config).eval().float()
    randomise(model, seed)
    model.tie_weights()
    directory = fresh("sam")
    model.save_pretrained(directory)
    processor = SamImageProcessorPil(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    processor.save_pretrained(directory)

    image = picture(90, 61, seed)
    inputs = processor(images=PIL.Image.fromarray(image), return_tensors="pt")
    tensors = {"image": image, "pixel_values": inputs["pixel_values"]}
    box = torch.tensor([[[5.0, 4.0, 20.0, 16.5], [1.5, 10.0, 30.0, 20.5]]])
    points = torch.tensor([[[[7.5, 6.0], [15.0, 12.75], [25.0, 20.0]], [[10.0, 15.0], [2.5, 2.5], [16.5, 18.0]]]])
    labels = torch.tensor([[[1, 1, 0], [1, 0, 1]]])
    mask = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) * 4
    with torch.no_grad():
        embedding = model.get_image_embeddings(inputs["pixel_values"])
        cases = {
            "box": dict(input_boxes=box),
            "box_points": dict(input_boxes=box, input_points=points, input_labels=labels),
            "points": dict(input_points=points, input_labels=labels),
        }
        for case, prompts in cases.items():
            for multimask in (False, True):
                out = model(image_embeddings=embedding, multimask_output=multimask, **prompts)
                kind = "multi" if multimask else "single"
                tensors[f"{case}.{kind}.masks"] = out.pred_masks[0]
                tensors[f"{case}.{kind}.scores"] = out.iou_scores[0]
        # One prompt at a time: transformers takes one mask for all prompts of an image.
        given = [
            [model(image_embeddings=embedding, input_boxes=box[:, i : i + 1], input_masks=mask[i : i + 1],
                   multimask_output=multi) for multi in (False, True)]
            for i in range(2)
        ]
        for j, kind in enumerate(("single", "multi")):
            tensors[f"mask.{kind}.masks"] = torch.cat([given[i][j].pred_masks[0] for i in range(2)])
            tensors[f"mask.{kind}.scores"] = torch.cat([given[i][j].iou_scores[0] for i in range(2)])
    tensors |= {"image_embedding": embedding, "boxes": box[0], "points": points[0], "labels": labels[0], "mask": mask}
    write("sam", tensors, seed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    llava_siglip()
    llava_clip()
    sam()
