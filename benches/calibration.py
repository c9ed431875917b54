"""Calibration side by side, whole processes: ours with all four methods, onnxruntime's MinMax, modelopt's entropy.

    make deps-test
    python3 benches/calibration.py target/release/qpipe-worker [--rounds 3] [--modelopt PYTHON] [--compare FILE]

ResNet-18 at 224 pixels (PyTorch's own export, statistics of BatchNormalization from the images), 128 images, all processors.
Ours decodes the images from PNG files; the others are given them decoded and normalized, as one array in memory. `--modelopt` names
an interpreter that has `nvidia-modelopt[onnx]`. `--batch` is our batch size. `--worker` names further builds of ours to run beside.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEPS = ROOT / ".deps"
IMAGES, SIDE = 128, 224
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

PREPARE = """
import sys, numpy, torch, torchvision
folder = sys.argv[1]
images = torch.from_numpy(numpy.load(folder + "/images.npy"))
torch.manual_seed(1)
model = getattr(torchvision.models, (sys.argv[2:] or ["resnet18"])[0])(weights=None)
for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.momentum = None
        torch.nn.init.uniform_(module.weight, 0.2, 1.2)
        torch.nn.init.normal_(module.bias, 0.0, 0.3)
with torch.no_grad():
    model.train()
    for batch in images[:32].split(16):
        model(batch)
model.eval()
torch.onnx.export(model, (images[:1],), folder + "/model.onnx", dynamo=False, opset_version=17,
                  input_names=["input"], output_names=["output"],
                  dynamic_axes={"input": {0: "n"}, "output": {0: "n"}})
"""

ONNXRUNTIME = """
import sys, numpy
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator
folder, batch = sys.argv[1], int(sys.argv[2])
images = numpy.load(folder + "/images.npy")
class Reader(CalibrationDataReader):
    def __init__(self):
        self.feeds = iter({"input": images[i:i + batch]} for i in range(0, len(images), batch))
    def get_next(self):
        return next(self.feeds, None)
calibrator = create_calibrator(folder + "/model.onnx", augmented_model_path=folder + "/augmented.onnx",
                               calibrate_method=CalibrationMethod.MinMax)
calibrator.collect_data(Reader())
calibrator.compute_data()
"""

MODELOPT = """
import sys, numpy
from modelopt.onnx.quantization import quantize
folder = sys.argv[1]
quantize(folder + "/model.onnx", calibration_data={"input": numpy.load(folder + "/images.npy")},
         calibration_method="entropy", quantize_mode="int8", output_path=folder + "/modelopt.onnx",
         calibration_eps=["cpu"], use_external_data_format=False)
"""


def png(path, pixels):
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + pixels[y].tobytes() for y in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(
        ">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                     + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b""))


def make_images(folder):
    """Patches of colour with soft edges and a little noise."""
    import numpy

    random = numpy.random.default_rng(1)
    (folder / "data/a").mkdir(parents=True)
    y, x = numpy.mgrid[0:SIDE, 0:SIDE].astype("f4")
    floats = numpy.empty((IMAGES, 3, SIDE, SIDE), "f4")
    for i in range(IMAGES):
        image = numpy.full((SIDE, SIDE, 3), random.uniform(0, 255, 3))
        for _ in range(12):
            cy, cx, ry, rx = random.uniform([0, 0, 8, 8], [SIDE, SIDE, 80, 80])
            inside = 1 / (1 + numpy.exp(numpy.minimum(4 * (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 - 1), 80)))
            image += inside[..., None] * (random.uniform(0, 255, 3) - image)
        image += random.normal(0, 6, image.shape)
        pixels = numpy.ascontiguousarray(image.clip(0, 255).astype("u1"))
        png(folder / f"data/a/{i:04}.png", pixels)
        floats[i] = ((pixels / numpy.float32(255) - numpy.float32(MEAN)) / numpy.float32(STD)).transpose(2, 0, 1)
    numpy.save(folder / "images.npy", floats)


def environment(*folders):
    paths = os.pathsep.join(str(DEPS / folder) for folder in folders)
    libraries = [DEPS / "pytorch/stubs", DEPS / "native/nvidia/cu13/lib"]
    return {**os.environ, "PYTHONPATH": paths, "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}


def task(folder, name, batch):
    # As the runner writes it.
    version = next(line for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version"))
    output = folder / f"{name}.json"
    (folder / "scratch").mkdir(exist_ok=True)
    config = {"model": {"onnx": "@input"}, "data": "@input", "samples": IMAGES, "batch_size": batch,
              "methods": ["max", "percentile", "entropy", "mse"], "bins": 2048, "percentile": 99.99,
              "histogram": "exact"}
    spec = {"format": "image-folder", "path": "@input",
            "transform": [{"normalize": {"mean": MEAN, "std": STD}}]}
    text = {"protocol": 1, "version": version.split('"')[1], "stage": "calibrate", "kind": "calibrate",
            "config": config, "outputs": {"ranges": str(output)}, "scratch": str(folder / "scratch"),
            "inputs": {"model": {"is": "path", "path": str(folder / "model.onnx")},
                       "data": {"is": "data", "spec": spec, "paths": {"path": str(folder / "data")}}},
            "checkpoints": str(folder / "scratch"), "seed": 1, "threads": len(os.sched_getaffinity(0))}
    path = folder / f"{name}.task.json"
    path.write_text(json.dumps(text))
    return path


def measure(command, env):
    """Seconds, seconds of processor time, MB of the largest resident set."""
    start = time.perf_counter()
    child = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{command[0]} failed: {errors.decode(errors='replace')[-2000:]}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("worker", nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="*", default=[16])
    parser.add_argument("--modelopt", help="an interpreter with nvidia-modelopt[onnx]")
    parser.add_argument("--folder", help="keep what is made here, and use what is there")
    arguments = parser.parse_args()
    temporary = tempfile.TemporaryDirectory()
    folder = Path(arguments.folder or temporary.name)
    folder.mkdir(exist_ok=True)
    if not (folder / "model.onnx").exists():
        sys.path.insert(0, str(DEPS / "python"))
        make_images(folder)
        subprocess.run([sys.executable, "-c", PREPARE, str(folder)], check=True,
                       env=environment("pytorch", "python"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = []
    for worker in arguments.worker:
        for batch in arguments.batch:
            name = f"{Path(worker).name}, batch {batch}"
            env = {"GOMP_SPINCOUNT": "2000", **os.environ}  # As the runner starts it.
            runs.append((name, [worker, "run", str(task(folder, name, batch))], env))
    for batch in [1, 8]:
        command = [sys.executable, "-c", ONNXRUNTIME, str(folder), str(batch)]
        runs.append((f"onnxruntime MinMax, batch {batch}", command, environment("python")))
    if arguments.modelopt:
        runs.append(("modelopt entropy", [arguments.modelopt, "-c", MODELOPT, str(folder)], dict(os.environ)))
    figures = {name: [] for name, _, _ in runs}
    for _ in range(arguments.rounds):
        for name, command, env in runs:
            figures[name].append(measure(command, env))
    for name, found in figures.items():
        seconds, busy, memory = (sorted(values) for values in zip(*found))
        print(f"{name:32} median {seconds[len(seconds) // 2]:6.2f} s, least {seconds[0]:6.2f}"
              f"   processors {busy[len(busy) // 2]:6.2f} s, least {busy[0]:6.2f}   {memory[-1]:6.0f} MB")


if __name__ == "__main__":
    main()
