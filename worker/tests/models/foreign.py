"""Models as strangers bring them: quantized by onnxruntime.quantization in all of its forms, in float16, with operators that are not executed.

Usage: foreign.py FOLDER. Writes NAME.onnx each."""

import logging
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16

logging.disable(logging.ERROR)
FOLDER = Path(sys.argv[1])
DRAWN = np.random.default_rng(0)


def weight(name, *shape):
    return numpy_helper.from_array((DRAWN.normal(size=shape) * 0.3).astype(np.float32), name)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def path(name):
    return str(FOLDER / f"{name}.onnx")


def write(name, nodes, inputs, outputs, weights, opset=17):
    graph = helper.make_graph(nodes, name, inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 10
    onnx.save(model, path(name))


class Images(CalibrationDataReader):
    def __init__(self, shape):
        draw = lambda: {"x": DRAWN.normal(size=shape).astype(np.float32)}
        self.images = iter([draw() for _ in range(4)])

    def get_next(self):
        return next(self.images, None)


write(
    "float",
    [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["a"], "add"),
        helper.make_node("GlobalAveragePool", ["a"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "fc", transB=1),
    ],
    [value("x", ["n", 3, 8, 8])],
    [value("y", ["n", 10])],
    [weight("w1", 8, 3, 3, 3), weight("b1", 8), weight("w2", 8, 8, 3, 3), weight("b2", 8), weight("w3", 10, 8), weight("b3", 10)],
)
write(
    "linear",
    [
        helper.make_node("MatMul", ["x", "w1"], ["m"], "mm1"),
        helper.make_node("Relu", ["m"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], "mm2"),
    ],
    [value("x", ["n", 64])],
    [value("y", ["n", 64])],
    [weight("w1", 64, 64), weight("w2", 64, 64)],
    opset=21,
)
write(
    "lstm",
    [
        helper.make_node("LSTM", ["x", "w", "r"], ["h"], "lstm1", hidden_size=8),
        helper.make_node("Squeeze", ["h", "axis"], ["s"], "squeeze"),
        helper.make_node("MatMul", ["s", "fw"], ["y"], "fc"),
    ],
    [value("x", [4, "n", 6])],
    [value("y", [4, "n", 5])],
    [weight("w", 1, 32, 6), weight("r", 1, 32, 8), numpy_helper.from_array(np.array([1]), "axis"), weight("fw", 8, 5)],
)
branch = helper.make_graph(
    [helper.make_node("MatMul", ["x", "wi"], ["t"], "inner")], "then", [], [value("t", ["n", 4])], [weight("wi", 4, 4)]
)
other = helper.make_graph([helper.make_node("Identity", ["x"], ["e"], "same")], "else", [], [value("e", ["n", 4])])
write(
    "branches",
    [
        helper.make_node("ReduceSum", ["x"], ["s"], "sum", keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"], "greater"),
        helper.make_node("If", ["c"], ["y"], "if", then_branch=branch, else_branch=other),
    ],
    [value("x", ["n", 4])],
    [value("y", ["n", 4])],
    [numpy_helper.from_array(np.float32(0), "zero")],
)
write(
    "two",
    [helper.make_node("MatMul", ["a", "w"], ["m"], "mm"), helper.make_node("Add", ["m", "b"], ["y"], "add")],
    [value("a", ["n", 4]), value("b", ["n", 4])],
    [value("y", ["n", 4])],
    [weight("w", 4, 4)],
)
write(
    "text",
    [helper.make_node("MatMul", ["x", "w"], ["y"], "mm"), helper.make_node("Identity", ["s"], ["t"], "same")],
    [value("x", ["n", 4]), value("s", ["n"], TensorProto.STRING)],
    [value("y", ["n", 4]), value("t", ["n"], TensorProto.STRING)],
    [weight("w", 4, 4)],
)

for form in (QuantFormat.QDQ, QuantFormat.QOperator):
    for channels in (False, True):
        quantize_static(
            path("float"),
            path(f"{form.name}_{'channels' if channels else 'tensor'}"),
            Images((1, 3, 8, 8)),
            quant_format=form,
            per_channel=channels,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
quantize_static(
    path("linear"),
    path("int16"),
    Images((2, 64)),
    per_channel=True,
    activation_type=QuantType.QInt16,
    extra_options={"ActivationSymmetric": True},
)
for name in ("float", "linear", "lstm"):
    quantize_dynamic(path(name), path(f"dynamic_{name}"), weight_type=QuantType.QInt8)
quantize_dynamic(
    path("branches"), path("dynamic_branches"), weight_type=QuantType.QInt8, extra_options={"EnableSubgraph": True}
)
for form in (QuantFormat.QDQ, QuantFormat.QOperator):
    quantizer = MatMulNBitsQuantizer(onnx.load(path("linear")), block_size=32, is_symmetric=True, bits=4, quant_format=form)
    quantizer.process()
    quantizer.model.save_model_to_file(path(f"nbits_{form.name}"))
# It appends the Cast of the input behind all other nodes.
onnx.save(convert_float_to_float16(onnx.load(path("float")), keep_io_types=True), path("half_inside"))
onnx.save(convert_float_to_float16(onnx.load(path("float")), keep_io_types=False), path("half"))
