"""A copy of a bundle whose language model has the weights that an import in few bits computes with, as 32-bit floats.

    sam4mllm engine import engines/tabletop --precision int4 -o /tmp/int4
    python tests/reference/dequantise.py engines/tabletop /tmp/int4 /tmp/bundle
    sam4mllm engine seal /tmp/bundle && sam4mllm eval /tmp/bundle

rten computes with floats alone; with these weights its answers are those of the quantised graph with 32-bit activations.
A quantised weight is the whole number times its scale, rounded to 16 bits, as ONNX has `DequantizeLinear` with 16-bit
scales. For an import in fp16, every weight of the decoder's products is rounded to 16 bits.

Needs: onnx, numpy, safetensors.
"""

import pathlib
import shutil
import sys

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.numpy import save_file


def quantised(folder):
    """Names and values, `[out, in]`, of the matrices that the decoder's graph dequantises."""
    graph = onnx.load(folder / "mllm" / "decoder.onnx", load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}

    def read(name):
        tensor = onnx.TensorProto()
        tensor.CopyFrom(tensors[name])
        place = {entry.key: entry.value for entry in tensor.external_data}
        with open(folder / "mllm" / place["location"], "rb") as file:
            file.seek(int(place["offset"]))
            data = file.read(int(place["length"]))
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
        tensor.raw_data = data
        return numpy_helper.to_array(tensor).astype(np.float16)

    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            numbers, scales = read(node.input[0]), read(node.input[1])
            block = next((a.i for a in node.attribute if a.name == "block_size"), None)
            scales = np.repeat(scales, block, axis=0) if block else scales[None, :]
            yield node.input[0], (numbers * scales).astype(np.float32).T


def main():
    bundle, folder, out = (pathlib.Path(path) for path in sys.argv[1:4])
    shutil.copytree(bundle, out)
    changed, count, square, size = dict(quantised(folder)), 0, 0.0, 0.0
    for path in (out / "mllm").glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        for name in tensors:
            # Norms and tables stay: no product reads them as they are.
            halved = not changed and tensors[name].ndim == 2
            if name in changed or halved:
                new = changed[name] if name in changed else tensors[name].astype(np.float16).astype(np.float32)
                assert new.shape == tensors[name].shape, name
                square += float(((new - tensors[name]).astype(np.float64) ** 2).sum())
                size += float((tensors[name].astype(np.float64) ** 2).sum())
                tensors[name], count = np.ascontiguousarray(new), count + 1
        save_file(tensors, path, metadata={"format": "pt"})
    assert count >= len(changed) > 0 or not changed, "a matrix is in no file"
    print(f"{count} matrices, error {(square / size) ** 0.5:.2e} of their root mean square")


if __name__ == "__main__":
    main()
