#!/usr/bin/env python3
"""Compares what `plan` says a run takes with what it takes: five manifests, three sizes each, after the quickstart alone
and after one like run.

    scripts/estimates.py [--bin target/release/patchflow] [--ksdd FOLDER] [--jobs N] [--only NAME]

Data are generated; with `--ksdd`, the last manifest reads that folder of KSDD images. Each manifest runs once as the like
run and once in each size: one to ten minutes on two cores. A verdict is right if the time is unknown and `--budget` refuses it,
or if the run took half to twice the estimate. It is `within` if it took what the range allows. Everything else is a miss,
and ends the script with 1. Below each run stand the tasks of a second or more, by kind. The machine must be quiet: a run that
shares its cores with others takes as much longer as they take from it.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Shorter tasks are a constant overhead; their share of a total is small.
SHORTEST_SECONDS = 1.0

HEAD = """[experiment]
name = "sized"
seed = 1
"""
SYNTHETIC = """[stages.dataset]
kind = "download"
synthetic = {{ seed = {seed}, train_normal = {n}, train_defect = {few}, test_normal = {half}, test_defect = {half}, height = {side}, width = {side} }}
[stages.images]
kind = "preprocess"
input = "dataset"
layout = "ksdd2"
"""
FEATURES = """[stages.features]
kind = "extract"
images = {sets}
backbone = "{network}"
weights = "seeded"
"""
NORMAL = """[stages.normal_bank]
kind = "coreset"
features = "features"
select = {{ set = "images", split = "train", label = "normal" }}
ratio = {ratio}
"""
DEFECT = """[stages.defect_bank]
kind = "coreset"
features = "features"
select = { split = "train", label = "defect", min_overlap = 0.1 }
"""
MODEL = """[stages.model]
kind = "fit"
normal = "normal_bank"
features = "features"
"""
RESULT = """[stages.result]
kind = "evaluate"
model = "model"
features = "features"
images = "images"
"""


def single(n, side):
    sets = FEATURES.format(sets='["images"]', network="resnet18")
    return HEAD + data(n, side) + sets + NORMAL.format(ratio=0.1) + MODEL + RESULT


def dual(n, side):
    axes = '[grid.axes]\nbank = ["single", "dual"]\naugment = ["none", "cutpaste"]\n'
    augmented = '[stages.augmented]\nkind = "augment"\nimages = "images"\nmethod = "cutpaste"\ncount = %d\nwhen = { augment = "cutpaste" }\n'
    sets = FEATURES.format(sets='["images", "augmented"]', network="resnet18")
    model = MODEL + 'bank = "${bank}"\ndefect = "defect_bank"\n'
    return HEAD + axes + data(n, side) + augmented % (n // 2) + sets + NORMAL.format(ratio=0.05) + DEFECT + model + RESULT


def ratios(n, side):
    axes = "[grid.axes]\nratio = [0.01, 0.1, 0.5]\n[grid.repeats]\nseed = [0, 1]\n"
    sets = FEATURES.format(sets='["images"]', network="resnet18")
    return HEAD + axes + data(n, side) + sets + NORMAL.format(ratio='"${ratio}"') + MODEL + RESULT


def deep(n, side):
    sets = FEATURES.format(sets='["images"]', network="resnet50")
    return HEAD + data(n, side) + sets + NORMAL.format(ratio=0.01) + MODEL + RESULT


def plain(n, side):
    sets = FEATURES.format(sets='["images"]', network="resnet18")
    bank = NORMAL.format(ratio=0.1) + 'strategy = "random"\n'
    return HEAD + data(n, side) + sets + bank + MODEL + RESULT + "bootstrap = 0\npictures = 10\n"


def ksdd(folder):
    def manifest(n, side):
        source = f'[stages.dataset]\nkind = "download"\npath = "{folder}"\n'
        images = f'[stages.images]\nkind = "preprocess"\ninput = "dataset"\nlayout = "ksdd2"\nheight = {n}\nwidth = {side}\n'
        sets = FEATURES.format(sets='["images"]', network="resnet18")
        return HEAD + source + images + sets + NORMAL.format(ratio=0.02) + MODEL + RESULT

    return manifest


def data(n, side):
    return SYNTHETIC.format(seed=n * 1000 + side, n=n, few=max(4, n // 10), half=max(6, n // 4), side=side)


def cases(options):
    """Name, manifest, the size of the like run, and the three sizes: images and side, or height and width."""
    last = ("ksdd", ksdd(options.ksdd), (96, 48), [(128, 64), (192, 80), (256, 112)])
    return [
        ("single", single, (24, 128), [(40, 128), (60, 160), (160, 160)]),
        ("dual", dual, (24, 128), [(40, 128), (40, 192), (80, 160)]),
        ("ratios", ratios, (24, 96), [(40, 96), (40, 128), (80, 128)]),
        ("deep", deep, (16, 96), [(24, 96), (32, 128), (64, 128)]),
        last if options.ksdd else ("plain", plain, (24, 128), [(60, 128), (60, 192), (200, 160)]),
    ]


class Project:
    """A project in a temporary folder."""

    def __init__(self, options, base=None):
        self.options = options
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="patchflow-estimates-"))
        (self.folder / "patchflow.toml").touch()
        if base:
            shutil.copytree(base.folder / "cache", self.folder / "cache")

    def call(self, *arguments):
        environment = dict(os.environ, XDG_CACHE_HOME=str(self.folder / "user"))
        command = [self.options.bin, *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)

    def write(self, text):
        (self.folder / "m.toml").write_text(text)

    def plan(self):
        return json.loads(self.checked("plan", "m.toml", "--json", "--jobs", self.options.jobs).stdout)

    def run(self):
        lines = self.checked("run", "m.toml", "--json", "--jobs", self.options.jobs).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def checked(self, *arguments):
        result = self.call(*arguments)
        if result.returncode:
            sys.exit(f"{' '.join(arguments)}: {result.stderr}")
        return result

    def is_refused(self, budget):
        return self.call("plan", "m.toml", "--jobs", self.options.jobs, "--budget", budget).returncode == 4

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def verdict(project, estimate, actual):
    """Judges the estimate of a run that took `actual` seconds."""
    if estimate["seconds"] is None:
        return ("unknown", True) if project.is_refused("10000h") else ("UNKNOWN, AND THE BUDGET PASSES", False)
    if estimate["seconds_at_most"] * 0.9 > 0.001 and not project.is_refused(f"{estimate['seconds_at_most'] * 0.9:.3f}s"):
        return "THE BUDGET PASSES BELOW THE UPPER END", False
    if 0.5 <= estimate["seconds"] / actual <= 2:
        return "right", True
    if estimate["seconds_at_least"] <= actual <= estimate["seconds_at_most"]:
        return "within", True
    return "MISS", False


def show(name, size, after, estimate, actual, judged):
    likely = estimate["seconds"]
    said = f"{likely:.1f} s ({estimate['seconds_at_least']:.1f}-{estimate['seconds_at_most']:.1f})" if likely else "unknown"
    factor = f"{likely / actual:.2f}" if likely else "-"
    print(f"{name:7} {size[0]:4}x{size[1]:<4} {after:10} {said:22} took {actual:6.1f} s  {factor:>5}  {judged}", flush=True)


def tasks(plan, events, pairs):
    """Collects estimate and time of the tasks that took a second or more."""
    took = {event["task"]: event for event in events if event["event"] == "task_finished" and event["outcome"] == "executed"}
    for index, task in enumerate(plan["tasks"]):
        estimate, event = task["estimate"], took.get(index)
        if estimate and event and event["seconds"] >= SHORTEST_SECONDS:
            pair = (estimate["seconds"] / event["seconds"], estimate["seconds_at_most"] / estimate["seconds"])
            pairs.setdefault(task["kind"], []).append(pair)


def by_kind(pairs):
    for kind, found in sorted(pairs.items()):
        factors = sorted(factor for factor, _ in found)
        right = sum(0.5 <= factor <= 2 for factor in factors)
        within = sum(1 / bound <= factor <= bound for factor, bound in found)
        print(
            f"  {kind:10} {len(factors):3} tasks: {right} within 2x, {within} within the range; "
            f"estimate/actual {factors[0]:.2f} to {factors[-1]:.2f}, median {statistics.median(factors):.2f}"
        )


def compare(name, make, like, sizes, quickstart, options):
    """Runs one manifest; returns its number of misses, and the estimates of its tasks by kind."""
    misses, pairs, kept = 0, {}, []
    base = Project(options, quickstart)
    base.write(make(*like))
    base.run()
    for size in sizes:
        alone, project = Project(options, quickstart), Project(options, base)
        kept += [alone, project]
        for one in (alone, project):
            one.write(make(*size))
        plan_alone, plan = alone.plan(), project.plan()
        estimates = {"quickstart": (alone, plan_alone["totals"]["estimate"]), "like run": (project, plan["totals"]["estimate"])}
        judge = {after: (one, estimate) for after, (one, estimate) in estimates.items()}
        copy = Project(options, project)
        copy.write(make(*size))
        events = copy.run()
        actual = events[-1]["seconds"]
        for after, (one, estimate) in judge.items():
            judged, is_right = verdict(one, estimate, actual)
            misses += not is_right
            show(name, size, after, estimate, actual, judged)
        tasks(plan, events, pairs)
        copy.remove()
    for project in [base, *kept]:
        project.remove()
    by_kind(pairs)
    return misses, pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default=str(ROOT / "target/release/patchflow"), type=os.path.abspath)
    parser.add_argument("--ksdd", type=os.path.abspath)
    parser.add_argument("--jobs", default=str(os.cpu_count()))
    parser.add_argument("--only")
    options = parser.parse_args()
    quickstart = Project(options)
    quickstart.write((ROOT / "experiments/quickstart.toml").read_text())
    quickstart.run()
    misses, all_pairs = 0, {}
    for case in cases(options):
        if options.only in (None, case[0]):
            of_case, pairs = compare(*case, quickstart, options)
            misses += of_case
            for kind, found in pairs.items():
                all_pairs.setdefault(kind, []).extend(found)
    quickstart.remove()
    print("all manifests, after one like run:")
    by_kind(all_pairs)
    print(f"{misses} misses")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
