"""Exports Paddle's networks with random weights by its own exporter, one after the other, and what ONNX Runtime makes of
them.

    python paddle_export.py FOLDER [NAME…]

FOLDER/model.onnx and FOLDER/case.npz with the arrays `input`, `output_0` and `weights` (how many elements the kernels of
all layers have); a line `NAME paddle2onnx OPSET` on standard output, then a line is awaited on standard input before the
next files take their place.
"""

import os
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import paddle

# Name, opset, and the side of the input.
NETWORKS = (
    ("mobilenet_v2", 11, 64), ("mobilenet_v2", 16, 64), ("mobilenet_v3_small", 13, 64), ("mobilenet_v1", 12, 64),
    ("resnet18", 17, 64), ("resnext50_32x4d", 15, 64), ("densenet121", 13, 64), ("squeezenet1_1", 14, 64),
    ("shufflenet_v2_x0_5", 13, 64), ("inception_v3", 18, 96),
)


def build(name):
    paddle.seed(0)
    network = getattr(paddle.vision.models, name)(num_classes=10)
    draw = np.random.default_rng(0)
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            # As after a training: otherwise it would be no work to fold them.
            for tensor, low, high in (
                (layer.weight, 0.8, 1.2), (layer.bias, -0.2, 0.2), (layer._mean, -0.2, 0.2), (layer._variance, 0.5, 1.5),
            ):
                tensor.set_value(draw.uniform(low, high, tensor.shape).astype(np.float32))
    network.eval()
    return network


class OneOutput(paddle.nn.Layer):
    """The logits of networks that return several values."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        made = self.network(x)
        return made[0] if isinstance(made, (list, tuple)) else made


def main(folder, names):
    warnings.simplefilter("ignore")
    # What the exporter prints is no line of ours.
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for name, opset, side in NETWORKS:
        if names and name not in names:
            continue
        network = OneOutput(build(name))
        network.eval()
        spec = [paddle.static.InputSpec([-1, 3, side, side], "float32", "input")]
        paddle.onnx.export(network, str(folder / "model"), spec, opset_version=opset)
        x = np.random.default_rng(0).normal(0, 1, (2, 3, side, side)).astype(np.float32)
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
        made = session.run(None, {session.get_inputs()[0].name: x})
        kernels = [p for p in network.parameters() if len(p.shape) > 1]
        weights = np.array(sum(int(np.prod(kernel.shape)) for kernel in kernels))
        np.savez(folder / "case.npz", input=x, weights=weights, output_0=made[0])
        print(name, "paddle2onnx", opset, file=lines, flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
