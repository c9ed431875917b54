"""What torchvision makes of images of many sizes.

    python images.py FOLDER

Writes FOLDER/images/class/NN.png of noise, and FOLDER/expected.npz: `NAME_NN`, uint8 `[C, H, W]`, of each chain of transforms NAME below.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

SIZES = [(7, 9), (16, 16), (17, 33), (100, 151), (151, 100), (300, 17), (15, 400), (33, 35), (480, 640), (1, 1), (2, 3), (700, 1000), (16, 17), (18, 16), (9, 16), (512, 300)]


def window(image):
    """The largest window in the middle with a ratio of 12 to 10, at that size."""
    width, height = image.size
    scale = min(height / 12, width / 10)
    rows, columns = (min(max(round(side * scale), 1), most) for side, most in ((12, height), (10, width)))
    return functional.resized_crop(image, (height - rows) // 2, (width - columns) // 2, rows, columns, (12, 10))


CHAINS = {
    "exact": transforms.Resize((16, 16)),
    "flat": transforms.Resize((16, 400)),
    "middle": transforms.Compose([transforms.Resize(20), transforms.CenterCrop(16)]),
    "gray": transforms.Compose([transforms.Grayscale(), transforms.Resize((15, 22))]),
    "window": window,
    "flipped": transforms.Compose([transforms.RandomVerticalFlip(1), transforms.Resize((16, 16)), transforms.RandomHorizontalFlip(1)]),
}

folder = Path(sys.argv[1])
images = folder / "images" / "class"
images.mkdir(parents=True)
random = np.random.default_rng(2)
expected = {}
for index, (height, width) in enumerate(SIZES):
    image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    image.save(images / f"{index:02}.png")
    for name, chain in CHAINS.items():
        pixels = np.asarray(chain(image))
        expected[f"{name}_{index:02}"] = np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1))
np.savez(folder / "expected.npz", **expected)
