#!/usr/bin/env python3
"""The forward pass beside PyTorch eager, ONNX Runtime and OpenVINO: images/s, medians, and ratios to ONNX Runtime.

usage: benches/peers/backbone.py [--quick] [--avx2] [--busy] [--torch] [--peers ort,eager] [--python PATH]

All of a row run in turn, batch by batch, so that a noisy machine is noisy for each of them; a ratio is the median of those of
the rounds. The peers come from PyPI into benches/peers/.venv (about 3 GB with PyTorch's CUDA libraries, which nothing here
uses), or from the interpreter that --python names. --torch also times our build with the feature `torch`
(scripts/libtorch.sh first). --busy keeps the first core busy with another process meanwhile. ONNX Runtime's idle threads
wait without spinning, since they would take their core from whoever runs next.
The last line is one JSON object: NAME/NETWORK/SIZE -> ratio to ONNX Runtime.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import peer

NETWORKS = {"r18": "resnet18", "r50": "resnet50", "wrn50": "wide_resnet50_2"}
SIZES = {"224": (224, 224), "ksdd": (640, 232)}
BATCH = 8
PACKAGES = ["torch==2.13.0", "torchvision", "onnxruntime==1.32.0", "openvino", "numpy"]
PEERS = ["ort", "eager", "openvino-f32"]
WORKER = r"""
import os, sys, time
import numpy as np
peer, network, onnx, batch, height, width, threads = sys.argv[1:4] + [int(x) for x in sys.argv[4:]]
pixels = ((np.arange(batch * 3 * height * width) * 7919 % 1000) / 500 - 1).astype(np.float32)
pixels = pixels.reshape(batch, 3, height, width)
if peer == "eager":
    import torch, torchvision
    torch.set_num_threads(threads)
    model = getattr(torchvision.models, network)(weights=None).eval()
    images = torch.from_numpy(pixels)
    def run():
        with torch.inference_mode():
            x = model.maxpool(model.relu(model.bn1(model.conv1(images))))
            x = model.layer2(model.layer1(x))
            return x, model.layer3(x)
elif peer == "ort":
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    def run():
        return session.run(None, {session.get_inputs()[0].name: pixels})
else:
    import openvino
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = core.compile_model(core.read_model(onnx), "CPU", settings)
    def run():
        return compiled([pixels])
run()
print("ready", flush=True)
for _ in sys.stdin:
    started = time.perf_counter()
    run()
    print(time.perf_counter() - started, flush=True)
"""


def worker(command):
    return peer.Worker(command, stderr=subprocess.DEVNULL)


def row(program, python, network, size, rounds, names, folder):
    """Times one network at one size; gives the seconds of each round by name, and our vector instructions."""
    height, width = SIZES[size]
    onnx = os.path.join(folder, f"{network}.onnx")
    if not os.path.exists(onnx):
        subprocess.run([program, NETWORKS[network], "--onnx", onnx], check=True)
    shape = [str(number) for number in (BATCH, height, width, peer.cores())]
    workers = {}
    for name in names:
        ours = [program, NETWORKS[network], str(height), str(width), str(BATCH), name]
        theirs = [python, "-c", WORKER, name, NETWORKS[network], onnx, *shape]
        workers[name] = worker(theirs if name in PEERS else ours)
    missing = [name for name, started in workers.items() if not started.first_line.startswith("ready")]
    if missing:
        print(f"cannot run here, left out: {', '.join(missing)}", file=sys.stderr)
    working = {name: started for name, started in workers.items() if name not in missing}
    fewest, most, seconds = rounds
    start = time.monotonic()
    for done in range(most):
        if done >= fewest and time.monotonic() - start > seconds:
            break
        for started in working.values():
            started.run()
    for started in workers.values():
        started.close()
    return {name: started.seconds for name, started in working.items()}, workers["rust"].first_line.removeprefix("ready ")


def shown(seconds):
    """One row: images/s of each, and in brackets how many times as fast as ONNX Runtime."""
    found, ratios = [], {}
    for name, ours in seconds.items():
        text = f"{name} {BATCH / statistics.median(ours):.2f}"
        if "ort" in seconds and name != "ort":
            ratios[name] = round(statistics.median(theirs / own for theirs, own in zip(seconds["ort"], ours)), 3)
            text += f" ({ratios[name]:.2f})"
        found.append(text)
    return "  ".join(found), ratios


def main():
    parser = peer.parser(__doc__, quick="fewer rounds")
    parser.add_argument("--torch", action="store_true", help="also time the build with the feature torch")
    parser.add_argument("--busy", action="store_true", help="keep the first core busy with another process")
    parser.add_argument("--peers", default=",".join(PEERS), help="those to compare with")
    arguments = parser.parse_args()
    features = ["--features", "torch"] if arguments.torch else []
    python, program = peer.interpreter(arguments.python, PACKAGES), peer.bench("backbone_speed", *features)
    peer.hold(arguments.avx2)
    names = ["rust", *(["torch-f32", "torch-bf16"] if arguments.torch else []), *arguments.peers.split(",")]
    busy = [subprocess.Popen(["taskset", "-c", "0", sys.executable, "-c", "while True: pass"])] if arguments.busy else []
    ratios = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for network in NETWORKS:
                for size in SIZES:
                    # At least so many, at most so many, in about so many seconds.
                    rounds = (3, 5, 25) if arguments.quick else (15, 15, 0)
                    seconds, simd = row(program, python, network, size, rounds, names, folder)
                    text, found = shown(seconds)
                    ratios |= {f"{name}/{network}/{size}": ratio for name, ratio in found.items()}
                    print(f"{network:6} {size:5} {simd}, images/s: {text}", flush=True)
    finally:
        for process in busy:
            process.kill()
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
