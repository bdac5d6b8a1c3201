#!/usr/bin/env python3
"""The exact search beside faiss IndexFlatL2: milliseconds, medians, ratios faiss/ours, and whether they agree.

usage: benches/peers/nearest.py [--quick] [--avx2] [--data FOLDER --weights FOLDER] [--k K] [--threads N] [--python PATH]

2,000 queries against banks of 20,000 and 2,000 rows of 384 numbers. With --data (KSDD as train/ and test/ folders)
and --weights (ResNet18's), `patchflow run` makes real features: the bank is the greedy k-center coreset of the
training normals, the smaller bank its first rows, the queries are random test patches. Without them the features
are generated (groups in 60 directions of falling variance, and noise), and the table says so. 1024 numbers are
always generated, and so is the unstructured noise.

The ratio is of the search alone, as `add` of faiss computes its norms beforehand; what both do before their first
timed search is in the column `prepare` (ours includes two searches, and the codes). Both run on the same cores, a search of
one after a search of the other; each row says which vector instructions either used. --avx2 hides AVX-512
from both. The last line is one JSON object.
"""
import glob
import json
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import tempfile

import peer

QUERIES, LARGE, SMALL = 2000, 20_000, 2000
MANIFEST = """
[experiment]
name = "nearest"
[stages.dataset]
kind = "download"
path = "{data}"
[stages.images]
kind = "preprocess"
input = "dataset"
layout = "ksdd2"
height = 316
width = 112
[stages.weights]
kind = "download"
path = "{weights}"
[stages.features]
kind = "extract"
images = "images"
backbone = "resnet18"
weights = "weights"
[stages.bank]
kind = "coreset"
features = "features"
select = {{ set = "images", split = "train", label = "normal" }}
ratio = {ratio}
[stages.copied]
kind = "command"
run = ["sh", "-c", "cp -r inputs/features inputs/bank '{to}' && touch outputs/done/done"]
inputs = {{ features = "features", bank = "bank" }}
outputs = {{ done = "files" }}
"""
# Of 89,600 patches of training normals at 316 x 112: a little over 20,000 rows.
RATIO = 0.2233
WORKER = r"""
import ctypes, sys, time
import faiss, numpy as np
queries, bank, d, k, threads, found = sys.argv[1:3] + [int(x) for x in sys.argv[3:6]] + [sys.argv[6]]
queries = np.fromfile(queries, np.float32).reshape(-1, d)
bank = np.fromfile(bank, np.float32).reshape(-1, d)
faiss.omp_set_num_threads(threads)
started = time.perf_counter()
index = faiss.IndexFlatL2(d)
index.add(bank)
index.search(queries, k)
prepared = time.perf_counter() - started
index.search(queries, k)[1].astype(np.uint32).tofile(found)
# What the loaded libraries say themselves: faiss by what it was compiled with, OpenBLAS by the kernels that it chose.
libraries = {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
swig = [path.rsplit("/_swigfaiss", 1)[1].split(".")[0] for path in libraries if "/_swigfaiss" in path]
level = faiss.SIMDConfig.get_level_name() if hasattr(faiss, "SIMDConfig") else "".join(swig).strip("_") or "generic"
blas = "unknown"
for path in libraries:
    if "openblas" in path and "faiss" in path:
        name = ctypes.CDLL(path).openblas_get_corename
        name.restype = ctypes.c_char_p
        blas = name().decode()
print("ready", prepared, f"{level.lower()},openblas={blas}", flush=True)
for _ in sys.stdin:
    started = time.perf_counter()
    index.search(queries, k)
    print(time.perf_counter() - started, flush=True)
"""


def tensor(path, name):
    """Reads one f16 or f32 tensor of a safetensors file as f32 rows."""
    import numpy as np

    content = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    entry = json.loads(content[8 : 8 + length])[name]
    start, end = entry["data_offsets"]
    numbers = np.frombuffer(content[8 + length + start : 8 + length + end], {"F16": "<f2", "F32": "<f4"}[entry["dtype"]])
    return numbers.reshape(-1, entry["shape"][-1]).astype(np.float32)


def real(program, data, weights, folder):
    """Features of KSDD by `patchflow run`: queries and the large bank."""
    import numpy as np

    work = pathlib.Path(folder) / "run"
    work.mkdir()
    for name, path in (("data", data), ("weights", weights)):
        (work / name).symlink_to(pathlib.Path(path).resolve())
    (work / "patchflow.toml").touch()
    to = pathlib.Path(folder) / "copied"
    to.mkdir()
    (work / "m.toml").write_text(MANIFEST.format(data="data", weights="weights", ratio=RATIO, to=to))
    subprocess.run([program, "run", "m.toml"], cwd=work, check=True, stdout=subprocess.DEVNULL)
    bank = tensor(to / "bank/rows.safetensors", "rows")[:LARGE]
    blocks = sorted(glob.glob(f"{to}/features/**/blocks/test/*.safetensors", recursive=True))
    patches = np.concatenate([tensor(block, "features") for block in blocks])
    return patches[np.random.default_rng(1).permutation(len(patches))[:QUERIES]], bank


