"""The package in launch/clients/python, as a robotics team would use it, against a node.

Usage: test_package.py ADDRESS   (of a node that runs `serve --backend fake`, whose commands are colour words)
Exits with 0 and prints "passed: N checks", or fails with an assertion.
"""

import asyncio
import sys

import grpc
import numpy as np
import scenes
from sam4mllm import (
    Answer,
    AsyncClient,
    Camera,
    Client,
    CountHint,
    Depth,
    FrameError,
    FrameResult,
    NodeError,
    Options,
    Origin,
    PointLabel,
    Raw,
    Rejected,
    Strategy,
    Target,
    Verdict,
)
from sam4mllm.results import decode_rle
from scenes import BLUE, RED, check, iou, jpeg, scene

TIMEOUT_S = 30
CAMERA = Camera(fx=300.0, fy=300.0, cx=160.0, cy=120.0)


def refused(error, call):
    try:
        call()
    except error as refusal:
        return refusal
    raise AssertionError(f"not refused with {error.__name__}")


def check_pictures(client):
    """Every way to give a picture leads to the same mask."""
    rgb, truths = scene([(RED, 90, 70, 60), (BLUE, 220, 150, 50)])
    wide = np.zeros((240, 640, 3), np.uint8)
    wide[:, ::2] = rgb
    ways = {
        "rgb8": (rgb, None),
        "bgr8": (rgb[..., ::-1], "bgr8"),
        "rgba8": (np.dstack([rgb, np.full(rgb.shape[:2], 9, np.uint8)]), None),
        "strides": (wide[:, ::2], None),
    }
    for name, (image, encoding) in ways.items():
        result = client.segment(image, "the blue box", encoding=encoding, timeout_s=TIMEOUT_S)
        check(result.verdict is Verdict.FOUND and np.array_equal(result.mask, truths[1]), name)
    result = client.segment(jpeg(rgb), "the blue box", timeout_s=TIMEOUT_S)
    check(iou(result.mask, truths[1]) > 0.95, "jpeg")
    rows = np.full((240, 3 * 320 + 64), 9, np.uint8)
    rows[:, : 3 * 320] = rgb[..., ::-1].reshape(240, -1)
    result = client.segment(Raw(rows.tobytes(), "bgr8", 320, 240, 3 * 320 + 64), "the blue box", timeout_s=TIMEOUT_S)
    check(np.array_equal(result.mask, truths[1]), "raw, with padded rows")
    for image in (np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.float32), b"no picture"):
        refused(FrameError, lambda image=image: client.segment(image, "red"))
    refused(FrameError, lambda: client.segment(rgb, "red", encoding="rgba8"))


def check_answers(client):
    rgb, truths = scene([(RED, 90, 70, 60), (RED, 220, 150, 50)])
    result = client.segment(rgb, "red", hint=CountHint.ONE, strategy=Strategy.BOX, evidence=True, timeout_s=TIMEOUT_S)
    check(result.verdict is Verdict.AMBIGUOUS and result.mask is None, "two where one was asked for")
    result = client.segment(rgb, "red", evidence=True, timeout_s=TIMEOUT_S)
    check(np.array_equal(result.mask, truths[0] | truths[1]), "both")
    check(result.evidence.passes > 0 and result.evidence.answer, "the model's own words")
    first = result.instances[0]
    check({p.label for p in first.points} >= {PointLabel.ON} and 0 < first.confidence <= 1, "points and confidence")
    result = client.segment(rgb, "green", timeout_s=TIMEOUT_S)
    check(result.verdict is Verdict.ABSENT and result.mask is None and not result.instances, "not there")
    depth = Depth(np.full(rgb.shape[:2], 1500, np.uint16))
    position = client.segment(rgb, "red", depth=depth, camera=CAMERA, timeout_s=TIMEOUT_S).instances[0].position
    check(abs(position.centroid[2] - 1.5) < 1e-3 and position.depth_pixels > 1000, position)
    refusal = refused(grpc.RpcError, lambda: client.segment(b"\xff\xd8" + bytes(60), "red", timeout_s=TIMEOUT_S))
    check(refusal.code() == grpc.StatusCode.INVALID_ARGUMENT, refusal)
    refused(ValueError, lambda: decode_rle("0", 4, 4))


