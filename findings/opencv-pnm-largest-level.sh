#!/bin/bash
# OpenCV 4.12.0 and 5.0.0 pass over the largest level in the header of a PGM or PPM file.
#
# The format (netpbm, pgm(5)) says that a level is a share of `maxval`: in a file with `100`, the level 100 is white. Pillow
# 13.0.0 scales it to 255. `cv2.imread` returns 100, without a warning. A camera of 10 or 12 bits that writes `1023` or
# `4095`, as the format asks, comes out of OpenCV with levels up to 1023 or 4095 of 65535 in a 16-bit array, or, read as 8
# bits (the default of `imread`), as the high byte: a white of 4095 is 15. The same surface is nearly black in one tool and
# right in the other.
#
# It matters for whoever compares two pipelines: the difference looks like one of the model.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pillow==13.0.0 numpy==2.4.6 opencv-python-headless==5.0.0.93
"$folder/venv/bin/python" - "$folder" <<'P'
import sys
import cv2
import numpy as np
from PIL import Image

folder = sys.argv[1]
seen = {}
for largest in (100, 255, 4095, 65535):
    path = f"{folder}/{largest}.pgm"
    level = largest.to_bytes(1 if largest < 256 else 2, "big")
    open(path, "wb").write(b"P5 2 1 %d\n" % largest + bytes(len(level)) + level)
    pillow = int(np.array(Image.open(path)).max())
    seen[largest] = (pillow, int(cv2.imread(path).max()), int(cv2.imread(path, cv2.IMREAD_UNCHANGED).max()))
    print(f"white of {largest}: Pillow {seen[largest][0]}, imread {seen[largest][1]}, imread unchanged {seen[largest][2]}")
right = {100: (255, 100, 100), 255: (255, 255, 255), 4095: (65535, 15, 4095), 65535: (65535, 255, 65535)}
assert seen == right, "this has changed"
P
