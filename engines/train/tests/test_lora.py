"""The LoRA recipe on tiny models made here: which tokens are trained on, packing, overfitting, resuming, and that what
is saved loads in peft and through the importer.

    python -m unittest discover -s engines/train/tests

Needs the package's dependencies; no network. The importer's test is skipped where target/release/sam4mllm is not built.
"""

import csv
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    PreTrainedTokenizerFast,
)

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "engines/train"))

from sam4mllm_train import chat, lora  # noqa: E402

WORDS = "<pad> <unk> <s> </s> <image> <eot> system user assistant : find the red blue cup book yes no on it is 1 2 3 4"
WORDS = WORDS.split()
# As Llama 3's: a header before each turn, a mark behind it.
TEMPLATE = (
    "<s> {% for m in messages %}{{ m.role }} : {% for p in m.content %}"
    "{% if p.type == 'image' %}<image> {% else %}{{ p.text }} {% endif %}{% endfor %}<eot> {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
BINARY = ROOT / "target/release/sam4mllm"


def next_checkpoint(directory: pathlib.Path) -> None:
    """A random `LlavaNextForConditionalGeneration` of the shape of the 8B one: CLIP, Llama, crops by aspect."""
    torch.manual_seed(3)
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.add_special_tokens(["<image>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    pinpoints = [[16, 32], [32, 16], [32, 32]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
                                       image_size=16, patch_size=4, projection_dim=16),
        text_config=LlamaConfig(vocab_size=len(WORDS), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
                                initializer_range=0.3),
        image_grid_pinpoints=pinpoints, image_token_index=WORDS.index("<image>"), vision_feature_layer=-2,
        vision_feature_select_strategy="default", tie_word_embeddings=False)
    LlavaNextForConditionalGeneration(config).save_pretrained(directory)
    images = LlavaNextImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16},
                                     image_grid_pinpoints=pinpoints)
    LlavaNextProcessor(images, tokenizer, patch_size=4, vision_feature_select_strategy="default", image_token="<image>",
                       num_additional_image_tokens=1, chat_template=TEMPLATE).save_pretrained(directory)


def said(role: str, text: str, image: bool = False) -> dict:
    return {"role": role, "content": [{"type": "image"}] * image + [{"type": "text", "text": text}]}


def write_dialogues(directory: pathlib.Path) -> pathlib.Path:
    """Three conversations about pictures of three shapes, and one about none."""
    made = []
    for i, (size, answer) in enumerate([((40, 20), "1 2"), ((20, 50), "3 4"), ((30, 30), "no 1")]):
        Image.new("RGB", size, (80 * i, 200 - 60 * i, 90)).save(directory / f"{i}.png")
        turns = [said("user", "find the cup", True), said("assistant", answer)]
        turns += [said("user", "on it"), said("assistant", "yes")]
        made.append({"messages": turns, "images": [f"{i}.png"]})
    system = {"role": "system", "content": "it is"}
    made.append({"messages": [system, said("user", "the book"), said("assistant", "blue")]})
    path = directory / "dialogues.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in made))
    return path


