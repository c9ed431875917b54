"""Exports torchvision's networks with random weights, one after the other, and what ONNX Runtime makes of them.

    python export.py FOLDER [PART/PARTS | NAME…]

For each network (of all, of those that are named, or every PARTS-th from the PART-th on) and each of PyTorch's two
exporters: FOLDER/model.onnx (with model.onnx.data), FOLDER/case.npz with the arrays `input` and `output_0`…; a line `NAME EXPORTER` on standard output, then a line is awaited on standard input before
the next files take their place.
"""

import io
import logging
import contextlib
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torchvision
from torch import nn

# One of each family, its stages cut to two blocks; a side is 96 where the network takes any.
NETWORKS = {
    "alexnet": 224, "vgg11_bn": 224, "resnet18": 96, "resnext50_32x4d": 64, "wide_resnet50_2": 64, "densenet121": 64,
    "squeezenet1_1": 96, "googlenet": 96, "inception_v3": 128, "mobilenet_v2": 96, "mobilenet_v3_small": 96,
    "mobilenet_v3_large": 96, "mnasnet0_5": 96, "shufflenet_v2_x0_5": 96, "efficientnet_b0": 96,
    "efficientnet_v2_s": 96, "regnet_x_400mf": 96, "regnet_y_400mf": 96, "convnext_tiny": 96, "vit_b_32": 224, "swin_t": 96,
    "swin_v2_t": 96, "maxvit_t": 224, "fcn_resnet50": 64, "deeplabv3_mobilenet_v3_large": 96,
    "lraspp_mobilenet_v3_large": 96,
}


class OneOutput(nn.Module):
    """The logits of networks that return several values."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        y = self.network(x)
        return y["out"] if isinstance(y, dict) else y


def build(name):
    torch.manual_seed(0)
    more = {}
    if name in ("googlenet", "inception_v3"):
        more = {"aux_logits": False, "init_weights": True}
    if "fcn" in name or "deeplab" in name or "lraspp" in name:
        more = {"weights_backbone": None}
    network = torchvision.models.get_model(name, weights=None, **more).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # As after a training: otherwise it would be no work to fold them.
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
    shorten(network)
    if name in ("alexnet", "vgg11_bn"):
        narrow(network.classifier)
    return OneOutput(network).eval()


def shorten(network):
    """Leaves the first of a stage's blocks and one of those that repeat it: a file says of the tenth block what it said of the second."""
    for module in list(network.modules()):
        blocks = list(module) if isinstance(module, (nn.Sequential, nn.ModuleList)) else []
        forms = [(type(block), [p.shape for p in block.parameters()]) for block in blocks[1:]]
        if len(forms) > 1 and forms[0][1] and all(form == forms[0] for form in forms):
            del module[2:]


def narrow(classifier, width=256):
    """Hidden layers of so many values: files of a hundred million weights take time to write and to read."""
    places = [index for index, layer in enumerate(classifier) if isinstance(layer, nn.Linear)]
    for place in places:
        layer = classifier[place]
        inputs = layer.in_features if place == places[0] else width
        classifier[place] = nn.Linear(inputs, layer.out_features if place == places[-1] else width)


def export(network, x, path, dynamo):
    for old in path.parent.glob("model.onnx*"):
        old.unlink()
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        if dynamo:
            torch.onnx.export(network, (x,), str(path), dynamo=True, opset_version=18, verbose=False)
        else:
            torch.onnx.export(
                network, (x,), str(path), dynamo=False, opset_version=17, input_names=["input"],
                dynamic_axes={"input": {0: "batch"}} if x.shape[0] > 1 else None,
            )


def main(folder, names):
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if names and "/" in names[0]:
        part, parts = map(int, names[0].split("/"))
        names = list(NETWORKS)[part - 1 :: parts]
    for name in names or NETWORKS:
        network = build(name)
        side = NETWORKS[name]
        x = torch.randn(2 if side < 224 else 1, 3, side, side)
        for exporter in ("torchscript", "dynamo"):
            path = folder / "model.onnx"
            export(network, x, path, exporter == "dynamo")
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            outputs = session.run(None, {session.get_inputs()[0].name: x.numpy()})
            named = {f"output_{index}": output for index, output in enumerate(outputs)}
            np.savez(folder / "case.npz", input=x.numpy(), **named)
            print(name, exporter, flush=True)
            if not sys.stdin.readline():
                return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
