"""Holds dialogues written for TRL against `transformers`: the chat template beside them, the loss mask, the counts.

    python tests/reference/check_dialogues.py FOLDER TOKENIZER_FOLDER --image-tokens 256

Needs `transformers` with `jinja2`. Exits with 1 where a conversation is too long, or where what the mask marks is not
what the assistant says.
"""

import argparse
import json
import pathlib
import sys

from transformers import PreTrainedTokenizerFast


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("tokenizer", type=pathlib.Path)
    parser.add_argument("--image-tokens", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, default=1536)
    args = parser.parse_args()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(args.tokenizer / "tokenizer.json"))
    tokenizer.chat_template = (args.folder / "chat_template.jinja").read_text(encoding="utf-8")
    probe = tokenizer.apply_chat_template([{"role": "assistant", "content": "@@"}], tokenize=False)
    end = probe.rpartition("@@")[2]
    lengths, trained = [], 0
    with open(args.folder / "dialogues.jsonl", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            record = json.loads(line)
            said = tokenizer.apply_chat_template(
                record["messages"], return_dict=True, return_assistant_tokens_mask=True)
            mask, ids = said["assistant_masks"], said["input_ids"]
            marked = [t for t, m in zip(ids, mask) if m]
            answers = [p["text"] for m in record["messages"] if m["role"] == "assistant" for p in m["content"]]
            expected = [t for a in answers for t in tokenizer(a + end, add_special_tokens=False)["input_ids"]]
            if marked != expected:
                print(f"line {number}: the mask marks {tokenizer.decode(marked)!r}, not {tokenizer.decode(expected)!r}")
                return 1
            lengths.append(len(ids) - 1 + args.image_tokens)
            trained += len(marked)
    print(f"{len(lengths)} conversations, {sum(lengths)} tokens, at most {max(lengths)}, {trained} trained")
    return int(max(lengths) > args.max_tokens)


if __name__ == "__main__":
    sys.exit(main())
