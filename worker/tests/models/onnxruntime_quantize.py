"""MODEL IMAGES SHAPE OUTPUT uint8|int8

Quantizes a float model with onnxruntime's own quantizer as its documentation advises for a CPU: Q/DQ pairs, weights int8,
symmetric and one scale a channel, activations by MinMax over IMAGES (raw float32); `uint8` with a zero point, `int8` symmetric.
"""

import sys

import numpy
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

BATCH = 64


class Images(CalibrationDataReader):
    def __init__(self, name, images):
        self.batches = iter({name: images[i : i + BATCH]} for i in range(0, len(images), BATCH))

    def get_next(self):
        return next(self.batches, None)


model, images, shape, output, activations = sys.argv[1:]
images = numpy.fromfile(images, dtype=numpy.float32).reshape([int(n) for n in shape.split(",")])
name = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).get_inputs()[0].name
quantize_static(
    model,
    output,
    Images(name, images),
    quant_format=QuantFormat.QDQ,
    per_channel=True,
    weight_type=QuantType.QInt8,
    activation_type=QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8,
    calibrate_method=CalibrationMethod.MinMax,
    extra_options={"WeightSymmetric": True, "ActivationSymmetric": activations == "int8"},
)
