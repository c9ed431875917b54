"""Exports Keras's networks with random weights by tf2onnx, one after the other, and what ONNX Runtime makes of them.

    python keras_export.py FOLDER [NAME…]

FOLDER/model.onnx and FOLDER/case.npz with the arrays `input`, `output_0` and `weights` (how many elements the kernels of
all layers have); a line `NAME tf2onnx OPSET` on standard output, then a line is awaited on standard input before the next
files take their place.
"""

import contextlib
import io
import logging
import os
import sys
import warnings
from pathlib import Path

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow", CUDA_VISIBLE_DEVICES="-1")

import numpy as np
import onnxruntime
import tensorflow as tf
import tf2onnx

# Name, opset, and the side of the input.
NETWORKS = (
    ("MobileNetV2", 11, 96), ("MobileNetV2", 18, 96), ("MobileNetV3Small", 15, 96), ("EfficientNetB0", 11, 64),
    ("EfficientNetB0", 17, 64), ("EfficientNetV2B0", 18, 64), ("ResNet50", 13, 64), ("DenseNet121", 14, 64),
)


def build(name, side):
    tf.keras.utils.set_random_seed(0)
    more = {"include_preprocessing": True} if "Efficient" in name or "MobileNetV3" in name else {}
    if name.startswith("EfficientNetB"):
        more = {}
    build = getattr(tf.keras.applications, name)
    network = build(weights=None, input_shape=(side, side, 3), classes=10, classifier_activation=None, **more)
    for layer in network.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            # As after a training: otherwise it would be no work to fold them.
            draw = np.random.default_rng(0)
            values = [draw.uniform(0.8, 1.2, layer.gamma.shape)] if layer.scale else []
            values += [draw.normal(0, 0.1, layer.beta.shape)] if layer.center else []
            values += [draw.normal(0, 0.1, layer.moving_mean.shape), draw.uniform(0.5, 1.5, layer.moving_variance.shape)]
            layer.set_weights(values)
        if isinstance(layer, tf.keras.layers.Normalization):
            # Constants of the graph: tf2onnx takes other tensors for inputs.
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
    return network


def main(folder, names):
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    tf.config.threading.set_intra_op_parallelism_threads(2)
    path = folder / "model.onnx"
    for name, opset, side in NETWORKS:
        if names and name not in names:
            continue
        network = build(name, side)
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            call = tf.function(lambda x: network(x, training=False))
            signature = [tf.TensorSpec((None, side, side, 3), tf.float32, name="input")]
            tf2onnx.convert.from_function(call, input_signature=signature, opset=opset, output_path=str(path))
        x = np.random.default_rng(0).normal(0, 1, (2, side, side, 3)).astype(np.float32)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        made = session.run(None, {session.get_inputs()[0].name: x})
        kernels = [w for w in network.trainable_weights if w.path.endswith("kernel")]
        weights = np.array(sum(int(np.prod(kernel.shape)) for kernel in kernels))
        np.savez(folder / "case.npz", input=x, weights=weights, output_0=made[0])
        print(name, "tf2onnx", opset, flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
