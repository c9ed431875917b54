"""MODEL INPUTS SHAPE OUTPUTS off|on

Checks a model and runs it on raw float32 inputs, graph optimizations off or on; writes the raw
outputs and prints the count of each operator of the graph that was run, as JSON.
"""

import collections
import json
import sys

import numpy
import onnx
import onnxruntime

path, inputs, shape, outputs, optimizations = sys.argv[1:]
onnx.checker.check_model(path, full_check=True)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
options.log_severity_level = 3
levels = onnxruntime.GraphOptimizationLevel
options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimizations == "on" else levels.ORT_DISABLE_ALL
options.optimized_model_filepath = path + ".optimized"
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
images = numpy.fromfile(inputs, dtype=numpy.float32).reshape([int(n) for n in shape.split(",")])
(result,) = session.run(None, {session.get_inputs()[0].name: images})
result.astype(numpy.float32).tofile(outputs)
graph = onnx.load(path + ".optimized", load_external_data=False).graph
print(json.dumps(collections.Counter(node.op_type for node in graph.node)))
