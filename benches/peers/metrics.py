#!/usr/bin/env python3
"""Pixel metrics beside scikit-learn and anomalib, maps beside PyTorch and scipy: values, differences, time, memory.

usage: benches/peers/metrics.py [--quick] [--python PATH] [--folder FOLDER]

1004 maps of 632×224 (142 million pixels, 110 images with defects) are written into FOLDER, else into a temporary
one (1.5 GB), twice: as smooth scores and rounded to 64ths, so that nearly all are tied. Ours reads them image by
image. scikit-learn (AUROC, average precision, best F1) and anomalib's AUPRO get the same files as arrays, each in
a process of its own: all images, or the first 60 with --quick. A third reference, AUPRO as the MVTec AD authors
define it, is NumPy in double precision; anomalib computes in single precision. Resizing and blurring are compared
on 32 maps. The peers come from PyPI into benches/peers/.venv, or from the interpreter that --python names (torch,
scikit-learn, scipy; anomalib 2.7, torchmetrics, kornia, opencv-python-headless, matplotlib). Without anomalib the
row is left out, and said so.

Exits with 1 where a value differs by more than 1e-6 (maps: of their range), or where 1, 2 and 4 threads do not
print the same. The last line is one JSON object, with the medians of three runs of ours on all images.
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import peer

PACKAGES = [
    "torch==2.13.0",
    "numpy",
    "scipy",
    "scikit-learn",
    "torchmetrics",
    "kornia",
    "matplotlib",
    "opencv-python-headless",
]
COUNT, HEIGHT, WIDTH = 1004, 632, 224
SUBSET = 60
MAPS = 32
TOLERANCE = 1e-6
METRICS = ["auroc", "average_precision", "f1_max", "aupro"]
WORKER = r"""
import importlib.util, json, os, resource, sys, time, types
import numpy as np
peer, folder, count, height, width = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
pixels = height * width

def read():
    maps = np.fromfile(folder + "/maps.f32", "<f4", count * pixels).reshape(count, height, width)
    masks = np.fromfile(folder + "/masks.u8", "u1", count * pixels).reshape(count, height, width)
    return maps, masks

def area_to(x, y, limit):
    inside = x <= limit
    area = np.trapezoid(y[inside], x[inside])
    if not inside.all():
        last = inside.sum() - 1
        end = y[last] + (y[last + 1] - y[last]) * (limit - x[last]) / (x[last + 1] - x[last])
        area += (y[last] + end) / 2 * (limit - x[last])
    return area / limit

def sklearn():
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
    def run(maps, masks):
        labels, scores = masks.ravel(), maps.ravel()
        auroc, ap = roc_auc_score(labels, scores), average_precision_score(labels, scores)
        timed = time.perf_counter()
        precision, recall, _ = precision_recall_curve(labels, scores)
        with np.errstate(invalid="ignore"):
            f1 = float(np.nanmax(2 * precision * recall / (precision + recall)))
        return {"auroc": auroc, "average_precision": ap, "f1_max": f1}, time.perf_counter() - timed
    return run

def anomalib():
    # Its own file and what that needs: the package's __init__ would load every model of the library.
    root = os.path.dirname(importlib.util.find_spec("anomalib").origin)
    for name in ["anomalib", "anomalib.metrics", "anomalib.utils"]:
        module = types.ModuleType(name)
        module.__path__ = [os.path.join(root, *name.split(".")[1:])]
        sys.modules[name] = module
    sys.modules["anomalib.data"] = types.ModuleType("anomalib.data")
    sys.modules["anomalib.data"].Batch = object
    from anomalib.metrics.aupro import _AUPRO
    import torch
    def run(maps, masks):
        metric = _AUPRO(fpr_limit=0.3)
        metric.update(torch.from_numpy(maps), torch.from_numpy(masks))
        return {"aupro": float(metric.compute())}, 0
    return run

