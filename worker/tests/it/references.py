"""FOLDER INPUTS SHAPE

Runs each `N.onnx` of a folder on raw float32 inputs: on ONNX Runtime with its optimizations off and on, and with the ONNX standard's
reference evaluator on `N.standard.onnx`. Writes the raw outputs to `N.off`, `N.on` and `N.standard`; prints the operators that the optimized
graph of each has, as JSON.
"""

import json
import pathlib
import sys

import numpy
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

folder, inputs, shape = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
images = numpy.fromfile(inputs, dtype=numpy.float32).reshape([int(n) for n in shape.split(",")])
levels = onnxruntime.GraphOptimizationLevel
operators = {}
for standard in folder.glob("*.standard.onnx"):
    name = standard.name.removesuffix(".standard.onnx")
    path = str(folder / f"{name}.onnx")
    onnx.checker.check_model(path, full_check=True)
    for optimizations, level in (("off", levels.ORT_DISABLE_ALL), ("on", levels.ORT_ENABLE_ALL)):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = level
        options.optimized_model_filepath = path + ".optimized"
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (result,) = session.run(None, {session.get_inputs()[0].name: images})
        result.astype(numpy.float32).tofile(folder / f"{name}.{optimizations}")
    nodes = onnx.load(path + ".optimized").graph.node
    operators[name] = sorted({node.op_type for node in nodes})
    model = onnx.load(standard)
    (result,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: images})
    result.astype(numpy.float32).tofile(folder / f"{name}.standard")
print(json.dumps(operators))
