"""Imported graphs of one form against those of another, in ONNX Runtime on the CPU: max |a - b| / max |b| of every output.

    sam4mllm engine import engines/tabletop -o /tmp/a
    sam4mllm engine import engines/tabletop --level fused --precision fp16 -o /tmp/b
    python tests/reference/check_graphs.py engines/tabletop /tmp/a /tmp/b [/tmp/c ...] [--limit 1e-3]

For a checkpoint of a language model that is in no bundle, with graphs beside each other in each folder, only the decoder is
compared, on random embeddings.

The first is the reference. The language model looks at rendered scenes and is asked what the bundle asks; the words of
the reference's greedy answer are then fed to each, token by token, behind a cache of its own: the largest difference of
all logits, and how often the likeliest token is another. Caches that grow (portable) and that are updated in place
(fused) are both known. SAM gets the same scenes with a box, points, and a mask. With --limit, ends with 1 where an
output is further off.

Needs: onnxruntime of opset 24 (1.24 and later), numpy, pillow, tokenizers.
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile
import tomllib

import numpy as np
import onnxruntime as ort
from PIL import Image
from tokenizers import Tokenizer

CAPACITY = 512
NEVER = -3.0e4
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
COMMANDS = ["the red book", "the leftmost mug", "all apples", "the screwdriver right of the soap", "the smallest thing"]


class Graph:
    """One graph in ONNX Runtime; takes and gives 32-bit floats whatever its own types are."""

    def __init__(self, path):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        # Nothing may be computed in another type than the graph says.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = {i.name: (TYPES[i.type], i.shape) for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]

    def run(self, **feeds):
        feeds = {name: np.asarray(feeds[name], self.inputs[name][0]) for name in self.inputs}
        values = self.session.run(self.outputs, feeds)
        return {n: v.astype(np.float32) for n, v in zip(self.outputs, values)}


class Decoder(Graph):
    """The text model with its conversation so far."""

    def forget(self):
        past = {n: s for n, (_, s) in self.inputs.items() if n.startswith("past_")}
        self.in_place = "write_indices" in self.inputs
        length = CAPACITY if self.in_place else 0
        # What lies behind the conversation must not matter; it must be finite, as softmax multiplies it by zero.
        self.cache = {n: np.full((1, s[1], length, s[3]), 7.0, np.float32) for n, s in past.items()}
        self.tokens = 0

    def append(self, embeds):
        count, past = embeds.shape[1], self.tokens
        total = past + count
        rows, columns = np.arange(count)[:, None] + past, np.arange(total)[None, :]
        bias = np.where(columns <= rows, 0.0, NEVER)[None, None]
        feeds = {
            "inputs_embeds": embeds,
            "position_ids": np.arange(past, total)[None],
            "attention_bias": bias,
            "logit_indices": np.arange(count),
            "write_indices": [past],
        }
        outputs = self.run(**feeds, **self.cache)
        self.cache = {n: outputs[n.replace("past", "present")] for n in self.cache}
        self.tokens = total
        return outputs["logits"][0]


class Form:
    """All graphs of one form."""

    def __init__(self, folder, copies):
        # ONNX Runtime follows no links to weights outside the folder, and an import is full of them.
        self.name = pathlib.Path(folder).name
        copy = pathlib.Path(copies) / self.name
        shutil.copytree(folder, copy)
        graph = lambda part, name, kind=Graph: kind(copy / part / f"{name}.onnx")
        if (copy / "decoder.onnx").exists():
            self.decoder = graph("", "decoder", Decoder)
            return
        self.vision, self.embed = graph("mllm", "vision"), graph("mllm", "embed")
        self.decoder = graph("mllm", "decoder", Decoder)
        self.encoder, self.masks = graph("sam", "image_encoder"), graph("sam", "mask_decoder")


def scene(seed, side, mean, std):
    """A table with coloured discs and boxes, as the models take it: `[1, 3, side, side]`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    picture = np.ones((3, side, side)) * rng.uniform(0.3, 0.7, (3, 1, 1)) + 0.1 * np.sin(20 * x * rng.uniform(0.5, 2))
    for _ in range(6):
        cx, cy, r = *rng.uniform(0.15, 0.85, 2), rng.uniform(0.05, 0.15)
        inside = (x - cx) ** 2 + (y - cy) ** 2 < r**2 if rng.random() < 0.5 else np.maximum(abs(x - cx), abs(y - cy)) < r
        picture = np.where(inside, rng.uniform(0, 1, (3, 1, 1)), picture)
    picture = np.clip(picture, 0, 1)
    return ((picture - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1)))[None].astype(np.float32)


def pictures(args, spec):
    """Pictures of a folder, else scenes of this script's own."""
    side, mean, std = spec["width"], np.reshape(spec["mean"], (3, 1, 1)), np.reshape(spec["std"], (3, 1, 1))
    if not args.pictures:
        return [scene(seed, side, spec["mean"], spec["std"]) for seed in range(args.scenes)]
    files = sorted(p for p in pathlib.Path(args.pictures).iterdir() if p.suffix in (".png", ".jpg"))[: args.scenes]
    load = lambda f: np.asarray(Image.open(f).convert("RGB").resize((side, side), Image.BILINEAR), np.float32)
    return [((load(f).transpose(2, 0, 1) / 255 - mean) / std)[None].astype(np.float32) for f in files]


