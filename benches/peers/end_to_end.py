#!/usr/bin/env python3
"""PatchCore from folders of images to scores, beside anomalib: seconds, peak memory, and whether the scores agree.

usage: benches/peers/end_to_end.py [--quick] [--avx2] [--backbone wide_resnet50_2] [--runs N] [--bin PATCHFLOW] [--python PATH]

60 normal images for training and 40 for testing, half of them with a spot, 224×224 px, made here; a coreset of 1 %; layers 2
and 3. Both read the same file of random weights. Each run is a new process with an empty cache: starting, imports, fit,
predict. The peers come from PyPI into benches/peers/.venv (several GB), or from the interpreter that --python names.
The networks are the same; the coresets begin at different rows and project by different random numbers. So scores differ a
little: shown are their correlation, their mean ratio and both AUROC. Neither weights its scores (equation 7 of the paper),
since anomalib does not divide the distances in the exponents by the square root of the dimension. Ends with 1 if the correlation is below 0.95.
The last line is one JSON object.
"""
import csv
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import peer

PACKAGES = ["anomalib==2.7.0", "pandas<3", "torch==2.13.0", "torchvision"]
IMAGES = {"train/good": 60, "test/good": 20, "test/spot": 20}
SIDE, RATIO = 224, 0.01
LEAST_CORRELATION = 0.95
DATA = """
import pathlib, sys
import numpy as np
import torch
import torchvision
from PIL import Image
folder, network, side = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
random = np.random.default_rng(1)
rows, columns = np.mgrid[:side, :side]
for part, count in eval(sys.argv[4]).items():
    (folder / "data" / part).mkdir(parents=True)
    for index in range(count):
        wave = np.sin(rows / (7 + random.random()) + random.random() * 6) * np.cos(columns / (9 + random.random()))
        image = 128 + 40 * wave + random.normal(0, 12, (side, side))
        if part.endswith("spot"):
            row, column = random.integers(30, side - 30, 2)
            image[(rows - row) ** 2 + (columns - column) ** 2 < random.integers(5, 12) ** 2] += 70
        image = np.repeat(image.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
        Image.fromarray(image).save(folder / "data" / part / f"{index:03}.png")
torch.manual_seed(1)
torch.save(getattr(torchvision.models, network)(weights=None).state_dict(), folder / "weights.pth")
"""
THEIRS = """
import csv, sys
folder, network, side, ratio = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Patchcore
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize, Resize
torch.set_num_threads(int(sys.argv[5]))
transform = Compose([Resize((side, side)), Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
data = Folder(
    name="spots", root=folder + "/data", normal_dir="train/good", abnormal_dir="test/spot", normal_test_dir="test/good",
    train_batch_size=8, eval_batch_size=8, num_workers=0, val_split_mode="same_as_test",
)
model = Patchcore(
    num_neighbors=1, backbone=network, layers=["layer2", "layer3"], pre_trained=False, coreset_sampling_ratio=ratio,
    pre_processor=PreProcessor(transform=transform), post_processor=False, evaluator=False, visualizer=False,
)
weights = torch.load(folder + "/weights.pth")
network = model.model.feature_extractor.feature_extractor
wanted = network.state_dict()
network.load_state_dict({name: weights[name] for name in wanted})
engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=folder + "/anomalib", enable_progress_bar=False)
engine.fit(model, datamodule=data)
with open(folder + "/theirs.csv", "w") as file:
    for batch in engine.predict(model, datamodule=data):
        for path, score in zip(batch.image_path, batch.pred_score):
            csv.writer(file).writerow([path, float(score)])
"""
MANIFEST = """[experiment]
name = "spots"
[stages]
dataset = {{ kind = "download", path = "{folder}/data" }}
weights = {{ kind = "download", path = "{folder}/weights.pth" }}
images = {{ kind = "preprocess", input = "dataset", layout = "mvtec", height = {side}, width = {side} }}
features = {{ kind = "extract", images = ["images"], backbone = "{network}", weights = "weights" }}
bank = {{ kind = "coreset", features = "features", ratio = {ratio} }}
model = {{ kind = "fit", normal = "bank", features = "features", reweight = "none" }}
result = {{ kind = "evaluate", model = "model", features = "features", images = "images", bootstrap = 0, pictures = 0 }}
"""


