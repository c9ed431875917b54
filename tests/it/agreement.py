"""MODEL SIMULATION ENGINE IMAGES LABELS

Runs an exported model over the Fashion-MNIST test images in Python's onnxruntime, graph optimizations off and
on, and compares with the logits that qpipe's simulation (libtorch) and its engine gave. Prints JSON.
"""

import gzip
import json
import sys

import numpy
import onnx
import onnxruntime

model, simulation, engine, images, labels = sys.argv[1:]
onnx.checker.check_model(model, full_check=True)
pixels = numpy.frombuffer(gzip.open(images).read(), numpy.uint8, offset=16).reshape(-1, 1, 28, 28)
pixels = (pixels.astype(numpy.float32) / numpy.float32(255) - numpy.float32(0.286)) / numpy.float32(0.353)
truth = numpy.frombuffer(gzip.open(labels).read(), numpy.uint8, offset=8)


def logits(level):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 3
    options.graph_optimization_level = level
    # As engines are built: integer kernels do not saturate on a processor without VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    batches = [session.run(None, {name: pixels[i : i + 500]})[0] for i in range(0, len(pixels), 500)]
    return numpy.concatenate(batches)


def same_class(a, b):
    return float((a.argmax(1) == b.argmax(1)).mean())


def sqnr_db(reference, other):
    noise = ((reference - other) ** 2).sum(1)
    return float(numpy.median(10 * numpy.log10((reference**2).sum(1) / numpy.maximum(noise, 1e-30))))


levels = onnxruntime.GraphOptimizationLevel
off, on = logits(levels.ORT_DISABLE_ALL), logits(levels.ORT_ENABLE_ALL)
simulated, measured = numpy.load(simulation), numpy.load(engine)
print(
    json.dumps(
        {
            "simulation_same_class": same_class(off, simulated),
            "simulation_sqnr_db": sqnr_db(off, simulated),
            "engine_same_class": same_class(simulated, measured),
            "engine_difference": float(numpy.abs(on - measured).max()),
            "top1": float((on.argmax(1) == truth).mean()),
        }
    )
)
