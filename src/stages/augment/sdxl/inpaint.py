# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "torch==2.13.0",
#   "diffusers==0.42.1",
#   "transformers==5.24.0",
#   "accelerate==1.15.0",
#   "safetensors==0.8.0",
#   "pillow==13.0.0",
#   "numpy==2.4.6",
# ]
# ///
"""Inpaints defects into images with a Stable Diffusion XL pipeline of `diffusers`.

Started by the stage `augment` of patchflow, method `sdxl-inpaint`, as `inpaint.py jobs.json`. `jobs.json` contains the
settings of the pipeline and a list of jobs: id, image, mask, prompt, seed and output file. Each image is inpainted at
`resolution` and scaled back to its own size. The stage restores the normal image outside the mask.

Writes events to stdout, one JSON object per line: `{"event": "ready", ...}` with the versions,
`{"event": "made", "id": ...}` for each image, and `{"event": "problem", "message": ..., "help": ...}` before it exits
with status 1. Output files are renamed to their final names only when they are complete. Exits when its standard input
is closed; patchflow keeps it open while it runs.
"""

import json
import os
import sys
import threading


def emit(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def give_up(message, help):
    emit(event="problem", message=message, help=help)
    sys.exit(1)


def end_with_parent():
    """Exits when the parent process has ended."""

    def watch():
        while os.read(0, 4096):
            pass
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def pins():
    """Returns the pinned packages from the top of this file."""
    with open(__file__, encoding="utf-8") as file:
        lines = [line.strip("#, \n") for line in file.read().split("# ///")[1].splitlines()]
    return " ".join(line.strip('"') for line in lines if "==" in line)


def import_packages():
    """Imports the packages. If that fails, exits with a hint what to install."""
    try:
        import accelerate  # noqa: F401
        import diffusers
        import numpy
        import PIL
        import safetensors  # noqa: F401
        import torch
        import transformers

        from diffusers import StableDiffusionXLInpaintPipeline  # noqa: F401
    except (ImportError, RuntimeError) as error:
        give_up(
            f"the Python `{sys.executable}` cannot import the packages that `sdxl-inpaint` needs: {error}",
            f"install them (Python 3.11 or later): {sys.executable} -m pip install {pins()}; or install uv and unset PATCHFLOW_PYTHON",
        )
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers, numpy, PIL)}
    return torch, versions


def check_device(torch, device):
    kind = device.split(":")[0]
    if kind == "cuda":
        number = int(device.partition(":")[2] or 0)
        if number >= torch.cuda.device_count():
            give_up(
                f"`device` is `{device}`, but PyTorch {torch.__version__} finds {torch.cuda.device_count()} CUDA devices",
                'write `device = "cpu"` and `precision = "f32"`, or install a PyTorch that matches the driver',
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        give_up("`device` is `mps`, but PyTorch finds no Apple GPU", 'write `device = "cpu"` and `precision = "f32"`')


def load(torch, task):
    """Loads the pipeline from a folder or the hub. Never loads pickle files."""
    from diffusers import StableDiffusionXLInpaintPipeline

    dtype = {"f16": torch.float16, "f32": torch.float32}[task["precision"]]
    options = {"torch_dtype": dtype, "use_safetensors": True, "local_files_only": task["local_only"]}
    if task["variant"]:
        options["variant"] = task["variant"]
    if task["revision"]:
        options["revision"] = task["revision"]
    try:
        # No invisible watermark: it changes pixels and needs one more package.
        pipeline = StableDiffusionXLInpaintPipeline.from_pretrained(task["model"], add_watermarker=False, **options)
    except Exception as error:
        help = "use a folder in the layout of diffusers: model_index.json beside unet/, vae/, scheduler/ and so on"
        if task["revision"]:
            help = "check `model`, `revision`, `variant` and the network"
            if task["local_only"]:
                help = "run once without --offline to download the model, or use a folder as `weights`"
        give_up(f"cannot load the pipeline `{task['named']}`: {type(error).__name__}: {error}", help)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(task["device"])


def inpaint(torch, pipeline, task, job):
    from PIL import Image

    with Image.open(job["image"]) as file:
        image = file.convert("RGB")
    with Image.open(job["mask"]) as file:
        mask = file.convert("L")
    side = (task["resolution"], task["resolution"])
    # A thin crack must not vanish if the image is scaled down: a pixel is marked if any part of it is covered.
    large_mask = mask.resize(side, Image.Resampling.BOX).point(lambda level: 255 if level > 0 else 0)
    painted = pipeline(
        prompt=job["prompt"],
        negative_prompt=task["negative_prompt"],
        image=image.resize(side, Image.Resampling.BICUBIC),
        mask_image=large_mask,
        width=side[0],
        height=side[1],
        num_inference_steps=task["sampling_steps"],
        guidance_scale=task["guidance"],
        strength=task["strength"],
        padding_mask_crop=task["mask_crop_padding"],
        # Always on the CPU, so that the noise is the same for all devices.
        generator=torch.Generator("cpu").manual_seed(job["seed"]),
    ).images[0]
    return painted.resize(image.size, Image.Resampling.BICUBIC)


def main():
    end_with_parent()
    with open(sys.argv[1], encoding="utf-8") as file:
        task = json.load(file)
    torch, versions = import_packages()
    torch.set_num_threads(task["threads"])
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    check_device(torch, task["device"])
    pipeline = load(torch, task)
    emit(event="ready", versions=versions, device=task["device"])
    for job in task["jobs"]:
        try:
            painted = inpaint(torch, pipeline, task, job)
        except torch.cuda.OutOfMemoryError as error:
            give_up(f"the GPU is out of memory: {error}", "lower `resolution`, or use `precision = \"f16\"`")
        unfinished = job["output"] + ".part"
        painted.save(unfinished, format="PNG")
        os.replace(unfinished, job["output"])
        emit(event="made", id=job["id"])


if __name__ == "__main__":
    main()
