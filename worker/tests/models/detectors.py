"""Detectors of the kinds of YOLOv5 and YOLOv8, with random weights, as PyTorch's exporters write them.

    python detectors.py FOLDER outputs
    python detectors.py FOLDER gradients

`outputs`: for each network, exporter and opset FOLDER/model.onnx and FOLDER/case.npz with the arrays `input` and what
ONNX Runtime makes of it, `output_0`…; a line on standard output, then a line is awaited on standard input before the
next files take their place.

`gradients`: for each network FOLDER/NAME.onnx, exported for training, and FOLDER/NAME.npz with `images`, `target`,
`grad.PARAMETER` and `losses` of three steps; the loss is the mean squared difference of the decoded output.

The networks are small, and written for these files: what they share with the published ones is the graph.
"""

import contextlib
import copy
import io
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
import torchvision
from torch import nn

CLASSES = 3
HEIGHT, WIDTH = 96, 64
STRIDES = (8, 16, 32)
BINS = 16
# The exporter that traces, up to opset 20, or the one that compiles ("dynamo"), from 18; each with the opset.
EXPORTS = {
    "anchor_free": ((False, 11), (False, 13), (False, 20)),
    "anchored": ((False, 11), (False, 17), (True, 21)),
    "suppressed": ((False, 13), (True, 18)),
}
LEARNING_RATE = 1e-7  # The loss is one of pixels, squared.
STEPS = 3


class Unit(nn.Module):
    """Convolution, normalization, SiLU."""

    def __init__(self, inputs, outputs, kernel=1, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.act = nn.SiLU()

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


class WrittenOut(nn.Module):
    """SiLU as a product."""

    def forward(self, x):
        return x * x.sigmoid()


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels, add):
        super().__init__()
        self.first, self.second = Unit(channels, channels, 3), Unit(channels, channels, 3)
        self.add = add

    def forward(self, x):
        y = self.second(self.first(x))
        return x + y if self.add else y


class SplitStage(nn.Module):
    """Of YOLOv8: one product is split, a half goes through the blocks, and all that they make is joined."""

    def __init__(self, inputs, outputs, depth=1, add=False):
        super().__init__()
        half = outputs // 2
        self.enter, self.leave = Unit(inputs, outputs), Unit((2 + depth) * half, outputs)
        self.blocks = nn.ModuleList(Residual(half, add) for _ in range(depth))

    def forward(self, x):
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class TwoWayStage(nn.Module):
    """Of YOLOv5: two products, one of which goes through the blocks."""

    def __init__(self, inputs, outputs, depth=1, add=False):
        super().__init__()
        half = outputs // 2
        self.left, self.right, self.leave = Unit(inputs, half), Unit(inputs, half), Unit(outputs, outputs)
        self.blocks = nn.Sequential(*(Residual(half, add) for _ in range(depth)))

    def forward(self, x):
        return self.leave(torch.cat((self.blocks(self.left(x)), self.right(x)), 1))


class Pyramid(nn.Module):
    """Spatial pyramid of three poolings in a row."""

    def __init__(self, channels):
        super().__init__()
        self.enter, self.leave = Unit(channels, channels // 2), Unit(channels * 2, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Body(nn.Module):
    """Backbone, then ways down and up: features of three strides."""

    def __init__(self, stage, stem):
        super().__init__()
        self.stem = nn.Sequential(stem, Unit(8, 16, 3, 2), stage(16, 16, 1, True))
        self.small = nn.Sequential(Unit(16, 24, 3, 2), stage(24, 24, 2, True))
        self.middle = nn.Sequential(Unit(24, 32, 3, 2), stage(32, 32, 1, True))
        self.large = nn.Sequential(Unit(32, 48, 3, 2), stage(48, 48, 1, True), Pyramid(48))
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.down_middle, self.down_small = stage(48 + 32, 32), stage(32 + 24, 24)
        self.reduce_small, self.reduce_middle = Unit(24, 24, 3, 2), Unit(32, 32, 3, 2)
        self.up_middle, self.up_large = stage(24 + 32, 32), stage(32 + 48, 48)

    def forward(self, x):
        small = self.small(self.stem(x))
        middle = self.middle(small)
        large = self.large(middle)
        middle = self.down_middle(torch.cat((self.up(large), middle), 1))
        small = self.down_small(torch.cat((self.up(middle), small), 1))
        middle = self.up_middle(torch.cat((self.reduce_small(small), middle), 1))
        return small, middle, self.up_large(torch.cat((self.reduce_middle(middle), large), 1))


def grid(feature):
    """Centres' coordinates before the half is added, [H, W, 2]."""
    height, width = feature.shape[2:]
    y, x = torch.arange(height, dtype=feature.dtype), torch.arange(width, dtype=feature.dtype)
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)