def shown(stream, image, **known):
    """Sends a frame and returns its answer."""
    seq = stream.send(image, **known)
    answer = next(stream)
    check(answer.seq == seq, "the answer to this frame")
    return answer


def check_stream(client):
    rgb, truths = scene([(RED, 60, 70, 60), (BLUE, 220, 150, 50)])
    with client.stream({"r": "the red box"}, timeout_s=TIMEOUT_S) as stream:
        answer = shown(stream, rgb, stamp_ns=7, optical_frame="cam")
        check((answer.stamp_ns, answer.optical_frame) == (7, "cam"), "echoed")
        check(answer.provenance.engine == "fake" and answer.sent_ns >= answer.received_ns > 0, "stamped")
        while answer.targets["r"].verdict is Verdict.PENDING:
            answer = shown(stream, rgb)
        identity = answer.targets["r"].instances[0].instance_id
        stream.add_target(Target("b", "blue", hint=CountHint.ONE))
        for step in range(1, 6):
            rgb, truths = scene([(RED, 60 + 5 * step, 70, 60), (BLUE, 220, 150, 50)])
            answer = shown(stream, rgb, encoding="rgb8", options=Options(evidence=True))
            instance = answer.targets["r"].instances[0]
            check(instance.instance_id == identity and instance.origin is Origin.TRACKED, "followed")
            check(iou(instance.mask, truths[0]) > 0.95, f"step {step}")
        check(list(answer.targets) == ["r", "b"], "in their order")
        stream.send(b"\xff\xd8" + bytes(60))
        rejected = next(stream)
        check(isinstance(rejected, Rejected) and isinstance(rejected.error, NodeError), "refused, and the stream goes on")
        check(rejected.error.code in ("FRAME_DATA", "FRAME_ENCODING"), rejected)
        stream.rename_target("r", "red")
        check(shown(stream, rgb).targets["red"].instances[0].instance_id == identity, "renamed")
        stream.pause_target("red")
        check(shown(stream, rgb).targets["red"].verdict is Verdict.PAUSED, "paused")
        stream.resume_target("red")
        while (answer := shown(stream, rgb)).targets["red"].verdict is not Verdict.FOUND:
            pass
        check(answer.targets["red"].instances[0].instance_id == identity, "back from a pause")
        stream.ask("q", "the green box")
        question = next(stream)
        check(isinstance(question, Answer) and question.question_id == "q", question)
        check(question.result.verdict is Verdict.ABSENT and question.seq == answer.seq, "asked once")
        stream.reground_target("red")
        stream.remove_target("red")
        check(list(shown(stream, rgb).targets) == ["b"], "removed")
        stream.close()
        check(list(stream) == [], "ended")


async def check_async(address):
    rgb, truths = scene([(RED, 60, 70, 60)])
    async with AsyncClient(address) as client:
        await client.wait_ready(TIMEOUT_S)
        check((await client.describe()).backend == "fake", "described")
        result = await client.segment(rgb, "red", timeout_s=TIMEOUT_S)
        check(np.array_equal(result.mask, truths[0]), "async")
        async with await client.stream([Target("r", "red")], timeout_s=TIMEOUT_S) as stream:
            answers = aiter(stream)
            verdict = Verdict.PENDING
            while verdict is Verdict.PENDING:
                await stream.send(rgb)
                answer = await anext(answers)
                assert isinstance(answer, FrameResult)
                verdict = answer.targets["r"].verdict
            check(verdict is Verdict.FOUND, "found")
            await stream.close()


def main():
    address = sys.argv[1]
    with Client(address) as client:
        client.wait_ready(TIMEOUT_S)
        check_pictures(client)
        check_answers(client)
        check_stream(client)
    asyncio.run(check_async(address))
    print(f"passed: {scenes.checks} checks")


if __name__ == "__main__":
    main()
