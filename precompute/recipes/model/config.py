"""Every hyper-parameter of the embedded models, by recipe name.

Sizes are for a CPU without bfloat16 units: the UNet trains at 60 to 70 images/s and runs forward at
about 230 images/s on
four AVX2 cores. 8 latent channels (not 4) because a 4-channel autoencoder needs several times the
training for the
same reconstruction error.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VaeConfig:
    """AutoencoderKL: `resolution` px RGB → [latent_channels, resolution/4, resolution/4]."""

    resolution: int = 64
    latent_channels: int = 8
    channels: tuple[int, ...] = (16, 32, 64)
    batch_size: int = 64
    crop: int = 32  # px; the network is convolutional, so most steps see crops, four times cheaper
    full_steps: int = 200  # the last steps see whole images
    steps: int = 2500
    learning_rate: float = 2e-3
    kl_weight: float = 2e-4  # times the KL divergence per latent element
    seed: int = 0


@dataclass(frozen=True)
class ClipConfig:
    """CLIPModel; its text tower conditions the UNet, its image tower is the CLIP baseline."""

    vocab_size: int = 3000
    max_tokens: int = 32
    text_width: int = 128  # also the UNet's cross-attention dimension
    image_width: int = 192
    text_layers: int = 3
    image_layers: int = 4
    heads: int = 4
    patch: int = 16  # px
    projection: int = 128
    batch_size: int = 128
    steps: int = 1000
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class UnetConfig:
    """UNet2DConditionModel over the latents; cross-attention at the two lower resolutions."""

    channels: tuple[int, ...] = (48, 96, 192)
    heads: int = 4
    prediction_type: str = "v_prediction"
    batch_size: int = 32
    steps: int = 14000
    # Linear decay to zero at the end; before it the rate is constant, so training can be extended.
    decay_steps: int = 2500
    warmup_steps: int = 200
    learning_rate: float = 6e-4
    weight_decay: float = 0.01
    caption_dropout: float = 0.1
    ema_decay: float = 0.999
    seed: int = 0


@dataclass(frozen=True)
class ModelRecipe:
    """One embedded world: the networks trained on one records.parquet."""

    vae: VaeConfig
    clip: ClipConfig
    unet: UnetConfig
    guidance: float = 3.0
    sampling_steps: int = 50


RECIPES = {
    "openclipart": ModelRecipe(VaeConfig(), ClipConfig(), UnetConfig()),
    # A world that retrains in about a minute: 32 px, 8x8 latents, a UNet of a million parameters.
    "proof": ModelRecipe(
        VaeConfig(resolution=32, steps=2000),
        ClipConfig(vocab_size=1000, text_width=96, image_width=96, patch=8, steps=500),
        UnetConfig(channels=(32, 64), steps=3000, decay_steps=1000),
    ),
}
