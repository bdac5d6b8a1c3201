"""Makes `diffusion.safetensors`: what PyTorch and diffusers make of fixed weights and numbers.

Run with torch 2.15 and diffusers 0.42 from the repository's root: `python tests/golden/diffusion.py`.

The U-Net below is written a second time, with torch's own modules; names and shapes of its tensors are those of
`src/kernels/diffusion/architecture.rs`. Both sides derive every number from a hash (`backbone.py` states it):

    <tensor of 4 or 2 dimensions>   u * sqrt(3 / fan_in)
    <norm>.weight                   1 + u / 4
    <bias>                          u / 4
    image, background, noise        u * sqrt(3), masks by their sign

- `forward`: the output for a batch of two patches at the times 3 and 700.
- `gradient/<name>`: the gradient of the training loss.
- `loss`, and `step/<name>`: the tensors after one step of Adam on the training loss, and `ema/<name>`.
- `ddim/…`: samples of diffusers' DDIMScheduler for a model whose output is `u(step) + x / 2`.
- `alphas/…`: cumulative products of diffusers' schedules at every 37th time.
"""

import math
import pathlib

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import nn

MASK = (1 << 64) - 1


def numbers(name, count):
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 & MASK
    z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / (1 << 23) - 1


def tensor(name, shape, scale=1.0):
    return torch.from_numpy((numbers(name, math.prod(shape)) * scale).astype(np.float32)).reshape(shape)


class Residual(nn.Module):
    def __init__(self, inside, outside, time, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.time = nn.Linear(time, outside)
        self.norm2 = nn.GroupNorm(groups, outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else None

    def forward(self, x, time):
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.skip is None else self.skip(x))


class Attention(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, c, h * w).unbind(1)
        weights = (q.transpose(1, 2) @ k / math.sqrt(c)).softmax(-1)
        return x + self.out((v @ weights.transpose(1, 2)).reshape(n, c, h, w))


class Unet(nn.Module):
    """7 channels in (the noisy patch, its background, the mask), 3 out."""

    def __init__(self, channels, levels, groups=8):
        super().__init__()
        self.channels = channels
        time = 4 * channels
        widths = [channels * level for level in levels]
        self.time1, self.time2 = nn.Linear(channels, time), nn.Linear(time, time)
        self.stem = nn.Conv2d(7, widths[0], 3, padding=1)
        below = [widths[0], *widths[:-1]]
        self.down = nn.ModuleList(
            [Residual(inside, outside, time, groups) for inside, outside in zip(below, widths)]
        )
        self.shrink = nn.ModuleList([nn.Conv2d(c, c, 3, stride=2, padding=1) for c in widths[:-1]])
        deep = widths[-1]
        self.middle1, self.middle2 = Residual(deep, deep, time, groups), Residual(deep, deep, time, groups)
        self.attention = Attention(deep, groups)
        self.grow = nn.ModuleList(
            [nn.Conv2d(widths[i + 1], widths[i], 3, padding=1) for i in range(len(widths) - 1)]
        )
        self.up = nn.ModuleList([Residual(2 * c, c, time, groups) for c in widths[:-1]])
        self.norm = nn.GroupNorm(groups, widths[0])
        self.head = nn.Conv2d(widths[0], 3, 3, padding=1)

    def embed(self, times):
        half = self.channels // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float64) / half)
        angles = times[:, None].double() * rates[None]
        return torch.cat([angles.sin(), angles.cos()], 1).float()

    def forward(self, noisy, background, mask, times):
        time = self.time2(F.silu(self.time1(self.embed(times))))
        x = self.stem(torch.cat([noisy, background, mask], 1))
        kept = []
        for level, block in enumerate(self.down):
            x = block(x, time)
            if level < len(self.shrink):
                kept.append(x)
                x = self.shrink[level](x)
        x = self.middle2(self.attention(self.middle1(x, time)), time)
        for level in reversed(range(len(self.shrink))):
            x = self.grow[level](F.interpolate(x, scale_factor=2, mode="nearest"))
            x = self.up[level](torch.cat([x, kept[level]], 1), time)
        return self.head(F.silu(self.norm(x)))


def linear_alphas(count=1000):
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, count, dtype=torch.float64), 0)