class Distribution(nn.Module):
    """The mean of a distribution over distances: a softmax, and a convolution whose weights are the distances."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        self.conv.weight.data[:] = torch.arange(BINS, dtype=torch.float32).view(1, BINS, 1, 1)

    def forward(self, x):
        batch, _, anchors = x.shape
        return self.conv(x.view(batch, 4, BINS, anchors).transpose(2, 1).softmax(1)).view(batch, 4, anchors)


class AnchorFree(nn.Module):
    """Of YOLOv8: [N, 4 + CLASSES, anchors], boxes as centre and size in pixels."""

    def __init__(self):
        super().__init__()
        self.body = Body(SplitStage, Unit(3, 8, 3, 2))
        branch = lambda channels, outputs: nn.Sequential(Unit(channels, 16, 3), nn.Conv2d(16, outputs, 1))
        self.boxes = nn.ModuleList(branch(channels, 4 * BINS) for channels in (24, 32, 48))
        self.classes = nn.ModuleList(branch(channels, CLASSES) for channels in (24, 32, 48))
        self.distribution = Distribution()

    def forward(self, x):
        features = self.body(x)
        made = [torch.cat((box(f), cls(f)), 1) for box, cls, f in zip(self.boxes, self.classes, features)]
        flat = torch.cat([level.view(level.shape[0], 4 * BINS + CLASSES, -1) for level in made], 2)
        boxes, classes = flat.split((4 * BINS, CLASSES), 1)
        centres = torch.cat([(grid(f) + 0.5).view(-1, 2) for f in features]).t().unsqueeze(0)
        sizes = [f.shape[2] * f.shape[3] for f in features]
        strides = torch.cat([torch.full((1, n), s, dtype=x.dtype) for n, s in zip(sizes, STRIDES)], 1)
        before, behind = self.distribution(boxes).chunk(2, 1)
        start, end = centres - before, centres + behind
        return torch.cat((torch.cat(((start + end) / 2, end - start), 1) * strides, classes.sigmoid()), 1)


class Anchored(nn.Module):
    """Of YOLOv5: [N, anchors, 5 + CLASSES], boxes as centre and size in pixels."""

    def __init__(self):
        super().__init__()
        stem = Unit(3, 8, 6, 2)
        stem.conv.padding = (2, 2)
        self.body = Body(TwoWayStage, stem)
        self.heads = nn.ModuleList(nn.Conv2d(channels, 3 * (5 + CLASSES), 1) for channels in (24, 32, 48))
        anchors = torch.tensor([[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]])
        self.register_buffer("anchors", anchors.float().view(3, 1, 3, 1, 1, 2))

    def forward(self, x):
        made = []
        for head, feature, anchors, stride in zip(self.heads, self.body(x), self.anchors, STRIDES):
            batch, _, height, width = feature.shape
            level = head(feature).view(batch, 3, 5 + CLASSES, height, width).permute(0, 1, 3, 4, 2).contiguous()
            centre, size, scores = level.sigmoid().split((2, 2, 1 + CLASSES), 4)
            centre = (centre * 2 + grid(feature) - 0.5) * stride
            size = (size * 2) ** 2 * anchors
            made.append(torch.cat((centre, size, scores), 4).view(batch, 3 * height * width, 5 + CLASSES))
        return torch.cat(made, 1)


class Suppressed(nn.Module):
    """One image's boxes, scores and classes, the overlapping ones of a class removed."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        made = self.network(x)[0].t()
        centre, size = made[:, :2], made[:, 2:4]
        boxes = torch.cat((centre - size / 2, centre + size / 2), 1)
        scores, classes = made[:, 4:].max(1)
        # Moved apart by class, so that boxes of other classes do not count.
        kept = torchvision.ops.nms(boxes + classes.unsqueeze(1).float() * 1000, scores, 0.45)
        return boxes[kept], scores[kept], classes[kept]


def build(kind):
    torch.manual_seed(0)
    network = kind()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # As after a training: otherwise it would be no work to fold them.
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


def export(network, x, path, dynamo, opset, **more):
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        if dynamo:
            more = {"opset_version": opset, "external_data": False, "verbose": False, **more}
            torch.onnx.export(network, (x,), str(path), dynamo=True, **more)
        else:
            torch.onnx.export(network, (x,), str(path), dynamo=False, opset_version=opset, input_names=["images"], **more)


def outputs(folder):
    networks = {"anchor_free": build(AnchorFree), "anchored": build(Anchored)}
    networks["suppressed"] = Suppressed(networks["anchor_free"]).eval()
    path = folder / "model.onnx"
    for name, network in networks.items():
        x = torch.randn(1 if name == "suppressed" else 2, 3, HEIGHT, WIDTH)
        for dynamo, opset in EXPORTS[name]:
            # Of any size, with a Shape wherever the network asks for one, and of this size.
            free = {0: "batch", 2: "height", 3: "width"} if opset % 2 == 1 and not dynamo else None
            export(network, x, path, dynamo, opset, **({"dynamic_axes": {"images": free}} if free else {}))
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            made = session.run(None, {session.get_inputs()[0].name: x.numpy()})
            np.savez(folder / "case.npz", input=x.numpy(), **{f"output_{index}": y for index, y in enumerate(made)})
            print(name, "dynamo" if dynamo else "torchscript", opset, flush=True)
            if not sys.stdin.readline():
                return


def gradients(folder):
    for name, kind, opset in (("anchor_free", AnchorFree, 11), ("anchored", Anchored, 17)):
        network = build(kind).train()
        # In the formula that ONNX has: PyTorch's fused one rounds otherwise, and the normalizations make 2e-4 of that.
        for module in network.modules():
            if isinstance(module, Unit):
                module.act = WrittenOut()
        images = torch.randn(4, 3, HEIGHT, WIDTH)
        export(
            copy.deepcopy(network), images, folder / f"{name}.onnx", False, opset,
            training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
        )
        with torch.no_grad():
            target = copy.deepcopy(network)(images) * 0.9
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=LEARNING_RATE)
        losses = []
        for step in range(STEPS):
            optimizer.zero_grad()
            loss = (network(images) - target).square().mean()
            loss.backward()
            if step == 0:
                # A copy: the memory is used again for the next step's gradients.
                named = network.named_parameters()
                named = {f"grad.{key}": value.grad.numpy().copy() for key, value in named if value.requires_grad}
            optimizer.step()
            losses.append(loss.item())
        np.savez(folder / f"{name}.npz", losses=np.array(losses), images=images.numpy(), target=target.numpy(), **named)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(2)
    {"outputs": outputs, "gradients": gradients}[sys.argv[2]](Path(sys.argv[1]))
