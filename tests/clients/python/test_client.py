"""A client as a robotics team would write it: stubs from the proto, camera frames in, NumPy masks out.

Usage: test_client.py ADDRESS   (of a node that runs `serve --backend fake`, whose commands are colour words)
Exits with 0 and prints "passed: N checks", or fails with an assertion.
"""

import importlib
import io
import pathlib
import queue
import sys
import tempfile
import time

import grpc
import numpy as np
from grpc_tools import protoc
from PIL import Image

import scenes
from scenes import check, iou, jpeg, scene

PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto"
NAME = "sam4mllm/v1/perception.proto"
TIMEOUT_S = 30


def stubs(folder):
    """Generates the stubs into `folder` and imports them."""
    code = protoc.main(
        ["protoc", f"-I{PROTO}", f"--python_out={folder}", f"--grpc_python_out={folder}", NAME]
    )
    assert code == 0, "protoc failed"
    # An installed package of that name would be found before a folder that is none.
    (pathlib.Path(folder) / "sam4mllm/__init__.py").touch()
    sys.path.insert(0, folder)
    return (
        importlib.import_module("sam4mllm.v1.perception_pb2"),
        importlib.import_module("sam4mllm.v1.perception_pb2_grpc"),
    )


def decode_rle(mask):
    """COCO's compressed run lengths to bool[height, width], in NumPy alone."""
    counts, value, shift = [], 0, 0
    for char in mask.coco_rle.encode():
        chunk = char - 48
        value |= (chunk & 0x1F) << shift
        shift += 5
        if chunk & 0x20:
            continue
        if chunk & 0x10:
            value |= -1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape((mask.width, mask.height)).T


class Stream:
    """One Perceive call; requests go through a queue."""

    def __init__(self, stub, pb):
        self.pb, self.requests, self.seq = pb, queue.Queue(), 0
        self.replies = stub.Perceive(iter(self.requests.get, None), timeout=TIMEOUT_S)

    def send(self, **request):
        self.requests.put(self.pb.PerceiveRequest(**request))

    def show(self, rgb, **options):
        """Sends a frame and returns its reply."""
        self.seq += 1
        frame = self.pb.Frame(
            seq=self.seq, stamp_ns=self.seq * 10**9, optical_frame="cam", encoding="jpeg", data=jpeg(rgb)
        )
        self.send(frame=frame, options=self.pb.Options(**options))
        reply = next(self.replies).frame
        check((reply.seq, reply.stamp_ns) == (self.seq, self.seq * 10**9), "echoed")
        return {target.target_id: target for target in reply.targets}, reply

    def until(self, rgb, target_id, verdict):
        """Shows the frame until the target has the verdict; the call's timeout bounds it."""
        while True:
            targets, _ = self.show(rgb)
            if targets[target_id].verdict == verdict:
                return targets[target_id]


def check_unary(stub, pb):
    rgb, truths = scene([((205, 25, 35), 90, 70, 60), ((25, 45, 200), 220, 150, 50)])
    for command, verdict in [("the red box", pb.VERDICT_FOUND), ("the green box", pb.VERDICT_ABSENT)]:
        reply = stub.Segment(
            pb.SegmentRequest(frame=pb.Frame(seq=1, encoding="jpeg", data=jpeg(rgb)), command=command),
            timeout=TIMEOUT_S,
        )
        check(reply.result.verdict == verdict, command)
    height, width, _ = rgb.shape
    raw = pb.Frame(seq=1, encoding="bgr8", width=width, height=height, step=3 * width, data=rgb[..., ::-1].tobytes())
    reply = stub.Segment(pb.SegmentRequest(frame=raw, command="blue"), timeout=TIMEOUT_S)
    check(np.array_equal(decode_rle(reply.result.instances[0].mask), truths[1]), "a raw frame's mask is exact")
    try:
        stub.Segment(pb.SegmentRequest(frame=pb.Frame(encoding="jpeg", data=b"no"), command="red"), timeout=TIMEOUT_S)
        raise AssertionError("a bad image was accepted")
    except grpc.RpcError as error:
        check(error.code() == grpc.StatusCode.INVALID_ARGUMENT, error)


