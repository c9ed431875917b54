"""INT8 on ONNX Runtime: our model, the one that onnxruntime's own quantizer makes from the same network and images, and float.

    make deps-test
    python3 benches/onnxruntime_quantizer.py target/release/qpipe [--networks trained,resnet18,mobilenet_v2] [--batches 1,32] [--rounds 30] [--threads 2] [--fused]

`trained` is the network of `pipelines/quickstart.toml` (trained for a minute, or taken from the cache of QPIPE_CACHE), calibrated with
the first 1,024 training images; top-1 is that of the 10,000 test images, once as ONNX Runtime fuses and once without any optimization: without
VNNI its integer kernels saturate. `resnet18` and `mobilenet_v2` are torchvision's at 224 pixels, made as `calibration.py` does, whose speed alone means something. `accuracy-resnet18` and `accuracy-mobilenetv2` are
those of `pipelines/accuracy.toml` (--epochs 10, images of 28×28, one for each of --seeds): minutes on a GPU, hours on a CPU; their top-1 is shown too. `--fused` leaves out the slow
runs without optimizations, which give the same where there is VNNI.

onnxruntime's models are made as its documentation advises for a CPU: `quant_pre_process`, Q/DQ pairs, activations uint8 with zero points,
weights int8, symmetric and one scale a channel. The row of an engine is the file of `build-engine`, without which a program of one's own runs the exported files. All models are run in one process, by one pool of threads, each round in another order; figures are medians and the least.
"""

import argparse
import collections
import contextlib
import gzip
import io
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEPS = ROOT / ".deps"
sys.path.insert(1, str(DEPS / "python"))

import numpy
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

import calibration

FASHION_MNIST = DEPS / "data/fashion-mnist"
MEAN, STD = 0.2860, 0.3530
# Method, and whether ranges are symmetric (the default) or from the least to the greatest value.
OURS = {"max": ("max", "true"), "mse": ("mse", "true"), "max, affine": ("max", "false"), "mse, affine": ("mse", "false")}

# Imports PyTorch, which wants its libraries found.
PREPARE = """
import sys
from onnxruntime.quantization.shape_inference import quant_pre_process
quant_pre_process(sys.argv[1], sys.argv[2])
"""

TRAINED = """
extends = "{root}/pipelines/quickstart.toml"

[data.calibration]
format    = "idx"
path      = "{data}/train-images-idx3-ubyte.gz"
limit     = 1024
classes   = "${{params.classes}}"
transform = [{{ normalize = {{ mean = [{mean}], std = [{std}] }} }}]

[stages.beside_ranges]
kind    = "calibrate"
model   = "fp32.model"
data    = "data.calibration"
samples = 1024
"""

ACCURACY = """
extends = "{root}/pipelines/accuracy.toml"

[pipeline]
seed = {seed}

[params]
epochs = {epochs}

[data.calibration]
format    = "idx"
path      = "{data}/train-images-idx3-ubyte.gz"
limit     = 1024
transform = [{{ normalize = {{ mean = [{mean}], std = [{std}] }} }}]

[stages.beside_ranges]
kind    = "calibrate"
model   = "fp32[{network}].model"
data    = "data.calibration"
samples = 1024
"""

TORCHVISION = """
[data.calibration]
format    = "image-folder"
path      = "{folder}/data"
transform = [{{ normalize = {{ mean = {mean}, std = {std} }} }}]

[stages.beside_ranges]
kind    = "calibrate"
model   = {{ onnx = "{folder}/model.onnx" }}
data    = "data.calibration"
samples = {samples}
"""

FLOAT = """
[stages.beside_float]
kind  = "export-onnx"
model = {model}
batch = "dynamic"
"""

QUANTIZED = """
[stages.beside_{index}]
kind   = "insert-qdq"
model  = {model}
ranges = "beside_ranges"
method = "{method}"
target = "onnxruntime"
activations = {{ symmetric = {symmetric} }}

[stages.beside_file_{index}]
kind  = "export-onnx"
model = "beside_{index}.model"
batch = "dynamic"
"""

ENGINE = """
[stages.beside_engine]
kind  = "build-engine"
model = "beside_file_0.model"
"""


