"""The training step of PyTorch eager on synthetic images, float and with ModelOpt's fake quantization: images a second.

    python benches/training_step.py resnet50 64 fp16

Network of torchvision; batch; fp32, fp16 or bf16 (autocast, channels-last, cuDNN's autotuning). Needs torch, torchvision and
nvidia-modelopt. To compare with: `cargo bench -p qpipe-worker --bench training_step -- resnet50 64 fp16`.
"""

import contextlib
import copy
import sys
import time

import torch
import torch.nn.functional as F
import torchvision

name, batch, precision = (sys.argv[1:] + ["resnet50", "64", "fp16"][len(sys.argv) - 1 :])[:3]
batch = int(batch)
device = "cuda" if torch.cuda.is_available() else "cpu"
few, many = (20, 140) if device == "cuda" else (2, 6)
torch.backends.cudnn.benchmark = True
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
images = torch.randn(batch, 3, 224, 224, device=device).to(memory_format=torch.channels_last)
labels = torch.randint(0, 1000, (batch,), device=device)


def rate(net):
    net = copy.deepcopy(net).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True)
    scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision)

    def steps(count):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, kind) if kind else contextlib.nullcontext():
                loss = F.cross_entropy(net(images), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    steps(few)
    return batch * (many - few) / sorted(steps(many - few) for _ in range(3))[1]


float_net = torchvision.models.get_model(name, num_classes=1000).to(device, memory_format=torch.channels_last)
print(f"{name}, batch {batch}, {precision}, {device}: images a second")
plain = rate(float_net)
print(f"float training {plain:.1f}", flush=True)
import modelopt.torch.quantization as mtq

quantized = copy.deepcopy(float_net).eval()
mtq.quantize(quantized, copy.deepcopy(mtq.INT8_DEFAULT_CFG), lambda net: net(images))
fake = rate(quantized)
print(f"ModelOpt fake quantization {fake:.1f}   ratio {fake / plain:.2f}")
