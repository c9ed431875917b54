"""A detector of YOLOv8's kind, trained for seconds on coloured rectangles, so that its boxes mean something.

    python overfitted.py FOLDER

FOLDER/model.onnx and FOLDER/compiled.onnx are what PyTorch's two exporters make of it, FOLDER/images has images of two sizes.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional

import detectors

SIDE = 64
STEPS, BATCH = 260, 16
COLOURS = torch.tensor([[220.0, 40, 40], [40, 200, 60], [50, 80, 230]])


def scene(generator, height, width):
    """An image, uint8 [3, H, W], with one to three rectangles, and these: corners and class."""
    draw = lambda low, high: int(torch.randint(low, high, (1,), generator=generator))
    image = torch.randint(90, 140, (3, height, width), generator=generator).float()
    boxes = []
    for _ in range(draw(1, 4)):
        high, wide = draw(12, height // 2), draw(12, width // 2)
        top, left, kind = draw(0, height - high), draw(0, width - wide), draw(0, 3)
        box = [left, top, left + wide, top + high, kind]
        overlap = torchvision.ops.box_iou(torch.tensor([box[:4]]).float(), torch.tensor([b[:4] for b in boxes] or [[0.0] * 4]).float())
        if overlap.max() > 0:
            continue
        image[:, top : top + high, left : left + wide] = COLOURS[kind].view(3, 1, 1) + torch.randn(3, 1, 1, generator=generator) * 8
        boxes.append(box)
    return image.clamp(0, 255).to(torch.uint8), torch.tensor(boxes).float()


def letterboxed(image, boxes):
    height, width = image.shape[1:]
    scale = min(SIDE / height, SIDE / width)
    high, wide = round(height * scale), round(width * scale)
    top, left = (SIDE - high) // 2, (SIDE - wide) // 2
    out = torch.full((3, SIDE, SIDE), 114.0)
    resized = functional.interpolate(image[None].float(), (high, wide), mode="bilinear", antialias=True)[0]
    out[:, top : top + high, left : left + wide] = resized
    shift = torch.tensor([left, top, left, top])
    return out / 255, torch.cat((boxes[:, :4] * scale + shift, boxes[:, 4:]), 1)


def loss_of(made, targets, centres):
    """Scores of an anchor whose centre is in the middle of a box are that box's class; its box is that box."""
    corners = torch.cat((made[:, :2] - made[:, 2:4] / 2, made[:, :2] + made[:, 2:4] / 2), 1)
    scores, wanted, pairs = made[:, 4:], torch.zeros_like(made[:, 4:]), []
    for index, boxes in enumerate(targets):
        for box in boxes:
            middle, size = (box[:2] + box[2:4]) / 2, box[2:4] - box[:2]
            inside = ((centres - middle[:, None]).abs() < size[:, None] * 0.3).all(0)
            wanted[index, int(box[4]), inside] = 1
            pairs.append((corners[index, :, inside].t(), box[:4].expand(int(inside.sum()), 4)))
    found, boxes = (torch.cat(part) for part in zip(*pairs))
    overlap = torchvision.ops.generalized_box_iou_loss(found, boxes, reduction="mean")
    scores = scores.clamp(1e-6, 1 - 1e-6)
    weight = torch.where(wanted > 0, 3.0, 1.0)
    return 2 * overlap + functional.binary_cross_entropy(scores, wanted, weight, reduction="sum") / wanted.sum().clamp(1)


def centres_of():
    made = []
    for stride in detectors.STRIDES:
        count = SIDE // stride
        y, x = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
        made.append(torch.stack((x, y)).view(2, -1).add(0.5) * stride)
    return torch.cat(made, 1)


def main(folder):
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    network = detectors.AnchorFree().train()
    for branch in network.classes:
        nn.init.constant_(branch[-1].bias, -3)
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=STEPS)
    centres = centres_of()
    scenes = [letterboxed(*scene(generator, *((60, 80) if index % 2 else (72, 56)))) for index in range(256)]
    for step in range(STEPS):
        chosen = torch.randint(0, len(scenes), (BATCH,), generator=generator)
        images = torch.stack([scenes[index][0] for index in chosen])
        loss = loss_of(network(images), [scenes[index][1] for index in chosen], centres)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        made = network(torch.stack([image for image, _ in scenes[:32]]))
    print(f"loss {loss.item():.3f}, {int((made[:, 4:].amax(1) > 0.25).sum())} anchors above 0.25 in 32 images")
    example = torch.zeros(2, 3, SIDE, SIDE)
    # As Ultralytics' `dynamic=True`.
    free = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch", 2: "anchors"}}
    detectors.export(network, example, folder / "model.onnx", False, 13, dynamic_axes=free, output_names=["output0"])
    detectors.export(network, example, folder / "compiled.onnx", True, 18)
    (folder / "images").mkdir()
    for index in range(40):
        image, _ = scene(generator, *((60, 80) if index % 2 else (72, 56)))
        torchvision.io.write_png(image, str(folder / "images" / f"{index:02}.png"))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    main(Path(sys.argv[1]))
