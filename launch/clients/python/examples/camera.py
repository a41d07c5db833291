"""Pictures in a folder as a camera: streams them to a node and says what it sees.

    python camera.py 127.0.0.1:50051 FOLDER "the mug" "the red book" --fps 15 --loop

Takes what `sam4mllm dataset clip FOLDER` writes (its own commands, where none are given), or any folder of JPEG, PNG or
WebP files. A line for each change of a verdict, and at the end how many frames were answered and how soon.
"""

import argparse
import itertools
import json
import pathlib
import threading
import time

import grpc
from sam4mllm import Client, Rejected

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def pictures(folder: pathlib.Path) -> list[bytes]:
    """The files in the order of their names."""
    inner = folder / "frames"
    names = sorted(p for p in (inner if inner.is_dir() else folder).iterdir() if p.suffix.lower() in SUFFIXES)
    if not names:
        raise SystemExit(f"{folder}: no JPEG, PNG or WebP files")
    return [p.read_bytes() for p in names]


def commands(folder: pathlib.Path, given: list[str]) -> dict[str, str]:
    """Targets by number: those given, else the clip's own."""
    clip = folder / "clip.json"
    if not given and clip.exists():
        given = [command["text"] for command in json.loads(clip.read_text())["commands"][:3]]
    if not given:
        raise SystemExit("give a command")
    return {str(i): text for i, text in enumerate(given)}


def film(stream, frames: list[bytes], fps: float, loop: bool, sent: dict[int, float]) -> None:
    """Sends frames at their times, late ones at once."""
    start = time.monotonic()
    for number, picture in enumerate(itertools.cycle(frames) if loop else frames):
        time.sleep(max(0.0, start + number / fps - time.monotonic()))
        now = time.monotonic()
        sent[stream.send(picture, stamp_ns=time.time_ns(), optical_frame="camera")] = now
    stream.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("command", nargs="*")
    parser.add_argument("--fps", type=float, default=15)
    parser.add_argument("--loop", action="store_true", help="go on until interrupted")
    args = parser.parse_args()
    frames, targets = pictures(args.folder), commands(args.folder, args.command)
    sent: dict[int, float] = {}
    delays: list[float] = []
    last: dict[str, str] = {}
    dropped: dict[str, int] = {}
    with Client(args.address) as client, client.stream(targets) as stream:
        camera = threading.Thread(target=film, args=(stream, frames, args.fps, args.loop, sent), daemon=True)
        camera.start()
        try:
            for answer in stream:
                if isinstance(answer, Rejected):
                    print(f"refused: {answer.error.code} {answer.error.message}", flush=True)
                    continue
                delays.append(time.monotonic() - sent[answer.seq])
                dropped = {drop.reason: drop.frames for drop in answer.dropped}
                for target_id, result in answer.targets.items():
                    if last.get(target_id) != result.verdict.name:
                        last[target_id] = result.verdict.name
                        boxes = [tuple(round(v) for v in vars(i.box).values()) for i in result.instances]
                        print(f"frame {answer.seq:5}  {result.verdict.name:9} {result.confidence:4.2f}  "
                              f"{targets[target_id]}  {boxes or ''}", flush=True)
        except KeyboardInterrupt:
            pass
        except grpc.RpcError as error:
            raise SystemExit(f"{error.code().name}: {error.details()}") from None
    delays.sort()
    at = lambda share: 1e3 * delays[int(share * (len(delays) - 1))]  # noqa: E731
    if delays:
        print(f"{len(delays)} of {len(sent)} frames answered, p50 {at(0.5):.0f} ms, p95 {at(0.95):.0f} ms, dropped {dropped}")


if __name__ == "__main__":
    main()
