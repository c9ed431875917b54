"""Prints what ONNX Runtime takes of memory: `BASE PEAK`, MiB, of this whole process before the model is read and at most.

    python ort_memory.py FILE SIDE

Batches of 8, two threads, ten runs, all optimizations.
"""

import re
import sys
from pathlib import Path

import numpy
import onnxruntime


def mib(key):
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found.group(1)) / 1024


def main(file, side):
    base = mib("VmRSS")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    images = numpy.random.default_rng(0).standard_normal((8, 3, side, side), dtype=numpy.float32)
    name = session.get_inputs()[0].name
    for _ in range(10):
        session.run(None, {name: images})
    print(base, mib("VmHWM"))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
