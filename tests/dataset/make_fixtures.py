"""Writes small data sets beside this file, in the formats in which the field's are distributed.

    python make_fixtures.py

Standard library only. Nothing in them is of those data sets: pictures, outlines and words are made up here.
"""

import json
import pathlib
import pickle
import struct

HERE = pathlib.Path(__file__).parent


class Python2Pickler(pickle._Pickler):
    """Writes `str` as Python 2 did: as byte strings."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes_as_python_2(self, text):
        data = text.encode("utf-8")
        if not self.bin:
            self.write(pickle.STRING + repr(data)[1:].encode("ascii") + b"\n")
        elif len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(text)

    dispatch[str] = save_bytes_as_python_2


def write(path, data):
    path = HERE / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))


def python2(value, protocol):
    import io

    out = io.BytesIO()
    Python2Pickler(out, protocol).dump(value)
    return out.getvalue()


def show(value):
    """A value as the Rust test prints it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{show(k)}: {show(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(show, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)


def pickles():
    shared = ["shared", 1]
    value = [
        {"int": 7, "big": 70000, "negative": -3, "long": 2**40, "float": 1.5, "tiny": -2.5e-10},
        {"none": None, "yes": True, "no": False, "text": "snow ☃ ü", "escapes": 'a "b"\nc\\d', "empty": ""},
        (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, [[shared], shared], "x" * 300,
    ]
    for protocol in range(6):
        write(f"pickles/protocol{protocol}.p", pickle.dumps(value, protocol))
    write("pickles/expected.txt", show(value) + "\n")


def sentences(first, *pairs):
    return [
        {"sent": sent, "raw": raw, "sent_id": first + i, "tokens": sent.split()} for i, (sent, raw) in enumerate(pairs)
    ]


def ref(ref_id, ann_id, image_id, split, said):
    return {
        "ref_id": ref_id, "ann_id": ann_id, "image_id": image_id, "category_id": 1, "split": split,
        "file_name": f"COCO_train2014_{image_id:012}_{ann_id}.jpg",
        "sentences": said, "sent_ids": [s["sent_id"] for s in said],
    }


def refcoco():
    refs = [
        ref(1, 1719310, 581857, "train", sentences(0, ("left man", "Left man"), ("man in the café", "man in the café!"))),
        ref(2, 200, 98304, "train", sentences(2, ("the crowd", "the crowd"))),
        ref(3, 202, 131074, "testA", sentences(3, ("it's \"that\" one", "it's \"that\" one"))),
        ref(4, 201, 98304, "val", sentences(4, ("", "?!"), ("ring", "ring"))),
    ]
    write("refcoco/refs(unc).p", python2(refs, 0))
    write("refcoco/refs(google).p", python2(refs, 2))
    write("refcoco/refs(umd).p", pickle.dumps(refs, 4))
    write("refcoco/instances.json", json.dumps(instances()))


def instances():
    def image(image_id, width, height):
        name = f"COCO_train2014_{image_id:012}.jpg"
        return {"id": image_id, "file_name": name, "width": width, "height": height, "license": 1}

    def annotation(ann_id, image_id, bbox, segmentation, crowd=0):
        return {
            "segmentation": segmentation, "area": 1.0, "iscrowd": crowd, "image_id": image_id, "bbox": bbox,
            "category_id": 1, "id": ann_id,
        }

    # The string is what pycocotools 2.0.11 writes for a ring, as in src/mask/rle.rs.
    ring = r"f9n0n000000000\OWO5i0KWO5i0KWO5i0KWO5i0KWO5i0?0000000000000000000000000000VU1"
    return {
        "info": {"description": "made up", "year": 2014},
        "licenses": [{"id": 1, "name": "none"}],
        "images": [image(581857, 64, 48), image(98304, 50, 60), image(131074, 3, 2), image(30, 40, 40)],
        "annotations": [
            annotation(1719310, 581857, [10, 5, 25.5, 20], [[10, 5, 20, 5, 20, 25, 10, 25], [30, 10, 35.5, 10, 35.5, 20, 30, 20]]),
            annotation(1719311, 581857, [40, 30, 30, 30], [[40, 30, 70, 30, 70, 60, 40, 60]]),
            annotation(200, 98304, [0, 0, 2, 60], {"counts": [0, 120, 2880], "size": [60, 50]}, crowd=1),
            annotation(201, 98304, [5, 10, 25, 30], {"counts": ring, "size": [60, 50]}),
            annotation(202, 131074, [0, 0, 3, 2], [{"counts": "231", "size": [2, 3]}, {"counts": [0, 1, 5], "size": [2, 3]}]),
            annotation(203, 30, [1, 1, 8, 8], [[1, 1, 9, 1, 9, 9, 1, 9]]),
            # Damaged, but nobody refers to it.
            annotation(999, 30, [1, 1, 8, 8], [[1, 1, 9]]),
        ],
        "categories": [{"supercategory": "person", "id": 1, "name": "person"}],
    }


def grefcoco():
    def gref(ref_id, ann_ids, image_id, split, said):
        entry = ref(ref_id, 0, image_id, split, said)
        none = ann_ids == [-1]
        return entry | {"ann_id": ann_ids, "category_id": [-1] if none else [1] * len(ann_ids), "no_target": none}

    grefs = [
        gref(1, [1719310, 1719311], 581857, "train", sentences(0, ("both of them", "both of them"), ("all", "all"))),
        gref(2, [-1], 30, "train", sentences(2, ("the zebra", "the zebra"))),
        gref(3, [-1], 98304, "train", sentences(3, ("a boat", "a boat"))),
        gref(4, [203], 30, "testB", sentences(4, ("box", "box"))),
    ]
    write("grefcoco/grefs(unc).json", json.dumps(grefs))
    write("grefcoco/instances.json", json.dumps(instances()))


def flat_jpeg(width, height):
    """A grey JPEG: one bit says that a block's mean does not change, one that it has no detail."""

    def segment(marker, body):
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    blocks = -(-width // 8) * -(-height // 8)
    bits = "00" * blocks
    bits += "1" * (-len(bits) % 8)
    # One code of one bit, for the symbol 0, in both tables.
    table = bytes([1] + [0] * 15 + [0])
    return (
        b"\xff\xd8"
        + segment(0xDB, bytes([0] + [1] * 64))
        + segment(0xC0, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0))
        + segment(0xC4, b"\x00" + table)
        + segment(0xC4, b"\x10" + table)
        + segment(0xDA, bytes([1, 1, 0x00, 0, 63, 0]))
        + int(bits, 2).to_bytes(len(bits) // 8, "big")
        + b"\xff\xd9"
    )


def box(label, x1, y1, x2, y2, group=None):
    points = [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    return {
        "label": label, "labels": [label], "shape_type": "polygon", "image_name": "x.jpg", "points": points,
        "group_id": group, "group_ids": [group], "flags": {},
    }


def reasonseg():
    first = {
        "text": ["the thing that keeps rain away", "what would a walker carry on a wet day?"],
        "is_sentence": True,
        # The smaller shapes come first in the file and are painted last.
        "shapes": [
            box("ignore", 8.0, 8.0, 12.0, 12.0),
            box("target", 5.0, 5.0, 20.0, 20.0),
            box("target", 22.0, 5.0, 24.0, 7.0, group=1),
            box("target", 26.0, 5.0, 28.0, 7.0, group=1),
            box("flag", 0.0, 0.0, 30.0, 30.0),
        ],
    }
    write("reasonseg/train/1234_0a1b2c3d.json", json.dumps(first))
    write("reasonseg/train/1234_0a1b2c3d.jpg", flat_jpeg(32, 24))
    second = {"text": ["the chef’s hat"], "is_sentence": False, "shapes": [box("target", 1, 1, 3, 3)]}
    write("reasonseg/val/5678.json", json.dumps(second, ensure_ascii=False).encode("cp1252"))
    write("reasonseg/val/5678.jpg", flat_jpeg(9, 17))


def llava():
    def entry(entry_id, image, *values):
        turns = [{"from": ["human", "gpt"][i % 2], "value": value} for i, value in enumerate(values)]
        return {"id": entry_id, **({"image": image} if image else {}), "conversations": turns}

    entries = [
        entry("000000131074", "000000131074.jpg", "<image>\nWhat is this?", "Three pixels by two."),
        entry("000000000999", "coco/train2017/000000000999.jpg", "Where?\n<image>", "Here.", "Sure?", "Yes."),
        entry(77, "gqa/images/2354786.jpg", "<image>\nHow many?", "Two."),
        entry("text", None, "Hello", "Hello."),
    ]
    write("llava/llava_instruct.json", json.dumps(entries))


if __name__ == "__main__":
    pickles()
    refcoco()
    grefcoco()
    reasonseg()
    llava()