def measured(command, **options):
    """Seconds and peak memory in GiB of a program that ends well; what it prints is shown if it does not."""
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        if status:
            output.seek(0)
            sys.exit(f"{command[0]} failed:\n{output.read().decode()[-3000:]}")
    return seconds, usage.ru_maxrss / 2**20


def ours(program, folder, network):
    project = pathlib.Path(tempfile.mkdtemp(dir=folder))
    (project / "patchflow.toml").touch()
    manifest = MANIFEST.format(folder=folder, network=network, side=SIDE, ratio=RATIO)
    (project / "spots.toml").write_text(manifest)
    environment = dict(os.environ, XDG_CACHE_HOME=str(project / "user"))
    found = measured([program, "run", "spots.toml"], cwd=project, env=environment)
    scores = next(project.glob("runs/spots/latest/variants/*/scores.csv"))
    return found, {row["image"]: float(row["score"]) for row in csv.DictReader(scores.open())}


def theirs(python, folder, network):
    arguments = [folder, network, str(SIDE), str(RATIO), str(peer.cores())]
    found = measured([python, "-W", "ignore", "-c", THEIRS, *arguments])
    rows = csv.reader(open(f"{folder}/theirs.csv"))
    start = f"{folder}/data/"
    return found, {path.removeprefix(start).rsplit(".", 1)[0]: float(score) for path, score in rows}


def auroc(scores):
    normal = [score for name, score in scores.items() if "good" in name]
    defect = [score for name, score in scores.items() if "good" not in name]
    return statistics.mean((a > b) + (a == b) / 2 for a in defect for b in normal)


def compare(ours, theirs):
    """Correlation and mean ratio of the scores of the images that both have, which must be all test images."""
    stems = {name.split("/", 1)[-1] if name.startswith("data/") else name: score for name, score in ours.items()}
    names = sorted(set(stems) & set(theirs))
    if len(names) != IMAGES["test/good"] + IMAGES["test/spot"]:
        sys.exit(f"both have {len(names)} images: {sorted(stems)[:3]} and {sorted(theirs)[:3]}")
    left, right = [stems[name] for name in names], [theirs[name] for name in names]
    ratio = statistics.mean(a / b for a, b in zip(left, right))
    return statistics.correlation(left, right), ratio


def main():
    parser = peer.parser(__doc__, quick="one run of each")
    parser.add_argument("--backbone", default="wide_resnet50_2", choices=["resnet18", "resnet50", "wide_resnet50_2"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--bin", default=str(peer.ROOT / "target/release/patchflow"), type=os.path.abspath)
    arguments = parser.parse_args()
    python = peer.interpreter(arguments.python, PACKAGES)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-c", DATA, folder, arguments.backbone, str(SIDE), repr(IMAGES)], check=True)
        peer.hold(arguments.avx2)
        rows = []
        for _ in range(1 if arguments.quick else arguments.runs):
            (our_seconds, our_memory), our_scores = ours(arguments.bin, folder, arguments.backbone)
            (their_seconds, their_memory), their_scores = theirs(python, folder, arguments.backbone)
            rows.append((our_seconds, their_seconds, our_memory, their_memory))
            print(f"patchflow {our_seconds:.1f} s, {our_memory:.2f} GiB   anomalib {their_seconds:.1f} s, {their_memory:.2f} GiB", flush=True)
    correlation, ratio = compare(our_scores, their_scores)
    faster = statistics.median(row[1] / row[0] for row in rows)
    print(
        f"{arguments.backbone}: anomalib takes {faster:.2f} times as long; scores: correlation {correlation:.4f}, "
        f"mean ratio {ratio:.3f}, AUROC {auroc(our_scores):.3f} and {auroc(their_scores):.3f}"
    )
    median = [round(statistics.median(column), 2) for column in zip(*rows)]
    names = ["patchflow_seconds", "anomalib_seconds", "patchflow_gib", "anomalib_gib"]
    print(json.dumps(dict(zip(names, median)) | {"times": round(faster, 2), "correlation": round(correlation, 4)}))
    return 0 if correlation >= LEAST_CORRELATION else 1


if __name__ == "__main__":
    sys.exit(main())
