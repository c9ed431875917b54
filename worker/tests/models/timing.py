"""Times PyTorch eager on a network, one round a line of standard input, in milliseconds a step.

    python timing.py FOLDER NAME SIDE

Writes FOLDER/eval.onnx and FOLDER/train.onnx first, then prints `ready`. Lines: `forward LAYOUT` or `train LAYOUT`, with the layout
`contiguous` or `channels_last`. Batches of 8, two threads; a training step is forward, cross entropy and backward.
"""

import copy
import sys
import time
import warnings
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy

BATCH = 8


def main(folder, name, side):
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images, labels = torch.randn(BATCH, 3, side, side), torch.randint(1000, (BATCH,))
    export = {"dynamo": False, "opset_version": 17}
    torch.onnx.export(copy.deepcopy(network).eval(), (images,), str(folder / "eval.onnx"), **export)
    torch.onnx.export(
        copy.deepcopy(network).train(), (images,), str(folder / "train.onnx"), do_constant_folding=False,
        training=torch.onnx.TrainingMode.TRAINING, **export,
    )
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    networks = {key: copy.deepcopy(network).to(memory_format=layout) for key, layout in layouts.items()}
    inputs = {key: images.contiguous(memory_format=layout) for key, layout in layouts.items()}
    print("ready", flush=True)
    for line in sys.stdin:
        what, layout = line.split()
        model, x = networks[layout], inputs[layout]
        start = time.perf_counter()
        if what == "forward":
            model.eval()
            with torch.no_grad():
                model(x)
        else:
            model.train()
            model.zero_grad()
            cross_entropy(model(x), labels).backward()
        print((time.perf_counter() - start) * 1000, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