def cosine_alphas(count=1000):
    level = lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = [min(1 - level((t + 1) / count) / level(t / count), 0.999) for t in range(count)]
    return torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), 0)


def fill(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            u = tensor(name, parameter.shape)
            if parameter.dim() > 1:
                u = u * math.sqrt(3 / math.prod(parameter.shape[1:]))
            elif "norm" in name and name.endswith("weight"):
                u = 1 + u / 4
            else:
                u = u / 4
            parameter.copy_(u)


# What is trained outside of the hole: the share that its squared errors weigh.
OUTSIDE = 0.1


def loss_of(model, images, masks, holes, noise, times, alphas, prediction):
    a = alphas[times].float()[:, None, None, None]
    noisy = a.sqrt() * images + (1 - a).sqrt() * noise
    background = images * (1 - holes)
    wanted = noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * images
    out = model(noisy, background, masks, times)
    weight = holes + OUTSIDE * (1 - holes)
    per_patch = ((out - wanted) ** 2 * weight).sum((1, 2, 3)) / (3 * weight.sum((1, 2, 3)))
    return per_patch.mean()


def main():
    torch.set_num_threads(1)
    kept = {}
    model = Unet(8, [1, 2], groups=4)
    fill(model)
    shape = [2, 3, 16, 16]
    images, noise = (tensor(name, shape, math.sqrt(3)) for name in ["image", "noise"])
    masks = (tensor("mask", [2, 1, 16, 16]) > 0.5).float()
    holes = ((tensor("hole", [2, 1, 16, 16]) > 0) | (masks > 0)).float()
    times = torch.tensor([3, 700])
    kept["forward"] = model(noise, images * (1 - holes), masks, times).detach()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    ema = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for prediction in ["v", "epsilon"]:
        loss = loss_of(model, images, masks, holes, noise, times, cosine_alphas(), prediction)
        kept[f"loss/{prediction}"] = loss.detach()[None]
        if prediction == "v":
            loss.backward()
            for name, parameter in model.named_parameters():
                kept[f"gradient/{name}"] = parameter.grad.clone()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            kept["norm"] = norm.detach()[None]
            optimiser.step()
            for name, parameter in model.named_parameters():
                kept[f"step/{name}"] = parameter.detach().clone()
                ema[name] = ema[name] * 0.9 + parameter.detach() * 0.1
                kept[f"ema/{name}"] = ema[name]
            optimiser.zero_grad()
            fill(model)

    for schedule in ["linear", "squaredcos_cap_v2"]:
        for prediction in ["epsilon", "v_prediction"]:
            for eta in [0.0, 0.5]:
                scheduler = DDIMScheduler(
                    num_train_timesteps=1000, beta_schedule=schedule, beta_start=1e-4, beta_end=0.02,
                    prediction_type=prediction, clip_sample=True, clip_sample_range=1.0,
                    timestep_spacing="trailing", set_alpha_to_one=True,
                )
                scheduler.set_timesteps(10)
                x = tensor("start", [1, 3, 4, 4], math.sqrt(3))
                name = f"ddim/{schedule}/{prediction}/{eta}"
                kept[f"{name}/times"] = scheduler.timesteps.float()
                for step, time in enumerate(scheduler.timesteps):
                    out = tensor(f"model {step}", x.shape) + x / 2
                    noise_of_step = tensor(f"noise {step}", x.shape, math.sqrt(3))
                    x = scheduler.step(out, time, x, eta=eta, variance_noise=noise_of_step).prev_sample
                kept[f"{name}/sample"] = x
        kept[f"alphas/{schedule}"] = scheduler.alphas_cumprod[::37].clone()

    kept = {name: value.contiguous() for name, value in kept.items()}
    path = pathlib.Path(__file__).with_suffix(".safetensors")
    safetensors.torch.save_file(kept, path)
    print(path.stat().st_size, {name: float(kept[name][0]) for name in ["loss/v", "loss/epsilon", "norm"]})


if __name__ == "__main__":
    main()
