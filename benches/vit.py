"""Trains a small vision transformer on Fashion-MNIST with PyTorch and writes it as ONNX, for `benches/vit.toml` (SmoothQuant on a trained network).

    python benches/vit.py .deps/data/fashion-mnist vit.onnx         # torch and onnx; a minute on a GPU
"""

import gzip
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

DATA, OUTPUT = sys.argv[1:3]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
EPOCHS, BATCH, IMAGES = 12, 256, 55_000
torch.manual_seed(1)


def load(part):
    def read(kind, skip):
        with gzip.open(f"{DATA}/{part}-{kind}-ubyte.gz") as file:
            return np.frombuffer(file.read(), np.uint8, offset=skip)

    images = torch.tensor(read("images-idx3", 16).reshape(-1, 1, 28, 28)).float() / 255
    return ((images - 0.2860) / 0.3530).to(DEVICE), torch.tensor(read("labels-idx1", 8)).long().to(DEVICE)


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        y, width = self.n1(x), x.shape[2]
        q, k, v = (
            layer(y).reshape(-1, 49, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        attention = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(width // self.heads), -1)
        x = x + self.o((attention @ v).transpose(1, 2).reshape(-1, 49, width))
        return x + self.down(F.gelu(self.up(self.n2(x))))


class ViT(nn.Module):
    def __init__(self, width=192, depth=6, heads=6):
        super().__init__()
        self.patch = nn.Conv2d(1, width, 4, 4)
        self.pos = nn.Parameter(torch.randn(1, 49, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.n, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, image):
        x = self.patch(image).flatten(2).transpose(1, 2) + self.pos
        return self.head(self.n(self.blocks(x)).mean(1))


images, labels = load("train")
test, expected = load("t10k")
net = ViT().to(DEVICE)
optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.05)
steps = IMAGES // BATCH
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, EPOCHS * steps)
for epoch in range(EPOCHS):
    net.train()
    order = torch.randperm(IMAGES, device=DEVICE)
    for step in range(steps):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        batch = images[chosen].flip(3) if torch.rand(1).item() < 0.5 else images[chosen]
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = F.cross_entropy(net(batch), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    net.eval()
    with torch.no_grad():
        right = (net(test).argmax(1) == expected).float().mean().item()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test {100 * right:.2f} %", flush=True)

names = {"input_names": ["image"], "output_names": ["logits"]}
free = {"image": {0: "N"}, "logits": {0: "N"}}
torch.onnx.export(
    net.cpu().eval(), torch.zeros(1, 1, 28, 28), OUTPUT, dynamic_axes=free, opset_version=17, dynamo=False, **names
)
