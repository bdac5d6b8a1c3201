"""Makes the small weight files that the readers of `src/artifacts/weights` are tested with.

Run with torch 2.13 and safetensors 0.8 from the repository's root: `python tests/golden/weights.py`.
Each file holds the same tensors; the expected values are in the tests (`src/artifacts/weights/tests.rs`).
"""

import collections
import pathlib

import safetensors.torch
import torch

FOLDER = pathlib.Path(__file__).parent / "weights"


def state():
    ramp = torch.arange(12, dtype=torch.float32) / 4 - 1
    tensors = collections.OrderedDict()
    tensors["float"] = ramp.reshape(3, 4)
    tensors["transposed"] = ramp.reshape(3, 4).t()
    tensors["slice"] = ramp[5:9]
    tensors["half"] = ramp.half()
    tensors["bfloat16"] = ramp.bfloat16()
    tensors["double"] = ramp.double()
    tensors["parameter"] = torch.nn.Parameter(ramp.reshape(2, 6).clone())
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.zeros(0, 3)
    tensors["num_batches_tracked"] = torch.tensor(7)
    tensors._metadata = collections.OrderedDict(version=1)
    return tensors


def main():
    FOLDER.mkdir(exist_ok=True)
    tensors = state()
    torch.save(tensors, FOLDER / "archive.pth")
    torch.save({"epoch": 3, "lr": 0.1, "state_dict": dict(tensors)}, FOLDER / "nested.pth", pickle_protocol=4)
    torch.save(tensors, FOLDER / "stream.pth", _use_new_zipfile_serialization=False)
    torch.save({"a": print}, FOLDER / "call.pth")
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    safetensors.torch.save_file(plain, FOLDER / "plain.safetensors")
    (FOLDER / "plain.safetensors").chmod(0o644)


main()
