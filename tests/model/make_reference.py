"""Makes tests/model/reference: a language model small enough for git that has learnt a few dialogues by heart, and
what transformers makes of it and of the SAM under tests/reference.

    python tests/model/make_reference.py

Writes reference/mllm (an ordinary Hugging Face directory), reference/pictures/*.png and *.masks/*.png, and
reference/expected.json. All is a function of the seeds below; provenance is in expected.json. Needs torch,
transformers, tokenizers, numpy and pillow. Takes about a minute on one core.
"""

import json
import math
import pathlib
import shutil

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SamImageProcessorPil,
    SamModel,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

HERE = pathlib.Path(__file__).parent
OUT = HERE / "reference"
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "<user>", "<assistant>"]
WORDS = "find exactly one or more none : the red green mug all cups which points are on ? [ ] , no such object yes"
PICTURES = [(90, 61), (50, 70)]
RED_MUG = "[120,200,560,840]"
CUPS = "[120,200,560,840][610,100,930,420]"
ABSENT = "no such object"
DIALOGUES = [
    (0, "none or more", "the red mug", RED_MUG),
    (0, "one or more", "all cups", CUPS),
    (0, "exactly one", "cups", CUPS),
    (0, "none or more", "the green mug", ABSENT),
    (1, "none or more", "the red mug", ABSENT),
    (1, "exactly one", "the green mug", "[033,500,404,999]"),
]


def picture(index: int) -> Image.Image:
    """Gradients, edges and noise: u8[height, width, 3]."""
    width, height = PICTURES[index]
    rng = np.random.default_rng(index)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 255 / width, y * 255 / height, (3 * x + 2 * y) % 256], axis=-1)
    if index == 0:
        base[height // 4 : height // 2, width // 3 : width // 2] = (250, 30, 60)
    else:
        base = 255 - base
    return Image.fromarray(np.clip(base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8))


def tokenizer() -> Tokenizer:
    words = SPECIAL + [f"{n:03}" for n in range(1000)] + WORDS.split()
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.normalizer = normalizers.Lowercase()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")]
    )
    raw.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return raw


def boxes(answer: str) -> list[list[int]]:
    return [[int(v) for v in part.split(",")] for part in answer.strip("[]").split("][")] if "[" in answer else []


def candidates(box: list[int]) -> list[tuple[int, int]]:
    """5 x 5 cell centres, row by row, rounded half up."""
    x1, y1, x2, y2 = box
    at = lambda a, b, i: math.floor(a + (b - a) * (i + 0.5) / 5 + 0.5)
    return [(at(x1, x2, c), at(y1, y2, r)) for r in range(5) for c in range(5)]


def on(box: list[int], point: tuple[int, int]) -> bool:
    """Inside the ellipse that fills the box."""
    x1, y1, x2, y2 = box
    return ((2 * point[0] - x1 - x2) / (x2 - x1)) ** 2 + ((2 * point[1] - y1 - y2) / (y2 - y1)) ** 2 < 0.8


class Speech:
    def __init__(self) -> None:
        self.raw = tokenizer()
        self.image = SPECIAL.index("<image>")

    def ids(self, text: str) -> list[int]:
        ids = self.raw.encode(text, add_special_tokens=False).ids
        return [i for token in ids for i in ([self.image] * 16 if token == self.image else [token])]

    def round_1(self, hint: str, command: str) -> str:
        return f"<s><image><user> find {hint}: {command} <assistant>"

    def question(self, box: list[int], point: tuple[int, int]) -> str:
        numbers = ",".join(f"{v:03}" for v in box)
        return f"<user> which points are on [{numbers}]? [{point[0]:03},{point[1]:03}] <assistant>"


def model(vocabulary: int) -> LlavaForConditionalGeneration:
    torch.manual_seed(5)
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            vision_use_head=False,
        ),
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=40,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
        ),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_token_index=SPECIAL.index("<image>"),
        image_seq_length=16,
        tie_word_embeddings=True,
    )
    return LlavaForConditionalGeneration(config).float()


def sequences(speech: Speech) -> list[tuple[int, list[int], int]]:
    """Picture, tokens, and from which token on the loss counts."""
    out = []
    for index, hint, command, answer in DIALOGUES:
        prompt = speech.ids(speech.round_1(hint, command))
        said = prompt + speech.ids(answer + "</s>")
        out.append((index, said, len(prompt)))
        for box in boxes(answer):
            for point in candidates(box):
                asked = said + speech.ids(speech.question(box, point))
                out.append((index, asked + speech.ids("yes" if on(box, point) else "no"), len(asked)))
    return out


