"""Writes a tiny Stable Diffusion XL inpainting pipeline with random weights, without the network.

    python tests/tools/tiny_sdxl.py FOLDER

The layout is that of diffusers (model_index.json, unet/, vae/, two text encoders with their tokenizers, scheduler/); the
sizes are about those of diffusers' own tests. The tokenizers know single letters and no merges: made here, because
diffusers' tests bring theirs from the hub. Equal versions of the packages write equal weights.
"""

import json
import pathlib
import sys

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLInpaintPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

LETTERS = [chr(number) for number in range(33, 127)]


def tokenizer(folder):
    """A CLIP tokenizer of single characters."""
    folder.mkdir(parents=True, exist_ok=True)
    words = LETTERS + [letter + "</w>" for letter in LETTERS] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77), len(words)


def main(folder):
    torch.manual_seed(0)
    words, count = tokenizer(folder / "made_tokenizer")
    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=2,
        sample_size=8,
        in_channels=9,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=80,  # 6 * 8 + 32
        cross_attention_dim=64,
    )
    vae = AutoencoderKL(
        block_out_channels=[32, 32, 32, 32],
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        latent_channels=4,
        sample_size=64,
    )
    text = CLIPTextConfig(
        bos_token_id=count - 2,
        eos_token_id=count - 1,
        pad_token_id=count - 1,
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=5,
        vocab_size=count,
        hidden_act="gelu",
        projection_dim=32,
    )
    pipeline = StableDiffusionXLInpaintPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        text_encoder_2=CLIPTextModelWithProjection(text),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    for file in (folder / "made_tokenizer").iterdir():
        file.unlink()
    (folder / "made_tokenizer").rmdir()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
