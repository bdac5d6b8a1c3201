"""Makes the small weight files that the readers of `src/artifacts/weights` are tested with.

Run with torch 2.15 and safetensors 0.8 from the repository's root: `python tests/golden/weights.py [NAME…]`, with the
names of files to make only these. Each file holds the same tensors, some in other ways or with others beside them; the
expected values are in the tests (`src/artifacts/weights/tests.rs`). The files without a name in `LATER` were made with
torch 2.13.
"""

import collections
import pathlib
import sys
import zipfile

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


def unchecked(path):
    """Saves without checksums."""
    torch.serialization.set_crc32_options(False)
    torch.save(state(), path)
    torch.serialization.set_crc32_options(True)


def deflated(path):
    """Saves, and packs the archive again as `zip -r` does."""
    torch.save(state(), path)
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)


def attributes(path):
    """Saves tensors that are rebuilt from their type: with attributes, a buffer, a parameter with attributes."""
    tensors = state()
    tensors["float"] = tensors["float"].clone()
    tensors["float"].origin = "camera 3"
    tensors["slice"] = torch.nn.Buffer(tensors["slice"])
    tensors["parameter"].tags = ["a", 1]
    torch.save(tensors, path)


def surplus(path):
    """Saves tensors of kinds that are not read beside the others."""
    tensors = state()
    tensors["mask"] = torch.ones(3, dtype=torch.uint16)
    tensors["scale"] = torch.ones(3).to(torch.float8_e4m3fn)
    tensors["sparse"] = torch.eye(3).to_sparse()
    tensors["phase"] = torch.ones(3, dtype=torch.complex64)
    tensors["coded"] = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    tensors["shape"] = torch.Size([3, 4])
    torch.save(tensors, path)


def wrapped(path):
    """Saves a checkpoint of a training program."""
    inner = {"module." + name: tensor for name, tensor in state().items()}
    checkpoint = {"epoch": 3, "best": torch.tensor(0.9), "model": inner}
    checkpoint["optimizer"] = {"state": {0: {"exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save(checkpoint, path)


LATER = {function.__name__: function for function in (unchecked, deflated, attributes, surplus, wrapped)}
if sys.argv[1:]:
    for name in sys.argv[1:]:
        LATER[name](FOLDER / f"{name}.pth")
else:
    main()
    for name, function in LATER.items():
        function(FOLDER / f"{name}.pth")