class Differences:
    """The largest of each output over all calls."""

    def __init__(self):
        self.off, self.most, self.square, self.size = {}, {}, {}, {}

    def note(self, name, found, wanted):
        assert found.shape == wanted.shape, (name, found.shape, wanted.shape)
        assert np.isfinite(found).all(), f"{name} is not finite"
        off = np.abs(found - wanted)
        self.off[name] = max(self.off.get(name, 0.0), float(off.max()))
        self.most[name] = max(self.most.get(name, 0.0), float(np.abs(wanted).max()))
        self.square[name] = self.square.get(name, 0.0) + float((off.astype(np.float64) ** 2).sum())
        self.size[name] = self.size.get(name, 0.0) + float((wanted.astype(np.float64) ** 2).sum())

    def largest(self, name):
        return self.off[name] / self.most[name]

    def rms(self, name):
        return (self.square[name] / self.size[name]) ** 0.5


def ask(form, embeds, ids, answer=None, most=24, end=None):
    """Feeds a question, then the answer token by token, its own greedy one where none is given: tokens and logits."""
    form.decoder.forget()
    if embeds is not None:
        form.decoder.append(embeds)
    text = form.embed.run(input_ids=[ids])["inputs_embeds"]
    rows, tokens = [form.decoder.append(text)[-1]], []
    while len(tokens) < (most if answer is None else len(answer)):
        token = int(rows[-1].argmax()) if answer is None else answer[len(tokens)]
        tokens.append(token)
        if token == end:
            break
        rows.append(form.decoder.append(form.embed.run(input_ids=[[token]])["inputs_embeds"])[-1])
    return tokens, np.stack(rows[: len(tokens)])


def language(args, manifest, forms, notes):
    folder = pathlib.Path(args.bundle) / manifest["mllm"]["directory"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    dialect, reference = manifest["dialect"], forms[0]
    before = encode(dialect["prefix"].split("<image>")[0])
    end = encode(dialect["end_of_answer"])[0]
    changed, count = [0] * len(forms), 0
    for pixels in pictures(args, manifest["mllm"]["image"]):
        seen = [form.vision.run(pixel_values=pixels)["image_embeds"] for form in forms]
        starts = [np.concatenate([f.embed.run(input_ids=[before])["inputs_embeds"], s], 1) for f, s in zip(forms, seen)]
        for command in COMMANDS:
            query = dialect["proposal_query"].format(hint=dialect["hint_none_or_more"], command=command)
            answer, wanted = ask(reference, starts[0], encode(query), end=end)
            count += len(answer)
            for i, form in enumerate(forms[1:], 1):
                _, found = ask(form, starts[i], encode(query), answer)
                notes[i].note("logits", found, wanted)
                changed[i] += int((found.argmax(-1) != wanted.argmax(-1)).sum())
        for note, embeds in zip(notes[1:], seen[1:]):
            note.note("image_embeds", embeds, seen[0])
    return changed, count


def segmenter(args, manifest, forms, notes):
    spec = manifest["sam"]["image"]
    side, rng = spec["width"], np.random.default_rng(1)
    for pixels in pictures(args, spec):
        seen = [form.encoder.run(pixel_values=pixels)["image_embedding"] for form in forms]
        grid = seen[0].shape[-1]
        for batch, points in [(1, 2), (3, 7)]:
            coords = rng.uniform(0, side, (batch, points, 2))
            labels = np.array([[2, 3, 1, 0, 1, 0, -1][:points]] * batch)
            mask, has = rng.normal(0, 5, (batch, 1, 4 * grid, 4 * grid)), np.full((batch, 1, 1, 1), float(batch > 1))
            prompt = dict(point_coords=coords, point_labels=labels, mask_input=mask, has_mask_input=has)
            outputs = [form.masks.run(image_embedding=e, **prompt) for form, e in zip(forms, seen)]
            for note, found in zip(notes[1:], outputs[1:]):
                for name in found:
                    note.note(name, found[name], outputs[0][name])
        for note, found in zip(notes[1:], seen[1:]):
            note.note("image_embedding", found, seen[0])


def decoders(forms, notes):
    """Three passes over random embeddings: many positions, one, several."""
    width = forms[0].decoder.inputs["inputs_embeds"][1][2]
    for form in forms:
        form.decoder.forget()
    rng = np.random.default_rng(2)
    for count in (17, 1, 5):
        embeds = rng.normal(0, 1, (1, count, width)).astype(np.float32)
        rows = [form.decoder.append(embeds) for form in forms]
        for note, found in zip(notes[1:], rows[1:]):
            note.note("logits", found, rows[0])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--pictures", help="a folder of pictures to look at; scenes of this script's own otherwise")
    parser.add_argument("--limit", type=float)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    # It warns of every cache that it copies.
    ort.set_default_logger_severity(3)
    bundle = pathlib.Path(args.bundle) / "bundle.toml"
    with tempfile.TemporaryDirectory() as copies:
        forms = [Form(folder, copies) for folder in args.folders]
    notes = [Differences() for _ in forms]
    changed, count = [0] * len(forms), 0
    if bundle.exists():
        manifest = tomllib.loads(bundle.read_text())
        segmenter(args, manifest, forms, notes)
        changed, count = language(args, manifest, forms, notes)
    else:
        decoders(forms, notes)
    worst, rows = 0.0, []
    for i, (form, note) in enumerate(zip(forms[1:], notes[1:]), 1):
        for name in note.off:
            worst = max(worst, note.largest(name))
            rows.append({"form": form.name, "output": name, "largest": note.largest(name), "rms": note.rms(name)})
            line = f"{form.name:<24} {name:<18} max |a - b| / max |b| = {note.largest(name):.2e}, rms {note.rms(name):.2e}"
            print(line, file=sys.stderr if args.json else sys.stdout)
        rows.append({"form": form.name, "tokens": count, "other_tokens": changed[i]})
        line = f"{form.name:<24} the likeliest token is another in {changed[i]} of {count}"
        print(line, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(rows, indent=1))
    sys.exit(args.limit is not None and worst > args.limit)


if __name__ == "__main__":
    main()