def made(qpipe, pipeline, stage):
    shown = subprocess.run([qpipe, "show", str(pipeline), stage, "--json"], check=True, capture_output=True, text=True)
    return json.loads(shown.stdout)["stages"][0]["outputs"][0]["path"]


def ours(qpipe, folder, text, model):
    """Runs a pipeline; the files of the float model and of ours, by name."""
    pipeline = folder / "beside.toml"
    text += FLOAT.format(model=model)
    stages = {"float": "beside_float"}
    for index, (name, (method, symmetric)) in enumerate(OURS.items()):
        text += QUANTIZED.format(index=index, model=model, method=method, symmetric=symmetric)
        stages[f"qpipe, {name}"] = f"beside_file_{index}"
    pipeline.write_text(text + ENGINE)
    stages[f"qpipe, {next(iter(OURS))}, engine"] = "beside_engine"
    ran = subprocess.run([qpipe, "run", str(pipeline), *stages.values()], capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"qpipe failed: {ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    files = {name: made(qpipe, pipeline, stage) for name, stage in stages.items()}
    return {name: os.path.join(path, "model.onnx") if os.path.isdir(path) else path for name, path in files.items()}


class Images(CalibrationDataReader):
    def __init__(self, images):
        self.batches = iter({"input": images[i : i + 32]} for i in range(0, len(images), 32))

    def get_next(self):
        return next(self.batches, None)


def theirs(folder, model, images, methods):
    """onnxruntime's own models, by name."""
    prepared, files = folder / "prepared.onnx", {}
    subprocess.run([sys.executable, "-c", PREPARE, str(model), str(prepared)], check=True, capture_output=True,
                   env=calibration.environment("pytorch", "python"))
    for method in methods:
        files[f"onnxruntime, {method}"] = path = str(folder / f"{method}.onnx")
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_static(
                str(prepared), path, Images(images), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod[method],
            )
    return files


def session(path, optimized=True, dump=None):
    options = onnxruntime.SessionOptions()
    options.use_per_session_threads = False
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    if dump:
        options.optimized_model_filepath = str(dump)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def operators(path, folder):
    """The operators that are run, most often first."""
    dump = folder / "optimized.onnx"
    session(path, dump=dump)
    count = collections.Counter(node.op_type for node in onnx.load(str(dump), load_external_data=False).graph.node)
    return ", ".join(f"{number} {name}" for name, number in count.most_common())


def top1(path, images, labels, optimized):
    runs, right = session(path, optimized), 0
    for i in range(0, len(images), 250):
        (logits,) = runs.run(None, {runs.get_inputs()[0].name: images[i : i + 250]})
        right += int((logits.argmax(1) == labels[i : i + 250]).sum())
    return 100 * right / len(images)


def measure(files, images, batch, rounds):
    """Seconds a batch of each model, one figure a round."""
    batch = numpy.ascontiguousarray(images[:batch])
    sessions = {name: session(path) for name, path in files.items()}
    run = {name: lambda s=s: s.run(None, {s.get_inputs()[0].name: batch}) for name, s in sessions.items()}
    times = {}
    for name, one in run.items():
        one()
        start = time.perf_counter()
        one()
        # So many that a figure is over 10 ms.
        times[name] = max(1, int(0.01 / (time.perf_counter() - start)))
    figures = {name: [] for name in run}
    order, shuffled = list(run.items()), random.Random(1)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name, one in order:
            one()
            start = time.perf_counter()
            for _ in range(times[name]):
                one()
            figures[name].append((time.perf_counter() - start) / times[name])
    return figures


def report(files, images, arguments, folder):
    for name, path in files.items():
        print(f"  {name:26} {operators(path, folder)}")
    for batch in map(int, arguments.batches.split(",")):
        figures = measure(files, images, batch, arguments.rounds)
        middle = {name: statistics.median(found) for name, found in figures.items()}
        least = {name: min(found) for name, found in figures.items()}
        for name in files:
            print(
                f"  batch {batch:2}  {name:26} median {1e3 * middle[name]:8.3f} ms, least {1e3 * least[name]:8.3f}"
                f"   {middle['float'] / middle[name]:5.2f} and {least['float'] / least[name]:5.2f} times float"
            )


def idx(name, header):
    with gzip.open(FASHION_MNIST / name) as file:
        return numpy.frombuffer(file.read(), dtype="u1", offset=header)


def pixels(name):
    images = idx(name, 16).reshape(-1, 1, 28, 28) / numpy.float32(255)
    return ((images - numpy.float32(MEAN)) / numpy.float32(STD)).astype("f4")


def trained(qpipe, folder):
    """Files of the models by name, and images."""
    text = TRAINED.format(root=ROOT, data=FASHION_MNIST, mean=MEAN, std=STD)
    files = ours(qpipe, folder, text, '"fp32.model"')
    images = pixels("train-images-idx3-ubyte.gz")[:1024]
    return {**files, **theirs(folder, files["float"], images, ["MinMax", "Entropy", "Percentile"])}, images


def accurate(network, seed, epochs):
    def made(qpipe, folder):
        text = ACCURACY.format(root=ROOT, data=FASHION_MNIST, mean=MEAN, std=STD, network=network, seed=seed, epochs=epochs)
        files = ours(qpipe, folder, text, f'"fp32[{network}].model"')
        images = pixels("train-images-idx3-ubyte.gz")[:1024]
        return {**files, **theirs(folder, files["float"], images, ["MinMax", "Entropy", "Percentile"])}, images

    return made


def torchvision(network):
    def made(qpipe, folder):
        calibration.make_images(folder)
        subprocess.run([sys.executable, "-c", calibration.PREPARE, str(folder), network], check=True,
                       env=calibration.environment("pytorch", "python"), capture_output=True)
        text = TORCHVISION.format(folder=folder, mean=calibration.MEAN, std=calibration.STD, samples=calibration.IMAGES)
        files = ours(qpipe, folder, text, f'{{ onnx = "{folder}/model.onnx" }}')
        images = numpy.load(folder / "images.npy")
        return {**files, **theirs(folder, folder / "model.onnx", images, ["MinMax"])}, images

    return made


def accuracy(files, only_fused):
    images, labels = pixels("t10k-images-idx3-ubyte.gz"), idx("t10k-labels-idx1-ubyte.gz", 8)
    for name, path in files.items():
        plain = "" if only_fused else f", without optimizations {top1(path, images, labels, False):.2f} %"
        print(f"  {name:26} top-1 {top1(path, images, labels, True):.2f} %{plain}", flush=True)


NETWORKS = {"trained": trained, **{name: torchvision(name) for name in ("resnet18", "mobilenet_v2")}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("qpipe")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--seeds", default="1", help="of the networks of accuracy.toml")
    parser.add_argument("--epochs", type=int, default=10, help="of float training of the networks of accuracy.toml")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--fused", action="store_true", help="top-1 as ONNX Runtime fuses alone")
    parser.add_argument("--folder", help="a new folder, which keeps all that is made")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    flags = Path("/proc/cpuinfo").read_text().split()
    vnni = sorted({flag for flag in flags if "vnni" in flag or flag == "amx_int8"})
    print(f"ONNX Runtime {onnxruntime.__version__}, {arguments.threads} threads, {', '.join(vnni) or 'no VNNI'}")
    with tempfile.TemporaryDirectory() as temporary:
        networks = {}
        for name in arguments.networks.split(","):
            if name in NETWORKS:
                networks[name] = NETWORKS[name]
                continue
            if not name.startswith("accuracy-"):
                parser.error(f"no network {name}: {', '.join(NETWORKS)}, accuracy-resnet18, accuracy-mobilenetv2")
            for seed in arguments.seeds.split(","):
                networks[f"{name}-{seed}"] = accurate(name.removeprefix("accuracy-"), seed, arguments.epochs)
        folders = {name: Path(arguments.folder or temporary).resolve() / name for name in networks}
        models = {}
        for name, folder in folders.items():
            folder.mkdir(parents=True)
            models[name] = networks[name](os.path.abspath(arguments.qpipe), folder)
        # One pool for all: threads that one model left waiting take no time from the next. From here on, no session has its own.
        onnxruntime.set_global_thread_pool_sizes(arguments.threads, 1)
        for name, (files, images) in models.items():
            print(name)
            report(files, images, arguments, folders[name])
            if name == "trained" or name.startswith("accuracy-"):
                accuracy(files, arguments.fused)


if __name__ == "__main__":
    main()
