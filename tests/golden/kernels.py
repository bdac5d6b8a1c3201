"""Golden values of the map and resize kernels; writes map.txt and resize.txt beside itself.

Run: python tests/golden/kernels.py. One line a value set: name, then numbers. The inputs are hashes of
their index, so that the Rust tests make the same ones.
"""
from pathlib import Path

import numpy as np
import PIL
import scipy
import torch
import torchvision
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from torchvision.transforms import ToPILImage, ToTensor
from torchvision.transforms.v2.functional import resize

VERSIONS = (f"# kernels.py: torch {torch.__version__}, torchvision {torchvision.__version__}, "
            f"Pillow {PIL.__version__}, scipy {scipy.__version__}, numpy {np.__version__}")
HERE = Path(__file__).parent


def hashes(count):
    return (np.arange(count, dtype=np.uint64) * 2654435761) % 2**32


def floats(h, w):
    return ((hashes(h * w) >> 8).astype(np.float32) / np.float32(2**24)).reshape(h, w)


def levels(*shape):
    return (hashes(np.prod(shape)) >> 24).astype(np.uint8).reshape(shape)


def line(name, values):
    return " ".join([name, *(repr(v) for v in np.asarray(values).ravel().tolist())])


def write(name, lines):
    (HERE / name).write_text("\n".join([VERSIONS, *lines]) + "\n")


def pillow_blur(map_, radius):
    maximum = map_.max()
    image = ToPILImage()(torch.from_numpy(map_ / maximum)[None])
    return ToTensor()(image.filter(ImageFilter.GaussianBlur(radius))).numpy() * maximum


grid = torch.from_numpy(floats(7, 5))[None, None]
rows = [line(n, torch.nn.functional.interpolate(grid, size=s, mode="bilinear", align_corners=False))
        for n, s in {"up": (23, 16), "down": (3, 4), "mixed": (14, 2), "same": (7, 5)}.items()]
rows += [line(f"gauss_{s}", gaussian_filter(floats(12, 9), s)) for s in (0.7, 2, 4)]
rows += [line(f"pillow_{r}", pillow_blur(floats(12, 9), r)) for r in (2, 4, 0.5)]
rows += [line("pillow_line", pillow_blur(floats(1, 3), 2))]
write("map.txt", rows)

image = levels(13, 11, 3)
rows = []
for name, (h, w) in {"down": (5, 4), "up": (20, 23), "mixed": (7, 30), "half": (7, 6), "rows": (4, 11)}.items():
    rows.append(line(f"pillow_{name}", Image.fromarray(image).resize((w, h), Image.BILINEAR)))
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    rows.append(line(f"torch_{name}", resize(tensor, [h, w], antialias=True).permute(1, 2, 0)))
mask = Image.fromarray((levels(20, 16) > 60).astype(np.uint8) * 255)
rows.append(line("mask", np.asarray(mask.resize((8, 10), Image.BILINEAR)) // 255))
write("resize.txt", rows)