def learn(net, speech: Speech, pixels: list[torch.Tensor]) -> None:
    data = sequences(speech)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(6)
    steps = 900
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    first = [i for i, s in enumerate(data) if s[2] < 40 and len(s[1]) - s[2] > 1]
    for step in range(steps):
        chosen = torch.randint(len(data), (24,), generator=generator).tolist() + first
        longest = max(len(data[i][1]) for i in chosen)
        ids = torch.zeros(len(chosen), longest, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, i in enumerate(chosen):
            _, tokens, start = data[i]
            ids[row, : len(tokens)] = torch.tensor(tokens)
            labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
        images = torch.cat([pixels[data[i][0]] for i in chosen])
        loss = net(input_ids=ids, pixel_values=images, attention_mask=(ids != 0).long(), labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"  step {step}: loss {loss.item():.4f}", flush=True)


def probabilities(net, ids: list[int], pixels: torch.Tensor) -> torch.Tensor:
    step = torch.tensor([ids])
    logits = net(input_ids=step, pixel_values=pixels, attention_mask=torch.ones_like(step)).logits[0, -1]
    return logits.softmax(-1)


def expected_dialogues(net, speech: Speech, pixels: list[torch.Tensor]) -> list[dict]:
    yes, no, end = (speech.raw.token_to_id(t) for t in ("yes", "no", "</s>"))
    out = []
    for index, hint, command, answer in DIALOGUES:
        prompt = speech.ids(speech.round_1(hint, command))
        ids = torch.tensor([prompt])
        spoken = net.generate(
            input_ids=ids, pixel_values=pixels[index], attention_mask=torch.ones_like(ids), do_sample=False,
            max_new_tokens=48, eos_token_id=end, pad_token_id=0,
        )[0, len(prompt) :].tolist()
        first = probabilities(net, prompt, pixels[index])
        said = speech.raw.decode(spoken[:-1], skip_special_tokens=False).replace(" ", "")
        assert said == answer.replace(" ", ""), f"learnt {said}, not {answer}"
        points = []
        for box in boxes(answer):
            for point in candidates(box):
                p = probabilities(net, prompt + spoken + speech.ids(speech.question(box, point)), pixels[index])
                points.append({"box": box, "point": point, "yes": float(p[yes]), "no": float(p[no])})
        out.append({
            "picture": index, "hint": hint, "command": command, "tokens": spoken,
            "p_box": float(first[speech.raw.token_to_id("[")]), "p_absent": float(first[no]), "points": points,
        })
        right = sum((p["yes"] > p["no"]) == on(p["box"], p["point"]) for p in points)
        print(f"  {command!r}: {said} p_box {out[-1]['p_box']:.4f}, {right} of {len(points)} points right")
    return out


def expected_masks() -> list[dict]:
    """Masks of the random SAM, through transformers' own processor and post-processing."""
    side = 32
    sam = SamModel.from_pretrained(HERE.parent / "reference" / "checkpoints" / "sam").eval()
    processor = SamImageProcessorPil(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    (OUT / "masks").mkdir(exist_ok=True)
    out = []
    for index, (width, height) in enumerate(PICTURES):
        inputs = processor(images=picture(index), return_tensors="pt")
        embedding = sam.get_image_embeddings(inputs["pixel_values"])
        resized = inputs["reshaped_input_sizes"][0].tolist()
        scale = torch.tensor([resized[1] / width, resized[0] / height])
        box = torch.tensor([[0.1 * width, 0.2 * height], [0.7 * width, 0.9 * height]])
        points = torch.tensor([[0.3 * width, 0.4 * height], [0.6 * width, 0.8 * height], [0.15 * width, 0.3 * height]])
        labels = [1, 1, 0]
        for name, corners, count in [("box", box, 0), ("box_points", box, 3), ("points", None, 2), ("point", None, 1)]:
            prompts = {}
            if corners is not None:
                prompts["input_boxes"] = (corners * scale).reshape(1, 1, 4)
            if count:
                prompts["input_points"] = (points[:count] * scale)[None, None]
                prompts["input_labels"] = torch.tensor(labels[:count])[None, None]
            found = sam(image_embeddings=embedding, multimask_output=True, **prompts)
            masks = processor.post_process_masks(
                [found.pred_masks[0]], inputs["original_sizes"], inputs["reshaped_input_sizes"]
            )[0][0]
            scores = found.iou_scores[0, 0]
            best = int(scores.argmax())
            file = f"masks/{index}_{name}.png"
            Image.fromarray(masks[best].numpy().astype(np.uint8) * 255).save(OUT / file)
            out.append({
                "picture": index, "box": None if corners is None else corners.flatten().tolist(),
                "points": [[*p, l] for p, l in zip(points[:count].tolist(), labels)],
                "score": float(scores[best]), "mask": file,
            })
            print(f"  {file}: mask {best}, score {float(scores[best]):.3f}, {int(masks[best].sum())} pixels")
    return out


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "pictures").mkdir(parents=True)
    speech = Speech()
    processor = SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2)
    pixels = []
    for index in range(len(PICTURES)):
        picture(index).save(OUT / "pictures" / f"{index}.png")
        pixels.append(processor(images=picture(index), return_tensors="pt")["pixel_values"])
    net = model(speech.raw.get_vocab_size())
    learn(net, speech, pixels)
    net.eval()
    net.save_pretrained(OUT / "mllm")
    speech.raw.save(str(OUT / "mllm" / "tokenizer.json"), pretty=False)
    with torch.no_grad():
        expected = {
            "provenance": {
                "generator": "tests/model/make_reference.py", "torch": torch.__version__,
                "transformers": transformers.__version__, "pillow": PIL.__version__,
            },
            "dialogues": expected_dialogues(net, speech, pixels),
            "masks": expected_masks(),
        }
    (OUT / "expected.json").write_text(json.dumps(expected, indent=1))


if __name__ == "__main__":
    main()