class Next(unittest.TestCase):
    """LLaVA-NeXT, random and tiny."""

    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)
        cls.folder = tempfile.TemporaryDirectory()
        cls.dir = pathlib.Path(cls.folder.name)
        cls.base = cls.dir / "base"
        next_checkpoint(cls.base)
        cls.data = write_dialogues(cls.dir)
        cls.model = AutoModelForImageTextToText.from_pretrained(cls.base).eval()
        cls.encoder = chat.Encoder(lora.load_processor(str(cls.base), cls.model.config), cls.model.config)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def tune(self, out: str, *more: str) -> pathlib.Path:
        lora.main(["--base", str(self.base), "--data", str(self.data), "--out", str(self.dir / out), "--rank", "8",
                   "--alpha", "8", "--tokens", "160", "--accumulate", "2", "--lr", "0.01", "--device", "cpu", *more])
        return self.dir / out

    def curve(self, out: pathlib.Path) -> list[dict]:
        with open(out / "lora.csv", newline="") as file:
            return list(csv.DictReader(file))

    def test_only_the_assistants_tokens_are_trained_on(self):
        examples, left = chat.read(str(self.data), self.encoder, 512)
        self.assertEqual((len(examples), left), (4, 0))
        words = [[WORDS[t] for t in e.labels if t != chat.IGNORED] for e in examples]
        self.assertEqual(words[0], ["1", "2", "<eot>", "yes", "<eot>"])
        self.assertEqual(words[3], ["blue", "<eot>"])
        first, image = examples[0], WORDS.index("<image>")
        text = " ".join(WORDS[t] for t in first.ids if t != image)
        turns = "<s> user : find the cup <eot> assistant : 1 2 <eot> user : on it <eot> assistant : yes <eot>"
        self.assertEqual(text, turns)
        # Every image token that the model will put a feature in the place of, and not one more.
        for example in examples[:3]:
            seen = self.encoder.see(example.images)
            with torch.no_grad():
                features = self.model.get_image_features(**seen).pooler_output
            self.assertEqual(sum(len(f) for f in features), example.ids.count(image))
        self.assertGreater(len({e.ids.count(image) for e in examples[:3]}), 1, "shapes differ in their crops")

    def test_what_is_trained_on_is_what_the_position_before_says(self):
        examples, _ = chat.read(str(self.data), self.encoder, 512)
        pack = chat.Packs(examples, [[3, 0]], self.encoder)[0]
        ids, labels, positions = (pack[k][0].tolist() for k in ("input_ids", "labels", "position_ids"))
        for i, label in enumerate(labels):
            if label != chat.IGNORED:
                self.assertEqual(ids[i + 1], label)
        self.assertEqual([i for i, p in enumerate(positions) if p == 0], [0, len(examples[3].ids)])

    def test_packed_conversations_do_not_see_each_other(self):
        examples, _ = chat.read(str(self.data), self.encoder, 512)

        def run(order):
            pack = chat.Packs(examples, [order], self.encoder)[0]
            del pack["labels"]
            return self.model(**pack, use_cache=False)

        with torch.no_grad():
            packed = run([2, 3, 0, 1]).logits[0]
            alone = torch.cat([run([i]).logits[0] for i in (2, 3, 0, 1)])
        off = ((packed - alone).abs().max() / alone.abs().max()).item()
        self.assertLess(off, 1e-4)

    def test_it_learns_what_it_is_shown_and_peft_loads_it(self):
        out = self.tune("overfit", "--steps", "60", "--dropout", "0", "--val", str(self.data), "--val-every", "60")
        curve = self.curve(out)
        before, after = float(curve[0]["val"]), float(curve[-1]["val"])
        self.assertLess(after, 0.1 * before, f"{before} -> {after}")
        settings = json.loads((out / "adapter/adapter_config.json").read_text())
        self.assertEqual((settings["peft_type"], settings["r"]), ("LORA", 8))
        self.assertEqual(settings["modules_to_save"], [lora.PROJECTOR])
        keys = load_file(out / "adapter/adapter_model.safetensors").keys()
        halves = {k.split(".lora_")[0] for k in keys if ".lora_" in k}
        self.assertEqual(len(halves), 2 * 7, "seven linear layers in each of two")
        self.assertTrue(all("language_model" in k for k in halves))
        self.assertEqual(sum("multi_modal_projector" in k for k in keys), 4)

        base = AutoModelForImageTextToText.from_pretrained(self.base)
        frozen = {k: v.clone() for k, v in base.state_dict().items()}
        model = PeftModel.from_pretrained(base, out / "adapter").eval()
        for key, value in frozen.items():
            self.assertTrue(torch.equal(value, self.model.state_dict()[key]), key)
        examples, _ = chat.read(str(self.data), self.encoder, 512)
        for i, example in enumerate(examples):
            pack = chat.Packs(examples, [[i]], self.encoder)[0]
            labels = pack.pop("labels")[0]
            with torch.no_grad():
                best = model(**pack, use_cache=False).logits[0].argmax(-1)
            keep = labels != chat.IGNORED
            self.assertEqual(best[keep].tolist(), labels[keep].tolist(), f"conversation {i}")

    def test_a_resumed_run_ends_where_an_unbroken_one_does(self):
        whole = self.tune("whole", "--steps", "6")
        self.tune("broken", "--steps", "6", "--stop-after", "3")
        broken = self.tune("broken", "--steps", "6", "--resume")
        one, two = (load_file(d / "adapter/adapter_model.safetensors") for d in (whole, broken))
        self.assertEqual(one.keys(), two.keys())
        for key in one:
            self.assertTrue(torch.equal(one[key], two[key]), key)
        self.assertEqual([r["loss"] for r in self.curve(whole)], [r["loss"] for r in self.curve(broken)])
        with self.assertRaisesRegex(ValueError, "resume with those of the first run"):
            self.tune("broken", "--steps", "7", "--resume")

    def test_damaged_records_are_named(self):
        good = json.loads(self.data.read_text().splitlines()[0])
        cases = [
            ("{", "line 1"),
            (json.dumps({"messages": []}), "messages"),
            (json.dumps(good | {"images": []}), "more images are mentioned"),
            (json.dumps(good | {"images": ["0.png", "1.png"]}), "more images are given"),
            (json.dumps(good | {"images": ["absent.png"]}), "absent.png"),
            (json.dumps({"messages": [said("robot", "x")]}), "robot"),
            (json.dumps({"messages": [said("user", "x")]}), "never speaks"),
            (json.dumps({"messages": [{"role": "user", "content": [{"type": "video"}]}]}), "neither a text"),
            ("[]", "line 1"),
        ]
        path = self.dir / "damaged.jsonl"
        for line, why in cases:
            path.write_text(line + "\n")
            with self.assertRaisesRegex(ValueError, why):
                chat.read(str(path), self.encoder, 512)
        path.write_text(json.dumps(good) + "\n")
        with self.assertRaisesRegex(ValueError, "no conversation of at most 8 tokens"):
            chat.read(str(path), self.encoder, 8)

    def test_the_rate_is_one_cycle(self):
        rates = [lora.rate(step, 1000, 0.01) for step in range(1000)]
        self.assertEqual(max(rates), 1.0)
        self.assertEqual(rates.index(1.0), 9)
        self.assertAlmostEqual(rates[0], 0.1)
        self.assertAlmostEqual(rates[505], 0.5, places=6)
        self.assertGreater(rates[-1], 0.0)


