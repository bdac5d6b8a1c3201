"""Makes `polygons.txt`: the pixels that tools give to outlines.

Run with pycocotools 2.0.11, labelme 6.3 (`pip install --no-deps`: its interface is not needed), Pillow 13, OpenCV 4.12 or
5.0, rasterio 1.4 and NumPy 2 from the repository's root: `python tests/golden/polygons.py`.

A line is `rule kind height width : x y x y … : run lengths`, row-major, beginning with unmarked pixels. For `runs` the middle
is the compressed text of pycocotools.
"""

import importlib.metadata
import importlib.util
import pathlib
import sys
import types

import cv2
import numpy as np
import rasterio.features
import rasterio.transform
from pycocotools import mask as coco

RANDOM = np.random.default_rng(20261129)
LINES = []


def without_interface():
    """Returns the module of labelme that draws, without the package around it, which needs Qt."""
    file = next(f for f in importlib.metadata.files("labelme") if str(f).endswith("utils/shape.py"))
    # It imports one type from there.
    sys.modules["labelme"] = types.ModuleType("labelme")
    sys.modules["labelme._label_file"] = types.ModuleType("labelme._label_file")
    sys.modules["labelme._label_file"].ShapeDict = dict
    spec = importlib.util.spec_from_file_location("shape", file.locate())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shape_to_mask = without_interface().shape_to_mask


def runs(mask):
    flat = np.asarray(mask, bool).ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    ends = [0, *changes, flat.size] if not flat[0] else [0, 0, *changes, flat.size]
    return " ".join(str(b - a) for a, b in zip(ends, ends[1:]))


def line(rule, kind, size, middle, mask):
    assert mask.shape == size, (mask.shape, size)
    LINES.append(f"{rule} {kind} {size[0]} {size[1]} : {middle} : {runs(mask)}")


def rings(h, w):
    """Returns rings of every sort: squares, scratches, stars, crossings, level edges, points on and beyond the border."""
    yield [(10, 10), (20, 10), (20, 20), (10, 20)]
    yield [(10, 20), (20, 20), (20, 10), (10, 10)]
    yield [(0, 0), (w, 0), (w, h), (0, h)]
    yield [(-1, -1), (w + 1, -1), (w + 1, h + 1), (-1, h + 1)]
    yield [(3, 3), (9, 3), (15, 3), (15, 9), (9, 9), (3, 9)]
    yield [(4, 4), (20, 4), (4, 16), (20, 16)]
    yield [(5.5, 5.5), (5.5, 5.5), (15.5, 5.5), (15.5, 12.5)]
    yield [(2, 2), (2.2, 2), (2.2, 2.2)]
    yield [(1, 1), (25, 17), (1, 1)]
    yield [(4, 9), (20, 9), (12, 9)]
    yield [(7, 2), (7, 18), (7, 10)]
    yield [(0, 10), (14, 3), (28, 10), (14, 11)]
    for width in (0.4, 1, 2, 3, 5):
        for angle in (0, 0.1, 0.7, 1.2, 2.5):
            along = np.array([np.cos(angle), np.sin(angle)])
            across = np.array([-along[1], along[0]]) * width / 2
            middle = np.array([w / 2 + 0.3, h / 2 - 0.2])
            ends = [middle - 9 * along, middle + 9 * along]
            yield [ends[0] + across, ends[1] + across, ends[1] - across, ends[0] - across]
    for count in (3, 4, 5, 7, 11, 30):
        for decimals in (0, 1, 2, 15):
            yield np.round(RANDOM.uniform([-1, -1], [w + 1, h + 1], (count, 2)), decimals)
            turns = np.sort(RANDOM.uniform(0, 2 * np.pi, count))
            far = RANDOM.uniform(2, min(h, w) / 2, count)
            star = np.stack([w / 2 + far * np.cos(turns), h / 2 + far * np.sin(turns)], 1)
            yield np.round(star, decimals)


def main():
    h, w = 24, 31
    for ring in rings(h, w):
        points = [(float(x), float(y)) for x, y in ring]
        flat = [value for point in points for value in point]
        text = " ".join(repr(value) for value in flat)
        line("coco", "ring", (h, w), text, coco.decode(coco.frPyObjects([flat], h, w))[..., 0])
        line("labelme", "ring", (h, w), text, shape_to_mask((h, w), points, "polygon"))
        filled = np.zeros((h, w), np.uint8)
        cv2.fillPoly(filled, [np.array(points).astype(np.int32)], 1)
        line("opencv", "ring", (h, w), text, filled)
        # No centre of a pixel lies on an edge: GDAL has rules of its own for that.
        points = [(x + 0.0123456, y + 0.0076543) for x, y in points]
        text = " ".join(repr(value) for point in points for value in point)
        shape = {"type": "Polygon", "coordinates": [[*points, points[0]]]}
        identity = rasterio.transform.Affine.identity()
        try:
            exact = rasterio.features.rasterize([shape], (h, w), transform=identity)
            line("centre", "ring", (h, w), text, exact)
        except ValueError as error:
            print("rasterio refuses", text, error)
    for _ in range(12):
        a, b = RANDOM.uniform([-1, -1], [w + 1, h + 1], (2, 2)).round(2).tolist()
        text = " ".join(map(repr, [*a, *b]))
        corners = [[min(a[0], b[0]), min(a[1], b[1])], [max(a[0], b[0]), max(a[1], b[1])]]
        line("labelme", "rectangle", (h, w), text, shape_to_mask((h, w), corners, "rectangle"))
    circles = [((12.5, 12), (12.5, 12.3)), ((5, 5), (5, 6)), ((5.5, 5), (7, 6))]
    circles += [tuple(map(tuple, RANDOM.uniform([4, 4], [w - 4, h - 4], (2, 2)).round(2))) for _ in range(30)]
    for centre, rim in circles:
        text = " ".join(repr(float(value)) for value in (*centre, *rim))
        line("labelme", "circle", (h, w), text, shape_to_mask((h, w), [centre, rim], "circle"))
    for share in (0, 0.02, 0.3, 0.9, 1):
        mask = np.asfortranarray(RANDOM.uniform(0, 1, (h, w)) < share, np.uint8)
        line("coco", "runs", (h, w), coco.encode(mask)["counts"].decode(), mask)
    large = np.zeros((300, 400), np.uint8, order="F")
    large[100:220, 30:390] = 1
    line("coco", "runs", large.shape, coco.encode(large)["counts"].decode(), large)
    names = ["pycocotools", "labelme", "Pillow", "opencv-python-headless", "rasterio", "numpy"]
    made = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    target = pathlib.Path(__file__).with_suffix(".txt")
    target.write_text("\n".join([f"# polygons.py: {made}", *LINES]) + "\n")
    print(len(LINES), "lines,", made, file=sys.stderr)


main()