def check_strategies(stub, pb, about):
    check(list(about.strategies) == [pb.STRATEGY_BOX, pb.STRATEGY_PQPP], about)
    check(about.default_strategy == pb.STRATEGY_PQPP, about)
    rgb, _ = scene([((205, 25, 35), 90, 70, 60)])
    request = pb.SegmentRequest(frame=pb.Frame(seq=1, encoding="jpeg", data=jpeg(rgb)), command="red")
    request.options.evidence = True
    request.strategy = pb.STRATEGY_BOX
    result = stub.Segment(request, timeout=TIMEOUT_S).result
    check(result.evidence.strategy == pb.STRATEGY_BOX, "the strategy that was asked for")
    check(len(result.instances[0].evidence.points) == 0, "the box alone")
    request.strategy = pb.STRATEGY_PPG
    try:
        stub.Segment(request, timeout=TIMEOUT_S)
        raise AssertionError("a strategy that was not taught was accepted")
    except grpc.RpcError as error:
        check(error.code() == grpc.StatusCode.FAILED_PRECONDITION, error)


def check_stream(stub, pb):
    red, blue = (205, 25, 35), (25, 45, 200)
    stream = Stream(stub, pb)
    stream.send(set_targets=pb.SetTargets(targets=[pb.Target(target_id="r", command="the red box")]))
    rgb, truths = scene([(red, 60, 70, 60), (blue, 220, 150, 50)])
    targets, _ = stream.show(rgb)
    check(targets["r"].verdict == pb.VERDICT_PENDING, "pending first")
    found = stream.until(rgb, "r", pb.VERDICT_FOUND)
    identity = found.instances[0].instance_id
    check(iou(decode_rle(found.instances[0].mask), truths[0]) > 0.95, "the red mask")

    stream.send(add_target=pb.Target(target_id="b", command="blue"))
    stream.until(rgb, "b", pb.VERDICT_FOUND)
    for step in range(1, 8):
        rgb, truths = scene([(red, 60 + 5 * step, 70, 60), (blue, 220, 150, 50)])
        targets, reply = stream.show(rgb, evidence=True)
        instance = targets["r"].instances[0]
        check(instance.instance_id == identity, "a stable id")
        check(instance.origin == pb.ORIGIN_TRACKED, "tracked")
        check(iou(decode_rle(instance.mask), truths[0]) > 0.95, f"step {step}")
        check(len(instance.evidence.points) == 25 and targets["r"].evidence.answer, "evidence")
        ys, xs = np.nonzero(decode_rle(instance.mask))
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        check((instance.box.x1, instance.box.y1, instance.box.x2, instance.box.y2) == box, "a tight box")

    targets, _ = stream.show(rgb, mask_format=pb.MASK_FORMAT_PNG)
    png = np.asarray(Image.open(io.BytesIO(targets["r"].instances[0].mask.png)))
    check(np.array_equal(png == 255, decode_rle(instance.mask)), "PNG equals run lengths")

    stream.seq += 1
    stream.send(frame=pb.Frame(seq=stream.seq, encoding="jpeg", data=jpeg(rgb)[:500]))
    rejected = next(stream.replies).rejected
    check((rejected.seq, rejected.error.code) == (stream.seq, pb.ERROR_CODE_FRAME_DATA), "a truncated JPEG")

    stream.send(remove_target=pb.RemoveTarget(target_id="r"))
    targets, reply = stream.show(rgb)
    check(list(targets) == ["b"], "removed")
    counters = reply.counters
    check(counters.received == counters.answered + sum(d.frames for d in counters.dropped), "counts add up")
    stream.requests.put(None)
    check(next(stream.replies, None) is None, "the stream ends well")


def main():
    with tempfile.TemporaryDirectory() as folder, grpc.insecure_channel(sys.argv[1]) as channel:
        pb, pb_grpc = stubs(folder)
        grpc.channel_ready_future(channel).result(timeout=TIMEOUT_S)
        stub = pb_grpc.PerceptionStub(channel)
        deadline = time.monotonic() + TIMEOUT_S
        while not (about := stub.Describe(pb.DescribeRequest(), timeout=TIMEOUT_S)).ready:
            assert time.monotonic() < deadline, "the node is not ready"
        check(about.backend == "fake" and "jpeg" in about.encodings, about)
        check_unary(stub, pb)
        check_strategies(stub, pb, about)
        check_stream(stub, pb)
    print(f"passed: {scenes.checks} checks")


if __name__ == "__main__":
    main()