def numpy():
    import scipy.ndimage
    def run(maps, masks):
        gain, regions = np.zeros(masks.shape), 0
        for image in np.flatnonzero(masks.any(axis=(1, 2))):
            label, found = scipy.ndimage.label(masks[image], structure=np.ones((3, 3), int))
            sizes = np.bincount(label.ravel()).astype(float)
            gain[image] = np.where(label > 0, 1 / sizes[label], 0)
            regions += found
        order = np.argsort(maps, axis=None)[::-1]
        scores, normal, gain = maps.ravel()[order], masks.ravel()[order] == 0, gain.ravel()[order]
        del order
        keep = np.append(scores[1:] != scores[:-1], True)
        x, y = np.cumsum(normal)[keep] / normal.sum(), np.cumsum(gain)[keep] / regions
        return {"aupro": area_to(np.append(0, x), np.append(0, y), 0.3)}, 0
    return run

def maps_of(count, sigma=4.0):
    import scipy.ndimage, torch
    torch.set_num_threads(1)  # ours takes one thread a map as well
    maps, _ = read()
    h, w = height // 8, width // 8
    patches = torch.from_numpy(maps.reshape(count, -1)[:, : h * w].reshape(count, 1, h, w).copy())
    torch.nn.functional.interpolate(patches[:1], size=(height, width), mode="bilinear", align_corners=False)
    start = time.perf_counter()
    up = [torch.nn.functional.interpolate(one[None], size=(height, width), mode="bilinear", align_corners=False)
          for one in patches]
    middle = time.perf_counter()
    blur = [scipy.ndimage.gaussian_filter(one, sigma) for one in maps]
    end = time.perf_counter()
    ours = {name: np.fromfile(f"{folder}/{name}.f32", "<f4").reshape(maps.shape) for name in ["up", "blur"]}
    scale = float(maps.max() - maps.min())
    differ = lambda theirs, name: float(np.abs(np.stack(theirs) - ours[name]).max()) / scale
    return {"up_seconds": middle - start, "blur_seconds": end - middle,
            "up": differ([one[0, 0].numpy() for one in up], "up"), "blur": differ(blur, "blur")}

if peer == "maps":
    print(json.dumps(maps_of(count)))