class Tabletop(unittest.TestCase):
    """The embedded default's language model, tuned and imported."""

    @unittest.skipUnless(BINARY.exists(), "target/release/sam4mllm is not built")
    def test_the_default_bundles_model_is_tuned_and_imports_merged_and_kept(self):
        base = ROOT / "engines/tabletop/mllm"
        with tempfile.TemporaryDirectory() as folder:
            directory = pathlib.Path(folder)
            Image.new("RGB", (64, 48), (200, 30, 60)).save(directory / "a.png")
            turns = [said("user", "find any: the red mug", True), said("assistant", "[010,020,300,400]")]
            (directory / "data.jsonl").write_text(json.dumps({"messages": turns, "images": ["a.png"]}) + "\n")
            template = ROOT / "engines/train/templates/tabletop.jinja"
            lora.main(["--base", str(base), "--data", str(directory / "data.jsonl"), "--out", folder, "--template",
                       str(template), "--rank", "4", "--alpha", "4", "--steps", "3", "--device", "cpu"])
            for mode, word in (("merge", "merged"), ("keep", "kept")):
                command = [str(BINARY), "engine", "import", str(base), "--out", f"{folder}/{mode}", "--adapter",
                           f"{folder}/adapter", "--adapter-mode", mode]
                done = subprocess.run(command, capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn(f"35 matrices of rank up to 4 {word}, 4 tensors replaced", done.stdout)

    def test_both_ways_of_writing_the_dialect_are_the_same_tokens(self):
        base = ROOT / "engines/tabletop/mllm"
        config = AutoModelForImageTextToText.from_pretrained(base).config
        template = (ROOT / "engines/train/templates/tabletop.jinja").read_text()
        encoder = chat.Encoder(lora.load_processor(str(base), config), config, template)
        with tempfile.TemporaryDirectory() as folder:
            Image.new("RGB", (64, 48)).save(f"{folder}/a.png")
            bare = [said("user", "find any: the mug", True), said("assistant", "[010,020,300,400]"),
                    said("user", "on [010,020,300,400]? [100,100]"), said("assistant", "yes")]
            marked = [said("user", "<user> find any: the mug <assistant>", True),
                      said("assistant", "[010,020,300,400]</s>"),
                      said("user", "<user> on [010,020,300,400]? [100,100] <assistant>"), said("assistant", "yes</s>")]
            one, two = (encoder.encode({"messages": m, "images": ["a.png"]}, folder) for m in (bare, marked))
        self.assertEqual((one.ids, one.labels), (two.ids, two.labels))
        word = encoder.tokenizer.convert_ids_to_tokens
        self.assertEqual(one.ids.count(config.image_token_id), 256)
        asked = "<s> <image> <user> find any : the mug <assistant> [".split()
        self.assertEqual(word(one.ids[:2] + one.ids[257:265]), asked)
        said_tokens = word([t for t in one.labels if t != chat.IGNORED])
        self.assertEqual(said_tokens, "[ 010 , 020 , 300 , 400 ] </s> yes </s>".split())


if __name__ == "__main__":
    unittest.main()
