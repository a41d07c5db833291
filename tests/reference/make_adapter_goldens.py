"""Makes the reference adapters and their goldens: LoRA by peft on the reference checkpoints, run by transformers.

    python tests/reference/make_adapter_goldens.py

Run make_goldens.py first. Writes adapters/{plain,patterns}/ as peft saves them and goldens/adapter-*.safetensors. All
is a function of the seeds below. Needs what make_goldens.py needs, and peft.

`plain` is the paper's recipe: every linear layer of the language model, the projector whole. `patterns` has what else
changes an adapter's meaning: rank-stabilised scales, patterns of ranks and factors (regular expressions among them),
layers of the vision tower and the head (whose own weights peft saves, too), weights in bfloat16, and the paths of
transformers before 4.52.
"""

import json
import shutil

import peft
import torch
from make_goldens import HERE, IMAGE_TOKEN, WORDS, write
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

TEXT = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def base(checkpoint: str) -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(HERE / "checkpoints" / checkpoint, dtype=torch.float32).eval()


def train(model: torch.nn.Module, seed: int) -> None:
    """As if it had been trained: no B is zero, no whole module is what it was."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "lora_B" in name and "vision_tower" in name and "layers.2." in name:
                continue  # behind the features that are taken: the loss never reaches it
            if "lora_" in name:
                parameter.copy_(noise / parameter.shape[-1] ** 0.5)
            elif "modules_to_save" in name:
                parameter.add_(0.3 * noise / max(1, parameter[0].numel()) ** 0.5)


def save(model, name: str, checkpoint: str) -> None:
    """Saves and leaves only what is the adapter."""
    directory = HERE / "adapters" / name
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)
    (directory / "README.md").unlink()
    config = json.loads((directory / "adapter_config.json").read_text())
    config |= {"base_model_name_or_path": checkpoint, "target_modules": sorted_if_list(config["target_modules"])}
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def sorted_if_list(value):
    """peft keeps a set there, in no order."""
    return sorted(value) if isinstance(value, list) else value


def age(name: str) -> None:
    """Rewrites an adapter as an older transformers would have named its paths, in bfloat16."""
    path = HERE / "adapters" / name / "adapter_model.safetensors"
    renamed = {}
    for key, value in load_file(path).items():
        key = key.replace("model.model.language_model.", "model.language_model.model.")
        key = key.replace("model.model.vision_tower.", "model.vision_tower.vision_model.")
        key = key.replace("base_model.model.lm_head.", "base_model.model.language_model.lm_head.")
        renamed[key] = value if ".base_layer." in key else value.to(torch.bfloat16).contiguous()
    save_file(renamed, path, metadata={"format": "pt"})


def golden(name: str, checkpoint: str, model, plain, seed: int) -> None:
    """What the adapted model says, and how far that is from the base's answer."""
    pixels = load_file(HERE / "goldens" / f"{checkpoint}.safetensors")["pixel_values"]
    with torch.no_grad():
        embeds = torch.stack(list(model.get_image_features(pixel_values=pixels).pooler_output))
        words = [WORDS.index(w) for w in "<user> find the red cup <assistant>".split()]
        ids = torch.tensor([[WORDS.index("<s>")] + [IMAGE_TOKEN] * embeds.shape[1] + words])
        run = dict(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids))
        logits, before = model(**run).logits, plain(**run).logits
    moved = ((logits - before).abs().max() / logits.abs().max()).item()
    print(f"{name}: the adapter moves the logits by {moved:.2f} of the largest")
    assert moved > 0.1
    tensors = {"pixel_values": pixels, "image_embeds": embeds, "input_ids": ids, "logits": logits}
    write(f"adapter-{name}", tensors | {"base_logits": before}, seed)


def adapter(name: str, checkpoint: str, config: LoraConfig, seed: int, aged: bool = False) -> None:
    torch.manual_seed(seed)
    model = get_peft_model(base(checkpoint), config)
    train(model, seed)
    save(model, name, checkpoint)
    # Run what was saved, not what is in memory; only the names of an aged one are unknown to this transformers.
    loaded = PeftModel.from_pretrained(base(checkpoint), HERE / "adapters" / name).eval()
    if aged:
        with torch.no_grad():
            for parameter in (p for n, p in loaded.named_parameters() if "lora_" in n or "modules_to_save" in n):
                parameter.copy_(parameter.to(torch.bfloat16).float())
        age(name)
    golden(name, checkpoint, loaded.get_base_model(), base(checkpoint), seed)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(f"peft {peft.__version__}")
    adapter(
        "plain",
        "llava-siglip",
        LoraConfig(
            r=4, lora_alpha=6, lora_dropout=0.05, modules_to_save=["multi_modal_projector"],
            target_modules=rf".*language_model.*\.({'|'.join(TEXT)})",
        ),
        seed=21,
    )
    adapter(
        "patterns",
        "llava-clip",
        LoraConfig(
            r=4, lora_alpha=3, use_rslora=True, target_modules=[*TEXT, "out_proj", "fc1", "lm_head"],
            rank_pattern={r"layers\.[01]\.mlp\.up_proj": 2, "q_proj": 3},
            alpha_pattern={r"language_model\..*layers\.1\.self_attn\.v_proj": 5, "lm_head": 2},
        ),
        seed=22,
        aged=True,
    )
