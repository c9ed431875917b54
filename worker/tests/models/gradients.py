"""Exports networks for training, with a batch and what PyTorch makes of it: gradients, and the losses of ten steps.

    python gradients.py FOLDER

For each network FOLDER/NAME.onnx and FOLDER/NAME.npz with `images`, `labels`, `loss`, `grad.PARAMETER` and `losses`.
Nothing is random in a step: no dropout, no stochastic depth.
"""

import copy
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models.vision_transformer import VisionTransformer

CLASSES = 10
LEARNING_RATE = 0.001
STEPS = 10


NETWORKS = {
    "resnet": torchvision.models.resnet18,
    "mobilenet_v3": torchvision.models.mobilenet_v3_small,
    "efficientnet": torchvision.models.efficientnet_b0,
    "convnext": torchvision.models.convnext_tiny,
    "vit": partial(VisionTransformer, 64, 16, 4, 4, 64, 128),
}
SIDE = 64


def settle(network):
    for module in network.modules():
        if isinstance(module, (nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        if isinstance(module, nn.BatchNorm2d):
            # As PyTorch's own default; some of torchvision's networks have 0.001, which a few steps would not show.
            module.momentum = 0.1
    for name, parameter in network.named_parameters():
        if "layer_scale" in name or "pos_embedding" in name or "class_token" in name:
            nn.init.normal_(parameter, 0.5, 0.1)
        if name.endswith(("heads.head.weight", "heads.head.bias")):
            nn.init.normal_(parameter, 0, 0.1)


def main(folder):
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    for name, build in NETWORKS.items():
        torch.manual_seed(1)
        network = build(num_classes=CLASSES)
        settle(network)
        network.train()
        images, labels = torch.randn(8, 3, SIDE, SIDE), torch.randint(CLASSES, (8,))
        torch.onnx.export(
            copy.deepcopy(network), (images,), str(folder / f"{name}.onnx"), dynamo=False, opset_version=17,
            training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
        )
        arrays = {"images": images.numpy(), "labels": labels.numpy()}
        loss = cross_entropy(copy.deepcopy(network)(images), labels)
        arrays["loss"] = loss.detach().numpy()
        optimizer = torch.optim.SGD(network.parameters(), lr=LEARNING_RATE)
        losses = []
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = cross_entropy(network(images), labels)
            loss.backward()
            if step == 0:
                # A copy: the memory is used again for the next step's gradients.
                named = {f"grad.{key}": value.grad.numpy().copy() for key, value in network.named_parameters()}
            optimizer.step()
            losses.append(loss.item())
        np.savez(folder / f"{name}.npz", losses=np.array(losses), **arrays, **named)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
