#!/usr/bin/env python3
"""The errors of feature maps against PyTorch in float64: ours, PyTorch's in float32, and ONNX Runtime's.

usage: benches/peers/backbone_error.py [--quick] [--avx2] [--python PATH]

All run the same network, with random weights, on the same two images of 224×224 px. Shown are, for each layer, the root mean
square of the error and the greatest error, divided by the root mean square of the layer in float64. Ends with 1 if ours has a
root mean square above 2e-5. The last line is one JSON object: NAME/NETWORK/LAYER -> [root mean square, greatest].
"""
import json
import os
import subprocess
import sys
import tempfile

import peer
from backbone import NETWORKS, PACKAGES

SIDE, BATCH = 224, 2
MOST = 2e-5
ERRORS = r"""
import json, sys
import numpy as np
import onnx, onnxruntime, torch
from onnx import numpy_helper
path, maps, side, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
pixels = ((np.arange(batch * 3 * side * side) * 7919 % 1000) / 500 - 1).astype(np.float32).reshape(batch, 3, side, side)
graph = onnx.load(path).graph
constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
names = [output.name for output in graph.output]

def forward(kind):
    values = {name: torch.from_numpy(np.array(array)).to(kind) for name, array in constants.items()}
    values[graph.input[0].name] = torch.from_numpy(pixels).to(kind)
    for node in graph.node:
        inputs = [values[name] for name in node.input]
        given = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        if node.op_type == "Conv":
            padding = given.get("pads", [0, 0, 0, 0])[:2]
            found = torch.nn.functional.conv2d(*inputs, stride=given.get("strides", [1, 1]), padding=padding)
        elif node.op_type == "MaxPool":
            found = torch.nn.functional.max_pool2d(*inputs, given["kernel_shape"], given["strides"], given["pads"][:2])
        else:
            found = {"Relu": torch.relu, "Add": torch.add}[node.op_type](*inputs)
        values[node.output[0]] = found
    return [values[name].numpy() for name in names]

exact = forward(torch.float64)
flat, ours = np.fromfile(maps, "<f4"), []
for layer in exact:
    ours.append(flat[: layer.size].reshape(layer.shape))
    flat = flat[layer.size :]
assert not flat.size
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
found = {"rust": ours, "PyTorch": forward(torch.float32), "ONNX Runtime": session.run(names, {session.get_inputs()[0].name: pixels})}
errors = {}
for name, layers in found.items():
    for layer, right, got in zip(names, exact, layers):
        scale, error = np.sqrt((right**2).mean()), got - right
        errors[f"{name}/{layer}"] = [float(np.sqrt((error**2).mean()) / scale), float(np.abs(error).max() / scale)]
print(json.dumps(errors))
"""


def main():
    arguments = peer.parser(__doc__, quick="ResNet18 alone").parse_args()
    python, program = peer.interpreter(arguments.python, [*PACKAGES, "onnx"]), peer.bench("backbone_speed")
    peer.hold(arguments.avx2)
    errors = {}
    with tempfile.TemporaryDirectory() as folder:
        for network in [NETWORKS["r18"]] if arguments.quick else NETWORKS.values():
            onnx, maps = os.path.join(folder, "model.onnx"), os.path.join(folder, "maps")
            shape = [str(SIDE), str(SIDE), str(BATCH)]
            subprocess.run([program, network, "--onnx", onnx], check=True)
            subprocess.run([program, network, *shape, "rust", "--maps", maps], check=True)
            command = [python, "-c", ERRORS, onnx, maps, str(SIDE), str(BATCH)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for name, (mean, greatest) in found.items():
                print(f"{network:16} {name:24} root mean square {mean:.1e}, greatest {greatest:.1e}", flush=True)
                peer_name, layer = name.split("/")
                errors[f"{peer_name}/{network}/{layer}"] = [mean, greatest]
    print(json.dumps(errors))
    return any(mean > MOST for name, (mean, _) in errors.items() if name.startswith("rust"))


if __name__ == "__main__":
    sys.exit(main())
