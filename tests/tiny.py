"""A Stable Diffusion pipeline small enough for tests: real diffusers classes, no network.

    pipe = tiny_pipeline("v_prediction"); pipe.save_pretrained(folder)

Images are 16 px, latents [4, 8, 8], text 8 tokens of 16 dimensions. The weights are random:
unlearning raises a loss by 3 % or so, not by 10.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

RESOLUTION = 16
LATENT_SHAPE = (4, 8, 8)
TOKENS = 8
TEXT_DIM = 16


def tiny_tokenizer() -> CLIPTokenizer:
    """Letter-level CLIP tokenizer of 8 tokens: every lower-case letter and digit, no merges."""
    symbols = list("abcdefghijklmnopqrstuvwxyz0123456789,.-'")
    words = ["<|startoftext|>", "<|endoftext|>", *symbols, *[f"{s}</w>" for s in symbols]]
    merges: list[tuple[str, str]] = []
    return CLIPTokenizer({word: i for i, word in enumerate(words)}, merges, model_max_length=TOKENS)


def tiny_text_encoder(vocab_size: int) -> CLIPTextModel:
    """Two-layer CLIP text tower, [B, 8, 16]."""
    config = CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=TEXT_DIM,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModel(config)


def tiny_vae() -> AutoencoderKL:
    """Two-level autoencoder, 16 px RGB to [4, 8, 8]."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=LATENT_SHAPE[0],
        sample_size=RESOLUTION,
        scaling_factor=0.7,
    )


def tiny_unet() -> UNet2DConditionModel:
    """Two-level conditional UNet with cross-attention at both levels and in the middle."""
    unet = UNet2DConditionModel(
        sample_size=LATENT_SHAPE[1],
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=2,
    )
    # at their default scale the outputs are near zero and no text can raise a loss by much
    unet.conv_out.weight.data *= 3.0
    return unet


def tiny_pipeline(prediction_type: str = "epsilon", seed: int = 0) -> StableDiffusionPipeline:
    """The whole pipeline with random weights of `seed`; the caller's random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        pipe = StableDiffusionPipeline(
            vae=tiny_vae(),
            text_encoder=tiny_text_encoder(len(tokenizer)),
            tokenizer=tokenizer,
            unet=tiny_unet(),
            scheduler=DDPMScheduler(
                prediction_type=prediction_type, clip_sample=False, steps_offset=1
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_images(count: int, seed: int = 0) -> list[Image.Image]:
    """`count` different RGB images of 16 px, smooth random colours."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=RESOLUTION, mode="bilinear")
    pixels = (fine * 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(p, "RGB") for p in pixels]


def tiny_captions(count: int) -> list[str]:
    """`count` different captions of a few letters."""
    return [
        f"{'abcdefghij'[i % 10]}{'klmnopqrst'[(i // 10) % 10]} by {i % 7}" for i in range(count)
    ]
