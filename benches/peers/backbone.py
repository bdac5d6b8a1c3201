#!/usr/bin/env python3
"""The forward pass beside PyTorch eager, ONNX Runtime and OpenVINO: images/s, medians, and ratios to PyTorch eager.

usage: benches/peers/backbone.py [--quick] [--torch] [--python PATH]

All of a row run in turn, batch by batch, so that a noisy machine is noisy for each of them. The peers come from
PyPI into benches/peers/.venv (about 3 GB with PyTorch's CUDA libraries, which nothing here uses), or from the
interpreter that --python names. --torch also times our build with the feature `torch` (scripts/libtorch.sh first).
The last line is one JSON object: NAME/NETWORK/SIZE -> ratio to PyTorch eager.
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
PACKAGES = ["torch==2.13.0", "torchvision", "onnxruntime", "openvino", "numpy"]
PEERS = ["eager", "ort", "openvino-f32"]
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


def row(program, python, network, size, rounds, with_torch, folder):
    """Times one network at one size; gives images/s by name."""
    height, width = SIZES[size]
    onnx = os.path.join(folder, f"{network}.onnx")
    if not os.path.exists(onnx):
        subprocess.run([program, NETWORKS[network], "--onnx", onnx], check=True)
    shape = [str(number) for number in (BATCH, height, width, os.cpu_count())]
    workers = {"default": worker([program, NETWORKS[network], str(height), str(width), str(BATCH), "rust"])}
    for name in ["torch-f32", "torch-bf16"] if with_torch else []:
        workers[name] = worker([program, NETWORKS[network], str(height), str(width), str(BATCH), name])
    for name in PEERS:
        workers[name] = worker([python, "-c", WORKER, name, NETWORKS[network], onnx, *shape])
    missing = [name for name, started in workers.items() if started.first_line != "ready"]
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
    return {name: BATCH / statistics.median(started.seconds) for name, started in working.items()}


def main():
    parser = peer.parser(__doc__, quick="fewer rounds")
    parser.add_argument("--torch", action="store_true", help="also time the build with the feature torch")
    arguments = parser.parse_args()
    features = ["--features", "torch"] if arguments.torch else []
    python, program = peer.interpreter(arguments.python, PACKAGES), peer.bench("backbone_speed", *features)
    ratios = {}
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            for size in SIZES:
                # At least so many, at most so many, in about so many seconds.
                rounds = (3, 5, 25) if arguments.quick else (15, 15, 0)
                speeds = row(program, python, network, size, rounds, arguments.torch, folder)
                base = speeds.pop("eager", None)
                shown = [f"eager {base:6.2f}"] if base else []
                for name, speed in speeds.items():
                    ratio = f" ({speed / base:.2f})" if base else ""
                    shown.append(f"{name} {speed:6.2f}{ratio}")
                    if base:
                        ratios[f"{name}/{network}/{size}"] = round(speed / base, 3)
                print(f"{network:6} {size:5} images/s: " + "  ".join(shown), flush=True)
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
