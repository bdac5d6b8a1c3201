#!/usr/bin/env python3
"""The coreset beside anomalib's KCenterGreedy and an approximate greedy in PyTorch: CPU seconds, wall, memory.

usage: benches/peers/coreset.py [--quick] [--avx2] [--threads N] [--python PATH] [--base FILE.f16 [--grown ROWS]]

200,000 x 1024 generated features (groups on 40 latent directions, noise) -> 2,000 rows, projection included, all on
the same file, each in a process of its own, in turn. anomalib's cost a pick is constant, so --quick (under five
minutes) times it with two smaller counts and extends the line through both; such figures are marked "~".
--base names rows of 384 f16, image by image of 40 x 14 patches (real features): the naive algorithm must choose the
same 500 of 50,000 of them, and KSDD2's size, 1,167,600 x 1536 -> 11,676 (--grown: other rows, 1 % of them), is grown
from them. The peers come from PyPI into benches/peers/.venv, or from the interpreter that --python names. All run on the
same cores, and each row says which vector instructions it used. --avx2 hides AVX-512 from all.
The last line is one JSON object.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import peer

PACKAGES = ["torch==2.13.0", "numpy", "scikit-learn", "tqdm"]
ROWS, WIDTH, PICKS = 200_000, 1024, 2_000
QUICK_PICKS = (50, 150)
# anomalib's package imports its whole tree of dependencies; the two files that are needed import four of them.
ANOMALIB = r"""
import importlib.util, pathlib, sys, types
import numpy as np, torch
torch.set_num_threads(int(sys.argv[4]))
root = pathlib.Path(importlib.util.find_spec("anomalib").submodule_search_locations[0])
components = "anomalib.models.components"
for name in ["anomalib", "anomalib.models", components, components + ".sampling",
             components + ".dimensionality_reduction"]:
    sys.modules[name] = module = types.ModuleType(name)
    module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
reduction = importlib.import_module(components + ".dimensionality_reduction.random_projection")
sys.modules[components + ".dimensionality_reduction"].SparseRandomProjection = reduction.SparseRandomProjection
sampling = importlib.import_module(components + ".sampling.k_center_greedy")
features = torch.from_numpy(np.fromfile(sys.argv[1], np.float32).reshape(-1, int(sys.argv[2])))
ratio = (int(sys.argv[3]) + 0.5) / len(features)
print(len(set(sampling.KCenterGreedy(features, ratio).select_coreset_idxs())))
print(torch.backends.cpu.get_cpu_capability().lower())
"""
# Written anew after its description (Roth et al. 2022 and the authors' README): project to 128 dimensions, start
# from the mean distance to 10 random rows, then one pass over all rows a pick.
APPROXIMATE = r"""
import sys
import numpy as np, torch
torch.set_num_threads(int(sys.argv[4]))
torch.manual_seed(0)
features = torch.from_numpy(np.fromfile(sys.argv[1], np.float32).reshape(-1, int(sys.argv[2])))
points = features @ (torch.randn(features.shape[1], 128) / 128**0.5)
norms = points.square().sum(1)
def distances(rows):
    return (norms[:, None] + norms[rows] - 2 * (points @ points[rows].T)).clamp(min=0).sqrt()
nearest = distances(torch.randperm(len(points))[:10]).mean(1)
chosen = []
for _ in range(int(sys.argv[3])):
    chosen.append(int(nearest.argmax()))
    nearest = torch.minimum(nearest, distances([chosen[-1]])[:, 0])
print(len(set(chosen)))
print(torch.backends.cpu.get_cpu_capability().lower())
"""


def timed(command):
    """Runs a command; gives its standard output, CPU seconds, wall seconds and peak memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    output = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"failed: {' '.join(map(str, command))[:200]}")
    wall = time.perf_counter() - started
    return output, used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024


def shown(name, instructions, cpu, wall, memory, mark=""):
    print(f"{name:34} {instructions:22} {mark}{cpu:8.2f} CPU s  {mark}{wall:8.2f} s  {memory:6.0f} MiB", flush=True)


