"""Exports Ultralytics' detectors with random weights by PyTorch's exporters, one after the other, and what ONNX Runtime
makes of them.

    python ultralytics_export.py FOLDER [NAME…]

FOLDER/model.onnx and FOLDER/case.npz with the arrays `input` and `output_0`; a line `NAME EXPORTER OPSET` on standard
output, then a line is awaited on standard input before the next files take their place.
"""

import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.gettempdir())
os.environ["YOLO_OFFLINE"] = "true"

import numpy as np
import onnxruntime
import torch
from torch import nn

EXPORTS = (
    ("yolov5n", False, 11), ("yolov5n", False, 17), ("yolov5n", True, 18),
    ("yolov8n", False, 11), ("yolov8n", False, 13), ("yolov8n", True, 21),
    ("yolo11n", False, 17), ("yolo11n", True, 18),
    # As `dynamic=True`: batch, height and width are free.
    ("yolov8n-free", False, 17),
)
SIDE = 96


def build(name, free):
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    network = DetectionModel(f"{name}.yaml", verbose=False).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # As after a training: otherwise it would be no work to fold them.
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
    head = network.model[-1]
    head.export, head.format, head.dynamic = True, "onnx", free
    return network


def main(folder, names):
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    path = folder / "model.onnx"
    for name, dynamo, opset in EXPORTS:
        if names and name not in names:
            continue
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            free = name.endswith("-free")
            network = build(name.removesuffix("-free"), free)
            logging.disable(logging.WARNING)
            x = torch.randn(1, 3, SIDE, SIDE)
            network(x)
            more = {"opset_version": opset, "dynamo": dynamo, "input_names": ["images"]}
            if free:
                more["dynamic_axes"] = {"images": {0: "batch", 2: "height", 3: "width"}}
            torch.onnx.export(network, (x,), str(path), **more, **({"external_data": False} if dynamo else {}))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        made = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.savez(folder / "case.npz", input=x.numpy(), **{f"output_{index}": y for index, y in enumerate(made)})
        print(name, "dynamo" if dynamo else "torchscript", opset, flush=True)
        if not sys.stdin.readline():
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
