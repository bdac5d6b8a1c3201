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
"""Paints defects into images with a Stable Diffusion XL inpainting pipeline of `diffusers`.

Started by patchflow's stage `augment`, method `sdxl-inpaint`, as `inpaint.py jobs.json`. `jobs.json` holds the
pipeline's settings and a list of jobs: id, image, mask, prompt, seed, and the file to be made. Each image is painted at
`resolution` and brought back to its own size; outside the mask the stage puts the normal image back.

It tells on stdout, one JSON object a line: `{"event": "ready", ...}` with the versions, `{"event": "made", "id": ...}`
for each image, `{"event": "problem", "message": ..., "help": ...}` before it ends with status 1. A file is there under
its name only when it is whole. It ends when its standard input does: patchflow holds that open while it lives.
"""

import json
import os
import sys
import threading


def tell(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def give_up(message, help):
    tell(event="problem", message=message, help=help)
    sys.exit(1)


def end_with_parent():
    """Ends this process when whoever started it is gone."""

    def watch():
        while os.read(0, 4096):
            pass
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def pins():
    """The pinned packages that stand at the top of this file."""
    with open(__file__, encoding="utf-8") as file:
        lines = [line.strip("#, \n") for line in file.read().split("# ///")[1].splitlines()]
    return " ".join(line.strip('"') for line in lines if "==" in line)


def import_packages():
    """Imports what is needed, or says what to install."""
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
            f"the Python `{sys.executable}` cannot load what `sdxl-inpaint` needs: {error}",
            f"install it (Python 3.11 or later): {sys.executable} -m pip install {pins()}; or install uv and unset PATCHFLOW_PYTHON",
        )
    versions = {module.__name__: module.__version__ for module in (torch, diffusers, transformers, numpy, PIL)}
    return torch, versions


def check_device(torch, device):
    kind = device.split(":")[0]
    if kind == "cuda":
        number = int(device.partition(":")[2] or 0)
        if number >= torch.cuda.device_count():
            give_up(
                f"`device` is `{device}`, but PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices",
                'write `device = "cpu"` and `precision = "f32"`, or install a PyTorch and a driver that go together',
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        give_up("`device` is `mps`, but PyTorch sees no Apple GPU", 'write `device = "cpu"` and `precision = "f32"`')


def load(torch, task):
    """The pipeline, from a folder or the hub; never from pickles."""
    from diffusers import StableDiffusionXLInpaintPipeline

    dtype = {"f16": torch.float16, "f32": torch.float32}[task["precision"]]
    options = {"torch_dtype": dtype, "use_safetensors": True, "local_files_only": task["local_only"]}
    if task["variant"]:
        options["variant"] = task["variant"]
    if task["revision"]:
        options["revision"] = task["revision"]
    try:
        # Without the invisible watermark: it changes pixels, and takes one more package.
        pipeline = StableDiffusionXLInpaintPipeline.from_pretrained(task["model"], add_watermarker=False, **options)
    except Exception as error:
        help = "give a folder in the layout of diffusers: model_index.json beside unet/, vae/, scheduler/ and the like"
        if task["revision"]:
            help = "check `model`, `revision`, `variant` and the network"
            if task["local_only"]:
                help = "run once without --offline, so that the model is downloaded, or give a folder as `weights`"
        give_up(f"cannot load the pipeline `{task['named']}`: {type(error).__name__}: {error}", help)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(task["device"])


def paint(torch, pipeline, task, job):
    from PIL import Image

    with Image.open(job["image"]) as file:
        image = file.convert("RGB")
    with Image.open(job["mask"]) as file:
        mask = file.convert("L")
    side = (task["resolution"], task["resolution"])
    # A thin crack must not vanish where the image is made smaller: any share of a pixel marks it.
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
        # On the CPU whatever the device: the same noise everywhere.
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
    tell(event="ready", versions=versions, device=task["device"])
    for job in task["jobs"]:
        try:
            painted = paint(torch, pipeline, task, job)
        except torch.cuda.OutOfMemoryError as error:
            give_up(f"the GPU's memory is too small: {error}", "lower `resolution`, or use `precision = \"f16\"`")
        unfinished = job["output"] + ".part"
        painted.save(unfinished, format="PNG")
        os.replace(unfinished, job["output"])
        tell(event="made", id=job["id"])


if __name__ == "__main__":
    main()