def peers(program, python, folder, quick, threads):
    """Times everybody on the generated file; gives the figures by name."""
    file = os.path.join(folder, "clusters.f32")
    subprocess.run([program, "clusters", str(ROWS), str(WIDTH), file], check=True)
    arguments = [file, str(WIDTH)]
    counts = QUICK_PICKS if quick else (PICKS,)
    ours_runs, approximate_runs, anomalib_runs = [], [], {count: [] for count in counts}
    for _ in range(1 if quick else 3):
        for count in counts:
            anomalib_runs[count].append(timed([python, "-c", ANOMALIB, *arguments, str(count), str(threads)]))
            ours_runs.append(timed([program, "pick", *arguments, str(PICKS), str(threads)]))
        approximate_runs.append(timed([python, "-c", APPROXIMATE, *arguments, str(PICKS), str(threads)]))
        ours_runs.append(timed([program, "pick", *arguments, str(PICKS), str(threads)]))
    median = lambda runs: [statistics.median(values) for values in zip(*(run[1:] for run in runs))]
    inner = [json.loads(run[0]) for run in ours_runs]
    picks_s = statistics.median(run["picks_s"] for run in inner)
    picks_cpu = statistics.median(run["picks_cpu_s"] for run in inner)
    mine, torch = inner[0]["instructions"], approximate_runs[0][0].split()[-1]
    cpu, wall, memory = median(ours_runs)
    print(f"{ROWS} x {WIDTH} -> {PICKS}, projection and reading included", flush=True)
    shown("patchflow", mine, cpu, wall, memory)
    shown("  of that the picks", mine, picks_cpu, picks_s, memory)
    shown("approximate greedy (PyTorch)", torch, *median(approximate_runs))
    anomalib = [median(anomalib_runs[count]) for count in counts]
    for count, (peer_cpu, peer_wall, peer_memory) in zip(counts, anomalib):
        shown(f"anomalib KCenterGreedy, {count} picks", torch, peer_cpu, peer_wall, peer_memory)
    whole = anomalib[-1]
    if quick:
        (few, many), (low, high) = counts, anomalib
        extend = lambda a, b: b + (b - a) / (many - few) * (PICKS - many)
        whole = [extend(low[0], high[0]), extend(low[1], high[1]), high[2]]
        shown(f"anomalib KCenterGreedy, {PICKS} picks", torch, *whole, mark="~")
    return {
        "coreset-200k/anomalib-cpu-ratio": round(whole[0] / cpu, 1),
        "coreset-200k/approximate-cpu-ratio": round(median(approximate_runs)[0] / cpu, 1),
        "coreset-200k/picks_s": round(picks_s, 3),
        "coreset-200k/picks_cpu_s": round(picks_cpu, 3),
    }


def grown(program, folder, base, rows, threads):
    """The real features: the naive algorithm's own picks, and a size of KSDD2."""
    print(timed([program, "check", base, "384", "50000", "500"])[0].strip())
    file = os.path.join(folder, "grown.f16")
    subprocess.run([program, "grow", base, str(rows), file], check=True)
    output, cpu, wall, memory = timed([program, "pick", file, "1536", str(rows // 100), str(threads)])
    os.remove(file)
    figures = json.loads(output)
    print(f"{rows} x 1536 -> {rows // 100}")
    shown("patchflow", figures["instructions"], cpu, wall, memory)
    shown("  of that the picks", figures["instructions"], figures["picks_cpu_s"], figures["picks_s"], memory)
    return {f"coreset-grown-{rows}/s": round(wall, 2), f"coreset-grown-{rows}/peak_mib": round(memory)}


def main():
    parser = peer.parser(__doc__, quick="anomalib extended from fewer picks")
    parser.add_argument("--base", help="rows of 384 f16 of real features")
    parser.add_argument("--grown", type=int, default=1_167_600, help="rows grown from them")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    python = peer.interpreter(arguments.python, PACKAGES, alone=["anomalib==2.7.*"])
    program = peer.bench("coreset_speed")
    peer.hold(arguments.avx2, arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = peers(program, python, folder, arguments.quick, arguments.threads)
        if arguments.base:
            figures |= grown(program, folder, arguments.base, arguments.grown, arguments.threads)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
