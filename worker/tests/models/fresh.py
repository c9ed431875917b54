"""Exports a network that was not trained yet, by both exporters, with what ten steps of PyTorch make of it.

    python fresh.py FOLDER

Its scales are all 1 and its shifts all 0, so that the exporters write one initializer for several of them. FOLDER/fresh.npz has `images`, `labels`,
`losses` and, after the steps, `logits` in evaluation mode.
"""

import copy
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

STEPS = 10
LEARNING_RATE = 0.1


def network():
    convolution = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8)]
    again = [nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 10)]
    return nn.Sequential(*convolution, *again, *head)


def main(folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    net = network()
    images, labels = torch.randn(16, 3, 12, 12), torch.randint(10, (16,))
    dynamic = {"dynamo": False, "opset_version": 17, "input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
    torch.onnx.export(copy.deepcopy(net).eval(), (images,), str(folder / "fresh_old.onnx"), **dynamic)
    torch.onnx.export(
        copy.deepcopy(net).eval(), (images,), str(folder / "fresh_new.onnx"), dynamo=True, external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    logits = net.eval()(images).detach().numpy()
    np.savez(folder / "fresh.npz", images=images.numpy(), labels=labels.numpy(), losses=np.array(losses), logits=logits)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
