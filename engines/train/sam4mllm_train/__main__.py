"""`sam4mllm-train STAGE`: one stage of the recipe, for a number of minutes."""

from __future__ import annotations

import argparse

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["trunk", "sam", "mllm", "export", "seed"])
    parser.add_argument("--binary", default="target/release/sam4mllm")
    parser.add_argument("--assets", default="engines/tabletop")
    parser.add_argument("--out", default="target/train")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--muon-lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="first scene of the stream; go on where the last run stopped")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--crop-share", type=float, default=0.35, help="part of the trunk stage spent on crops")
    parser.add_argument("--freeze-share", type=float, default=0.25, help="part of the sam stage with a frozen encoder")
    parser.add_argument("--align-minutes", type=float, default=4)
    parser.add_argument("--expressions", type=int, default=8, help="commands a scene in the mllm stage")
    parser.add_argument("--rounds", type=int, default=3, help="commands a scene that get a round 2")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--points", type=int, default=6, help="points of a round 2")
    parser.add_argument("--looks", type=int, default=4, help="what-is-at questions a scene")
    parser.add_argument("--replay", type=int, default=6000, help="scenes kept with the trunk's features of them")
    parser.add_argument("--sparse-share", type=float, default=0.4, help="part of the text stage with few image tokens")
    parser.add_argument("--resume", help="checkpoint of the same stage")
    parser.add_argument("--bundle", default="engines/tabletop", help="where export writes")
    parser.add_argument("--version", default="0.1.0", help="the bundle's version")
    parser.add_argument("--trunk", help="trunk checkpoint; default: trunk.pt in --out")
    parser.add_argument("--plain-share", type=float, default=0.2, help="part of the text stage with bare names only")
    parser.add_argument("--fresh-decoder", action="store_true", help="mllm: resume what is aligned, start the decoder anew")
    args = parser.parse_args()
    args.trunk = args.trunk or f"{args.out}/trunk.pt"
    torch.set_num_threads(args.threads)
    if args.stage == "trunk":
        from . import trunk
        trunk.train(args)
    elif args.stage == "sam":
        from . import sam
        sam.train(args)
    elif args.stage == "mllm":
        from . import mllm
        mllm.train(args)
    else:
        from . import export
        (export.run if args.stage == "export" else export.seed)(args)


if __name__ == "__main__":
    main()
