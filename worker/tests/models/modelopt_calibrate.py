"""What ModelOpt's calibrators make of batches of tensors.

    python modelopt_calibrate.py FOLDER BINS METHOD...

FOLDER/batch_0.npz and so on hold one array a tensor; FOLDER/weights.npz one a weight, output channels first. Prints JSON:
`tensors` has `amax` by method of each tensor, `weights` the largest magnitudes of each weight's channels.
"""

import json
import sys
from pathlib import Path

import numpy
import torch
from modelopt.torch.quantization.calib import HistogramCalibrator, MaxCalibrator, histogram

STANDARD = histogram.fake_tensor_quant


def as_meant(inputs, amax, num_bits, unsigned):
    """ModelOpt 0.47 gives `num_bits` and `unsigned` by position where `fake_tensor_quant` takes `bias` and `num_bits`: the inputs
    are shifted by 8 and quantized to `False` bits. Here each gets what is meant for it; the search round it stays ModelOpt's. In
    float64, since the sums of float32 do not tell neighbouring candidates from one another."""
    return STANDARD(inputs.double(), amax.double(), None, num_bits, unsigned)


def calibrate(batches, bins, methods):
    by_histogram, largest = HistogramCalibrator(num_bins=bins), MaxCalibrator()
    for batch in batches:
        by_histogram.collect(batch)
        largest.collect(batch)
    found = {"max": float(largest.compute_amax())}
    for method in methods:
        histogram.fake_tensor_quant = as_meant
        found[method] = float(by_histogram.compute_amax(method))
        if method == "mse":
            histogram.fake_tensor_quant = STANDARD
            found["mse_as_shipped"] = float(by_histogram.compute_amax(method))
    return found


def main():
    folder, bins, methods = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    batches = [numpy.load(path) for path in sorted(folder.glob("batch_*.npz"))]
    tensors = {
        name: calibrate([torch.from_numpy(batch[name]) for batch in batches], bins, methods) for name in batches[0].files
    }
    weights = {}
    for name, values in numpy.load(folder / "weights.npz").items():
        calibrator = MaxCalibrator(axis=0)
        calibrator.collect(torch.from_numpy(values))
        weights[name] = calibrator.compute_amax().flatten().tolist()
    print(json.dumps({"tensors": tensors, "weights": weights}))


if __name__ == "__main__":
    main()
