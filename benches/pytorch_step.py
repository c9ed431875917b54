"""One training step of the quickstart's network in PyTorch eager, channels-last, batch 128: milliseconds.

    python benches/pytorch_step.py THREADS

Needs torch 2.11. To compare with: the `seconds` of `qpipe run pipelines/quickstart.toml fp32 --force fp32` over 3 epochs of
430 steps, which include the loader and the validation.
"""

import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
net = nn.Sequential(
    nn.Conv2d(1, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
    Block(32, 32, 1), Block(32, 64, 2), Block(64, 128, 2),
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
).to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
images = torch.randn(128, 1, 28, 28).contiguous(memory_format=torch.channels_last)
labels = torch.randint(0, 10, (128,))


def step():
    optimizer.zero_grad()
    loss = F.cross_entropy(net(images), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


for _ in range(10):
    step()
times = []
for _ in range(50):
    start = time.perf_counter()
    step()
    times.append(1e3 * (time.perf_counter() - start))
print(f"{sorted(times)[len(times) // 2]:.1f} ms a step (median of {len(times)})")
