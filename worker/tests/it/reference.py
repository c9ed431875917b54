"""MODEL INPUTS SHAPE OUTPUTS

Runs a model on raw float32 inputs with the ONNX standard's reference evaluator; writes the raw outputs.
"""

import sys

import numpy
import onnx
from onnx.reference import ReferenceEvaluator

path, inputs, shape, outputs = sys.argv[1:]
model = onnx.load(path)
onnx.checker.check_model(model, full_check=True)
images = numpy.fromfile(inputs, dtype=numpy.float32).reshape([int(n) for n in shape.split(",")])
(result,) = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: images})
result.astype(numpy.float32).tofile(outputs)
