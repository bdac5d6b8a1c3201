"""Makes `backbone.safetensors`: what torchvision makes of fixed weights and one fixed image.

Run with torch 2.13 and torchvision 0.29 from the repository's root: `python tests/golden/backbone.py`.

Nothing large is stored: both sides derive the weights and the image from a hash. Number `i` of the tensor
`name` is

    state = fnv1a64(name) + (i + 1) * 0x9e3779b97f4a7c15            (mod 2^64)
    u     = (splitmix64_finaliser(state) >> 40) / 2^23 - 1          (in [-1, 1), exact in f32)

and the tensors are, in f64 rounded once to f32:

    <conv>.weight          u * sqrt(6 / (in * kernel * kernel))     (variance 2 / fan_in)
    <norm>.weight          1 + u / 4;  in a branch's last norm and in a shortcut's, a quarter of that
    <norm>.bias            u / 4
    <norm>.running_mean    u / 4
    <norm>.running_var     1 + u / 2
    image                  2 u, shape [1, 3, 96, 64]

Stored is every 97th number of each layer's map and of each embedding, row-major.
"""

import pathlib

import numpy as np
import safetensors.numpy
import torch
import torch.nn.functional as F
import torchvision

STEP = 97
MASK = (1 << 64) - 1
NETWORKS = ["resnet18", "resnet50", "wide_resnet50_2"]


def numbers(name, count):
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 & MASK
    z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1


def value(name, shape, last_norms):
    u = numbers(name, int(np.prod(shape)))
    if len(shape) == 4:
        u = u * np.sqrt(6 / (shape[1] * shape[2] * shape[3]))
    elif name.endswith("running_var"):
        u = 1 + u / 2
    elif name.endswith("weight"):
        u = (1 + u / 4) * (0.25 if name in last_norms else 1)
    else:
        u = u / 4
    return torch.from_numpy(u.astype(np.float32)).reshape(shape)


def model_of(network):
    model = getattr(torchvision.models, network)()
    last = "bn2" if network == "resnet18" else "bn3"
    norms = {n for n in model.state_dict() if n.endswith((f".{last}.weight", ".downsample.1.weight"))}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not name.startswith(("layer4", "fc")) and not name.endswith("num_batches_tracked"):
                tensor.copy_(value(name, tuple(tensor.shape), norms))
    return model.eval()


def layers(model, x):
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    maps = {}
    for name in ("layer1", "layer2", "layer3"):
        x = maps[name] = getattr(model, name)(x)
    return maps


def patches(maps):
    """[1, d, h, w] -> [h, w, d]"""
    return torch.cat(maps, 1)[0].permute(1, 2, 0).contiguous()


def default(first, deep):
    first, deep = (F.avg_pool2d(x, 3, 1, 1) for x in (first, deep))
    return patches([first, F.interpolate(deep, first.shape[-2:], mode="bilinear", align_corners=False)])


def reference(first, deep):
    size = first.shape[-2:]
    return patches([F.adaptive_avg_pool2d(F.avg_pool2d(x, 3, 1), size) for x in (first, deep)])


def alone(first, deep):
    return patches([first, F.interpolate(deep, first.shape[-2:], mode="bilinear", align_corners=False)])


def patchcore_1024(first, deep):
    """patchcore-inspection: unfold, align, pool each layer to 1024, pool both to 1024."""
    height, width = first.shape[-2:]
    unfolded = []
    for x in (first, deep):
        _, channels, rows, columns = x.shape
        u = F.unfold(x, 3, padding=1).reshape(channels * 9, rows, columns)[None]
        u = F.interpolate(u, (height, width), mode="bilinear", align_corners=False)
        u = u[0].permute(1, 2, 0).reshape(height * width, 1, channels * 9)
        unfolded.append(F.adaptive_avg_pool1d(u, 1024)[:, 0])
    both = torch.stack(unfolded, 1).reshape(height * width, 1, 2048)
    return F.adaptive_avg_pool1d(both, 1024).reshape(height, width, 1024)


def main():
    image = torch.from_numpy((2 * numbers("image", 3 * 96 * 64)).astype(np.float32)).reshape(1, 3, 96, 64)
    golden = {}
    for network in NETWORKS:
        with torch.no_grad():
            maps = layers(model_of(network), image)
            found = dict(maps)
            first, deep = maps["layer2"], maps["layer3"]
            found["default"] = default(first, deep)
            found["reference"] = reference(first, deep)
            found["alone"] = alone(first, deep)
            if network != "resnet18":
                found["patchcore_1024"] = patchcore_1024(first, deep)
        for name, tensor in found.items():
            print(network, name, tuple(tensor.shape), float(tensor.std()), float(tensor.abs().max()))
            golden[f"{network}.{name}"] = tensor.numpy().ravel()[::STEP].copy()
    target = pathlib.Path(__file__).with_name("backbone.safetensors")
    safetensors.numpy.save_file(golden, target)
    target.chmod(0o644)


main()