def generated(d, latent):
    """Groups in a few directions of falling variance, noise, and no negative numbers: queries and bank."""
    import numpy as np

    random = np.random.default_rng(7)
    directions = random.normal(size=(latent, d)).astype(np.float32)
    groups = random.normal(size=(500, latent))
    sizes = (1 + np.arange(latent)) ** -0.5
    both = []
    for count in (QUERIES, LARGE):
        along = (groups[random.integers(500, size=count)] + 0.7 * random.normal(size=(count, latent))) * sizes
        rows = along.astype(np.float32) @ directions / 3 + 0.1 * random.normal(size=(count, d))
        both.append(np.maximum(rows, 0).astype(np.float32))
    return both


def noise(d):
    import numpy as np

    random = np.random.default_rng(3)
    return [random.normal(size=(count, d)).astype(np.float32) for count in (QUERIES, LARGE)]


def disagreement(queries, bank, k, one, other):
    """Picks that differ, and the largest relative difference of their distances, measured in f64."""
    import numpy as np

    one, other = (np.fromfile(path, np.uint32).reshape(-1, k) for path in (one, other))
    differing = np.argwhere(one != other)
    largest = 0.0
    for query, rank in differing:
        far = [((queries[query].astype(float) - bank[of[query, rank]]) ** 2).sum() for of in (one, other)]
        largest = max(largest, abs(far[0] - far[1]) / max(*far, 1e-300))
    return len(differing), largest


def row(name, sides, program, python, k, threads, rounds, folder):
    """Times one pair of queries and bank; gives the ratio."""
    queries, bank = sides
    paths = [os.path.join(folder, side) for side in ("queries.f32", "bank.f32")]
    for path, rows in zip(paths, sides):
        rows.tofile(path)
    found = [os.path.join(folder, side) for side in ("ours.u32", "faiss.u32")]
    shape = [str(number) for number in (queries.shape[1], k, threads)]
    workers = [
        peer.Worker([program, *paths, *shape, found[0]]),
        peer.Worker([python, "-c", WORKER, *paths, *shape, found[1]]),
    ]
    for _ in range(rounds):
        for worker in workers:
            worker.run()
    for worker in workers:
        worker.close()
    mine, theirs = (statistics.median(worker.seconds) for worker in workers)
    prepared, instructions = zip(*(worker.first_line.removeprefix("ready ").split() for worker in workers))
    prepared = [float(seconds) * 1e3 for seconds in prepared]
    count, largest = disagreement(queries, bank, k, *found)
    print(
        f"{name:18} ours {mine * 1e3:7.1f} ms (prepare {prepared[0]:7.1f})"
        f"  faiss {theirs * 1e3:7.1f} ms (prepare {prepared[1]:7.1f})"
        f"  ratio {theirs / mine:5.2f}  other picks {count} of {queries.shape[0] * k}, by {largest:.1e}"
        f"  (ours {instructions[0]}; faiss {instructions[1]})",
        flush=True,
    )
    if largest > 1e-4:
        sys.exit(f"{name}: the two disagree by more than rounding")
    return round(theirs / mine, 3)


def compare(arguments):
    rounds = 5 if arguments.quick else 15
    program, patchflow = peer.bench("nearest_speed"), peer.patchflow()
    peer.hold(arguments.avx2, arguments.threads)
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data and arguments.weights:
            queries, bank = real(patchflow, arguments.data, arguments.weights, folder)
            print(f"features of KSDD; greedy coreset of {len(bank)} rows of the training normals")
        else:
            queries, bank = generated(384, 60)
            print("generated features, not real ones: no --data and --weights")
        tables = {
            "nearest-2k": (queries, bank[:SMALL]),
            "nearest-20k": (queries, bank),
            "nearest-20k-1024d": generated(1024, 200),
            "nearest-noise-20k": noise(384),
        }
        for name, sides in tables.items():
            ratios[f"{name}/faiss-ratio"] = row(
                name, sides, program, sys.executable, arguments.k, arguments.threads, rounds, folder
            )
    print(json.dumps(ratios))


def main():
    parser = peer.parser(__doc__, quick="fewer rounds")
    parser.add_argument("--data", help="folder of KSDD: train/ and test/")
    parser.add_argument("--weights", help="folder of ResNet18's weights")
    parser.add_argument("--k", type=int, default=1, help="neighbours")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    python = peer.interpreter(arguments.python, ["faiss-cpu", "numpy"])
    if os.path.abspath(python) != os.path.abspath(sys.executable):
        # This script itself needs numpy, so it goes on in the interpreter of the peers.
        sys.exit(subprocess.run([python, __file__, *sys.argv[1:], "--python", python]).returncode)
    compare(arguments)


if __name__ == "__main__":
    main()