else:
    run = {"sklearn": sklearn, "anomalib": anomalib, "numpy": numpy}[peer]()
    started, cpu = time.perf_counter(), time.process_time()
    found, beside = run(*read())
    found = {name: float(value) for name, value in found.items()}
    found |= {"seconds": time.perf_counter() - started - beside, "cpu_seconds": time.process_time() - cpu,
              "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    print(json.dumps(found))
"""


def shape(count):
    return [str(number) for number in (count, HEIGHT, WIDTH)]


def ours(program, folder, count, *options):
    command = [program, str(folder), *shape(count), *options]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(printed) if printed.strip() else {}


def figures(python, name, folder, count):
    """What a peer prints, or `None` if it cannot run here."""
    command = [python, "-c", WORKER, name, str(folder), *shape(count)]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode == 0:
        return json.loads(ended.stdout.splitlines()[-1])
    last = (ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"])[-1]
    print(f"  {name} cannot run here, left out: {last}", flush=True)
    return None


def costs(found):
    return f"{found['seconds']:8.2f} s {found['cpu_seconds']:8.2f} CPU s {found['peak_gib']:7.3f} GiB"


def compare(program, python, folder, kind, count):
    """Prints ours and the peers side by side; gives the worst difference and the peers that ran."""
    print(f"{kind}: {count} maps of {HEIGHT}×{WIDTH}, {count * HEIGHT * WIDTH / 1e6:.1f} million pixels")
    mine, worst, ran = ours(program, folder, count), 0.0, {}
    print(f"  {'ours':10} {costs(mine)}  " + "  ".join(f"{name} {mine[name]:.9f}" for name in METRICS), flush=True)
    for name in ["sklearn", "anomalib", "numpy"]:
        theirs = figures(python, name, folder, count)
        if theirs is None:
            continue
        ran[name] = theirs
        both = [metric for metric in METRICS if metric in theirs]
        shown = [f"{metric} {theirs[metric]:.9f} ({theirs[metric] - mine[metric]:+.1e})" for metric in both]
        print(f"  {name:10} {costs(theirs)}  " + "  ".join(shown), flush=True)
        worst = max([worst, *(abs(theirs[metric] - mine[metric]) for metric in both)])
    return worst, ran


def compare_threads(program, folder):
    """Whether 1, 2 and 4 threads give the same metrics and intervals of all images."""
    def printed(threads):
        found = ours(program, folder, COUNT, "--bootstrap", "200", "--threads", str(threads))
        return {name: value for name, value in found.items() if "seconds" not in name and name != "peak_gib"}
    one, two, four = printed(1), printed(2), printed(4)
    print(f"1, 2 and 4 threads print the same: {one == two == four}")
    stated = ["auroc", "average_precision", "aupro"]
    bounds = (f"{name} {error:.1e} (stated {bound:.1e})"
              for name, error, bound in zip(stated, one["measured"], one["stated"]))
    print("error of the bootstrap's bins on the whole set: " + ", ".join(bounds), flush=True)
    return one == two == four and all(e <= b + 1e-12 for e, b in zip(one["measured"], one["stated"]))


def compare_maps(program, python, folder):
    mine = ours(program, folder, MAPS, "--maps", "4")
    theirs = figures(python, "maps", folder, MAPS)
    if theirs is None:
        return 0.0, {}
    ratios = {}
    for name, what in [("up", "resize, PyTorch"), ("blur", "Gaussian σ 4, scipy")]:
        seconds = f"{name}_seconds"
        ratios[name] = theirs[seconds] / mine[seconds]
        print(f"{what}: differs by {theirs[name]:.1e} of the range; ours {mine[seconds] / MAPS * 1e3:.2f} ms a map, "
              f"theirs {theirs[seconds] / MAPS * 1e3:.2f} ms ({ratios[name]:.2f} of ours)", flush=True)
    return max(theirs["up"], theirs["blur"]), ratios


def run(arguments, folder):
    python = peer.interpreter(arguments.python, PACKAGES, alone=["anomalib==2.7.*"])
    program = peer.bench("metrics_speed")
    worst, result, is_same = 0.0, {}, True
    for kind in ["smooth", "tied"]:
        inside = folder / kind
        inside.mkdir(parents=True, exist_ok=True)
        ours(program, inside, COUNT, "--make", kind)
        runs = [ours(program, inside, COUNT) for _ in range(3)]
        name = "metrics-142m" if kind == "smooth" else f"metrics-142m-{kind}"
        for what in ["seconds", "cpu_seconds", "peak_gib"]:
            result[f"{name}/{what}"] = round(statistics.median(run[what] for run in runs), 3)
        count = SUBSET if arguments.quick else COUNT
        off, ran = compare(program, python, inside, kind, count)
        worst = max(worst, off)
        if not arguments.quick:
            for peer_name, found in ran.items():
                result[f"{name}/{peer_name}_seconds"] = round(found["seconds"], 1)
                result[f"{name}/{peer_name}_peak_gib"] = round(found["peak_gib"], 2)
        if kind == "smooth":
            is_same = compare_threads(program, inside)
            of_maps, ratios = compare_maps(program, python, inside)
            worst = max(worst, of_maps)
            result |= {f"{name}/ratio_to_peer": round(ratio, 2) for name, ratio in ratios.items()}
        for made in inside.iterdir():
            made.unlink()
    result["metrics/worst_difference"] = worst
    print(f"worst difference {worst:.1e}, {TOLERANCE:.0e} is allowed")
    print(json.dumps(result))
    return 0 if is_same and worst <= TOLERANCE else 1


def main():
    parser = peer.parser(__doc__, quick="the peers get 60 images")
    parser.add_argument("--folder", type=pathlib.Path, help="where the maps are written, and removed after")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="patchflow-metrics-") as temporary:
        sys.exit(run(arguments, arguments.folder or pathlib.Path(temporary)))


if __name__ == "__main__":
    main()
