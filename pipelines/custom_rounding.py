"""Rounding of one's own: reads a model with Q/DQ pairs, rounds its weights otherwise, writes it. Needs `onnx`.

The form is that of docs/ranges.md, "Rounding of your own": weights stand in float before their pairs, and a weight that is a multiple
of its scale is what the pair gives. The rule here is that of the channel in SQuant (https://arxiv.org/abs/2202.07471), without data:
of each output channel, as many weights are rounded the other way as it takes for their errors to sum to less than half a step.
"""

import os

import numpy
import onnx
from onnx import TensorProto, numpy_helper

LIMITS = {TensorProto.INT8: (-128, 127), TensorProto.INT4: (-8, 7)}


def channel_axis(node, rank):
    """The axis of the output channels in the weight of a layer; None: not handled."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    return {"Conv": 0, "Gemm": 0 if attributes.get("transB") else 1, "MatMul": rank - 1}.get(node.op_type)


def rounded(weight, scale, limits):
    """Whole numbers for a weight of shape [channels, rest]; how many were rounded the other way."""
    steps = weight / scale
    whole = numpy.clip(numpy.rint(steps), *limits)
    flips = 0
    for channel, (row, exact) in enumerate(zip(whole, steps)):
        error = row - exact
        total = error.sum()
        count = int(numpy.rint(abs(total)))
        # Those nearest to the middle between two steps cost least; what was clipped has no other way.
        ways = numpy.where((numpy.sign(error) == numpy.sign(total)) & (abs(error) < 0.5), abs(error), -1.0)
        chosen = numpy.argsort(-ways, kind="stable")[:count]
        chosen = chosen[ways[chosen] > 0]
        whole[channel, chosen] = numpy.clip(row[chosen] - numpy.sign(total), *limits)
        flips += len(chosen)
    return whole, flips


def main():
    model = onnx.load(os.environ["QPIPE_IN_MODEL"])
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    flips = weights = 0
    for layer in graph.node:
        dequantize = producers.get(layer.input[1]) if len(layer.input) > 1 else None
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        quantize = producers.get(dequantize.input[0])
        if quantize is None or quantize.input[0] not in constants:
            continue
        stored = constants[quantize.input[0]]
        weight = numpy_helper.to_array(stored).astype(numpy.float64)
        axis = channel_axis(layer, weight.ndim)
        scale = numpy_helper.to_array(constants[quantize.input[1]]).astype(numpy.float64)
        zero = constants[quantize.input[2]]
        if axis is None or zero.data_type not in LIMITS or numpy_helper.to_array(zero).astype(int).any():
            continue
        rows = numpy.moveaxis(weight, axis, 0)
        shape = rows.shape
        rows = rows.reshape(shape[0], -1)
        own = scale.reshape(-1, 1) if scale.size == shape[0] else scale.reshape(1, 1)
        whole, count = rounded(rows, own, LIMITS[zero.data_type])
        made = numpy.moveaxis((whole * own).reshape(shape), 0, axis).astype(numpy.float32)
        stored.CopyFrom(numpy_helper.from_array(numpy.ascontiguousarray(made), stored.name))
        flips, weights = flips + count, weights + weight.size
    onnx.save(model, os.environ["QPIPE_OUT_MODEL"])
    print(f"{flips} of {weights} weights rounded the other way")


if __name__ == "__main__":
    main()
