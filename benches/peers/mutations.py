"""Compares what patchflow reads of damaged images with Pillow.

    cargo test --release --lib mutated_images_are_written -- --ignored
    python benches/peers/mutations.py

The test writes 20,000 damaged files (cut, ended with zeros, with flipped bits, with a hole) and what patchflow reads of
each into `target/mutations`. Pillow 13 reads them here. A file that patchflow reads and Pillow does not, or reads with
other pixels, is printed; the levels of JPEG and lossy WebP may differ a little (`NEAR`). Needs Pillow and NumPy.
"""

import collections
import pathlib
import sys
import warnings

import numpy as np
from PIL import Image, ImageOps

warnings.filterwarnings("ignore")
FOLDER = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/mutations")
NEAR = {"jpeg": 13, "webp": 6, "bmp": 1, "pnm": 1}


def read(path):
    image = Image.open(path)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return np.repeat(np.array(image)[..., None], 3, -1).astype(int)
    return np.array(image.convert("RGB")).astype(int)


def ours(path):
    data = path.read_bytes()
    image = Image.open(path)
    if data[24] == 16:
        # Pillow clips 16 bits of colour: the high bytes are enough to compare with what it reads.
        return None
    return np.array(image.convert("RGB")).astype(int)


def main():
    counts, differ = collections.Counter(), []
    # Pillow reads no PAM.
    for line in (FOLDER / "table.txt").read_text().splitlines():
        index, name, mutation, answer = line.split("\t", 3)
        kind = name.split("-")[0]
        if name.endswith(".pam"):
            continue
        if answer != "read":
            counts[kind, mutation, "refused"] += 1
            continue
        left = ours(FOLDER / f"{index}.png")
        try:
            right = read(FOLDER / f"{index}.bin")
        except Exception as error:
            counts[kind, mutation, "read, not by Pillow"] += 1
            differ.append(f"{index} {name} {mutation}: Pillow: {error}")
            continue
        if left is None:
            counts[kind, mutation, "read by both, 16 bits"] += 1
        elif right.max() > 255 and left.shape == right.shape and abs(left - right / 257).max() <= 1:
            counts[kind, mutation, "read alike"] += 1
        elif left.shape != right.shape or abs(left - right).max() > NEAR.get("jpeg" if "jpeg" in name else kind, 0):
            counts[kind, mutation, "read differently"] += 1
            worst = "size" if left.shape != right.shape else abs(left - right).max()
            differ.append(f"{index} {name} {mutation}: differs by {worst}")
        else:
            counts[kind, mutation, "read alike"] += 1
    for key, count in sorted(counts.items()):
        print(*key, count, sep="\t")
    print("\n".join(differ))


main()
