"""How many samples of two evaluations are answered otherwise.

    sam4mllm eval engines/tabletop --scenes 200 -o a.json
    sam4mllm eval /tmp/bundle --scenes 200 -o b.json
    python tests/reference/compare_records.py a.records.jsonl b.records.jsonl

Prints, for each variant, samples, changed verdicts, and masks whose IoU with the truth moved by more than 0.05.
"""

import json
import sys


def read(path):
    with open(path, encoding="utf-8") as lines:
        header, *records = map(json.loads, lines)
    return header["variants"], {(r["picture"], r["sample"]): r["answers"] for r in records}


def iou(answer):
    score = answer["score"]
    return score["intersection"] / score["union"] if score["union"] else 1.0


def main():
    (names, before), (others, after) = map(read, sys.argv[1:3])
    assert names == others and before.keys() == after.keys(), "not the same samples"
    for i, name in enumerate(names):
        pairs = [(before[key][i], after[key][i]) for key in before]
        verdicts = sum(a["verdict"] != b["verdict"] for a, b in pairs)
        masks = sum(abs(iou(a) - iou(b)) > 0.05 for a, b in pairs)
        print(f"{name}: {len(pairs)} samples, {verdicts} verdicts and {masks} IoUs changed")


if __name__ == "__main__":
    main()
