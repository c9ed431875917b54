"""Ranges of one's own: reads a file of ranges, adds `custom` to each tensor, writes it. Standard library only.

The form of the file is described in docs/ranges.md. The rule here is an example, no recommendation: the geometric mean of the
largest magnitude and the one of least squared error, so that outliers count, but not fully.
"""

import json
import math
import os


def choose(amax):
    return math.sqrt(amax["max"] * amax["mse"])


def main():
    with open(os.environ["QPIPE_IN_RANGES"], encoding="utf-8") as file:
        ranges = json.load(file)
    if ranges["version"] != 2:
        raise SystemExit(f"ranges of version {ranges['version']}, expected 2")
    for tensor in ranges["tensors"]:
        tensor["amax"]["custom"] = choose(tensor["amax"])
    with open(os.environ["QPIPE_OUT_RANGES"], "w", encoding="utf-8") as file:
        json.dump(ranges, file, indent=2)
    print(f"{len(ranges['tensors'])} tensors")


if __name__ == "__main__":
    main()
