"""Makes the golden numbers of src/kernels/metrics/golden.rs.

Run: python tests/golden/metrics.py (needs numpy, scipy, scikit-learn). The data are made by the integer
formulas below, which golden.rs repeats, so that no file is needed. AUPRO is computed twice: as the pooled
curve of the MVTec AD authors' evaluation code (pixels sorted, a normal pixel moves x by 1/normals, a pixel
of a region of r moves y by 1/(r * regions), equal scores merged, cut at the limit by linear interpolation;
anomalib's AUPRO is the same in single precision), and as the mean over regions of the area under the
region's own ROC curve; the two must agree.
"""

import platform

import numpy as np
import scipy
import scipy.ndimage
import sklearn
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

IMAGES, HEIGHT, WIDTH = 24, 40, 32


def uniform(index):
    """Multiples of 2^-24 in [0, 1): splitmix64 (Steele et al. 2014) of the index."""
    with np.errstate(over="ignore"):
        z = (np.asarray(index, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)


def make_mask(image):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    if image % 3 != 2:
        return mask
    for j in range(1 + image // 3 % 3):
        top, left = (5 * image + 13 * j) % 30, (3 * image + 9 * j) % 24
        mask[top : top + 2 + (image + j) % 7, left : left + 2 + image * j % 6] = True
    if image % 2 == 0:
        for y in range(8):
            mask[y, 31 - y] = True
    return mask


def make_map(image, mask):
    index = image * HEIGHT * WIDTH + np.arange(HEIGHT * WIDTH)
    shift = np.float32(0.5) * uniform(1_000_000 + image)
    lift = np.where(mask, np.float32(0.35), np.float32(0))
    return (uniform(index) + shift).reshape(HEIGHT, WIDTH) + lift


def area_to(x, y, limit):
    """Trapezoids up to the limit, the crossing line cut by linear interpolation."""
    inside = x <= limit
    area = np.trapezoid(y[inside], x[inside])
    if not inside.all():
        last = inside.sum() - 1
        height = y[last] + (y[last + 1] - y[last]) * (limit - x[last]) / (x[last + 1] - x[last])
        area += (y[last] + height) / 2 * (limit - x[last])
    return area / limit


def aupro_pooled(maps, masks, limit):
    normal, change, regions = [], [], 0
    for mask in masks:
        label, count = scipy.ndimage.label(mask, structure=np.ones((3, 3), int))
        sizes = np.bincount(label.ravel())
        normal.append(label.ravel() == 0)
        change.append(np.where(label > 0, 1 / sizes[label], 0).ravel())
        regions += count
    scores = np.concatenate([one.ravel() for one in maps])
    normal, change = np.concatenate(normal), np.concatenate(change)
    order = np.argsort(scores, kind="stable")[::-1]
    x, y = np.cumsum(normal[order]) / normal.sum(), np.cumsum(change[order]) / regions
    keep = np.append(np.diff(scores[order]) != 0, True)
    return area_to(np.append(0, x[keep]), np.append(0, y[keep]), limit), regions


def aupro_by_region(maps, masks, limit):
    normal = np.concatenate([one[~mask] for one, mask in zip(maps, masks)])
    areas = []
    for one, mask in zip(maps, masks):
        label, count = scipy.ndimage.label(mask, structure=np.ones((3, 3), int))
        for region in range(1, count + 1):
            inside = one[label == region]
            truth = np.repeat([True, False], [inside.size, normal.size])
            x, y, _ = roc_curve(truth, np.concatenate([inside, normal]), drop_intermediate=False)
            areas.append(area_to(x, y, limit))
    return np.mean(areas)


def f1_max(truth, scores):
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    best = np.flatnonzero(f1[:-1] >= f1[:-1].max() - 1e-12)[-1]
    return f1[best], thresholds[best], precision[best], recall[best]


def show(name, value):
    print(f"{name:32} {value:.17g}")


def show_pixels(name, maps, masks):
    truth = np.concatenate([mask.ravel() for mask in masks])
    scores = np.concatenate([one.ravel() for one in maps])
    show(f"{name} auroc", roc_auc_score(truth, scores))
    show(f"{name} average_precision", average_precision_score(truth, scores))
    for part, value in zip(("f1_max", "threshold", "precision", "recall"), f1_max(truth, scores)):
        show(f"{name} {part}", value)
    for limit in (0.05, 0.3, 1.0):
        pooled, regions = aupro_pooled(maps, masks, limit)
        by_region = aupro_by_region(maps, masks, limit)
        assert abs(pooled - by_region) < 1e-12, (pooled, by_region)
        show(f"{name} aupro to {limit}", pooled)
    show(f"{name} regions", regions)
    show(f"{name} positives", truth.sum())
    show(f"{name} negatives", (~truth).sum())


def show_images(name, scores, truth):
    show(f"{name} auroc", roc_auc_score(truth, scores))
    show(f"{name} average_precision", average_precision_score(truth, scores))
    for part, value in zip(("f1_max", "threshold", "precision", "recall"), f1_max(truth, scores)):
        show(f"{name} {part}", value)


def main():
    print(
        f"numpy {np.__version__}, scipy {scipy.__version__}, scikit-learn {sklearn.__version__}, "
        f"Python {platform.python_version()}"
    )
    masks = [make_mask(image) for image in range(IMAGES)]
    maps = [make_map(image, mask) for image, mask in enumerate(masks)]
    show_pixels("pixels", maps, masks)
    show_pixels("tied pixels", [np.floor(one * np.float32(16)) / np.float32(16) for one in maps], masks)
    index = np.arange(90)
    truth = index % 4 == 1
    scores = uniform(2_000_000 + index) + np.where(truth, np.float32(0.4), np.float32(0))
    show_images("images", scores, truth)
    show_images("tied images", np.floor(scores * np.float32(16)) / np.float32(16), truth)


if __name__ == "__main__":
    main()
