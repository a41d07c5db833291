"""`sam4mllm-train STAGE`: one stage of the recipe, for a number of minutes."""

from __future__ import annotations

import argparse

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["trunk", "sam", "features", "mllm", "blend", "export", "seed"])
    parser.add_argument("--binary", default="target/release/sam4mllm")
    parser.add_argument("--assets", default="engines/tabletop")
    parser.add_argument("--out", default="target/train")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--muon-lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0, help="first scene of the stream; go on where the last run stopped, 100,000 further for each worker")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, help="sam, mllm: scenes a step, default 4 and 8")
    parser.add_argument("--device", default="cpu", help="sam, mllm: where the model is trained, as cuda")
    parser.add_argument("--workers", type=int, default=0, help="sam, mllm where scenes are fresh: processes that render and pack them")
    parser.add_argument("--crop-share", type=float, default=0.35, help="part of the trunk stage spent on crops")
    parser.add_argument("--freeze-share", type=float, default=0.25, help="part of the sam stage with a frozen encoder")
    parser.add_argument("--zoom", type=float, nargs=2, metavar=("LOW", "HIGH"),
                        help="sam: views of single objects, so many times as long as the object")
    parser.add_argument("--resume", help="checkpoint of the same stage")
    parser.add_argument("--bundle", default="engines/tabletop", help="where export writes")
    parser.add_argument("--version", default="0.1.0", help="the bundle's version")
    parser.add_argument("--trunk", help="trunk checkpoint; default: trunk.pt in --out")
    features = parser.add_argument_group("features")
    features.add_argument("--scenes", type=int, default=10_000, help="how many to store")
    features.add_argument("--drafts", type=int, default=24, help="commands kept for each")
    blend = parser.add_argument_group("blend")
    blend.add_argument("--other", help="checkpoint that --resume went on from")
    blend.add_argument("--share", type=float, default=0.1, help="of its weights in the mean")
    mllm = parser.add_argument_group("mllm")
    mllm.add_argument("--phase", choices=["sparse", "tower", "full", "whole"], default="full")
    mllm.add_argument("--live", action="store_true", help="fresh scenes through the tower instead of stored features")
    mllm.add_argument("--tower", help="checkpoint whose tower and projector are taken instead")
    mllm.add_argument("--tower-rate", type=float, default=0.2, help="of the learning rates, for the tower")
    mllm.add_argument("--align-minutes", type=float, default=0)
    mllm.add_argument("--expressions", type=int, default=10, help="commands a scene")
    mllm.add_argument("--plain", type=float, default=0.1, help="share of bare names among them")
    mllm.add_argument("--exclusions", type=int, default=2, help="more commands to draw from, that say what is not meant")
    mllm.add_argument("--counts", type=int, default=0, help="more commands a scene that count from a side")
    mllm.add_argument("--ppg", type=float, default=0.0,
                      help="share of commands answered with points at once; with a share, export says that the bundle can")
    mllm.add_argument("--rounds", type=int, default=2, help="commands a scene that get a round 2")
    mllm.add_argument("--points", type=int, default=8, help="points of a round 2")
    mllm.add_argument("--looks", type=int, default=2, help="what-is-at questions a scene")
    mllm.add_argument("--general", type=int, default=0, help="general questions a scene, for a base that is tuned later")
    mllm.add_argument("--decay", type=float, default=0.35, help="last part of the run, in which the rate falls to zero")
    mllm.add_argument("--gaze", type=float, default=0.5, help="weight of the taught attention")
    mllm.add_argument("--align", type=float, default=0.2, help="weight of alignment while dialogue is trained")
    mllm.add_argument("--hard", action="store_true", help="coordinates count as right to the unit only")
    mllm.add_argument("--check-minutes", type=float, default=2.5)
    args = parser.parse_args()
    args.trunk = args.trunk or f"{args.out}/trunk.pt"
    args.batch = args.batch or (4 if args.stage == "sam" else 8)
    torch.set_num_threads(args.threads)
    if args.stage == "trunk":
        from . import trunk
        trunk.train(args)
    elif args.stage == "sam":
        from . import sam
        sam.train(args)
    elif args.stage == "mllm":
        from . import text
        text.train(args)
    elif args.stage == "features":
        from . import features
        features.run(args)
    elif args.stage == "blend":
        from . import blend
        blend.run(args)
    else:
        from . import export
        (export.run if args.stage == "export" else export.seed)(args)


if __name__ == "__main__":
    main()
