#!/bin/bash
# One polygon has 42, 50 or 78 pixels, by the tool that draws it, and may fall into 12 pieces.
#
# The square with the corners (10, 10) and (20, 20) has 100 pixels in pycocotools 2.0.11 and 121 in Pillow 13.0.0 (which LabelMe
# draws with) and OpenCV 5.0.0: the latter include the border. A scratch of 1 px by 40 px that runs at 0.3 rad has 42, 50 and
# 78 pixels. One of 0.4 px has 15 in 12 pieces, 33 in 6 pieces, and 58 in one. Nothing warns of it. `ImageDraw.polygon` draws
# no outline if `outline` equals `fill`, which is how LabelMe calls it: with another value the scratch is in one piece.
#
# It matters for whoever compares pixel metrics: the ground truth of thin defects differs more between tools than the models
# that are compared on it.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check pillow==13.0.0 numpy==2.4.6 opencv-python-headless==5.0.0.93 pycocotools==2.0.11
"$folder/venv/bin/python" - <<'P'
import cv2
import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco

SIZE = 60


def scratch(width, length=40, angle=0.3):
    along = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    across = np.array([-np.sin(angle), np.cos(angle)]) * width / 2
    middle = np.array([30.3, 29.8])
    return [tuple(middle + a * along + b * across) for a, b in ((-1, 1), (1, 1), (1, -1), (-1, -1))]


def pillow(points, outline=1):
    image = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(image).polygon(points, outline=outline, fill=1)
    return np.array(image) > 0


def opencv(points):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillPoly(mask, [np.array(points).astype(np.int32)], 1)
    return mask > 0


def pycocotools(points):
    flat = [float(value) for point in points for value in point]
    return coco.decode(coco.frPyObjects([flat], SIZE, SIZE))[..., 0] > 0


def outlined(points):
    return pillow(points, outline=2)


seen = {}
shapes = {"square": [(10, 10), (20, 10), (20, 20), (10, 20)], "1 px": scratch(1), "0.4 px": scratch(0.4)}
for name, points in shapes.items():
    for draw in (pycocotools, pillow, outlined, opencv):
        mask = draw(points)
        pieces = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
        seen[name, draw.__name__] = (int(mask.sum()), pieces)
        print(f"{name}: {draw.__name__} {seen[name, draw.__name__][0]} px in {pieces} pieces")
right = {
    "square": [(100, 1), (121, 1), (121, 1), (121, 1)],
    "1 px": [(42, 1), (50, 1), (78, 1), (78, 1)],
    "0.4 px": [(15, 12), (33, 6), (60, 1), (58, 1)],
}
names = [draw.__name__ for draw in (pycocotools, pillow, outlined, opencv)]
assert {name: [seen[name, draw] for draw in names] for name in shapes} == right, "this has changed"
P
