"""One contract over any Stable-Diffusion-type pipeline: encode, per-sample error, generate.

| code | paper | meaning |
|---|---|---|
| `latents` | z | VAE posterior mean times the scaling factor, [B, C, h, w] |
| `cond` | c | text-encoder states, [B, L, d]; no classifier-free guidance in any loss |
| `noise` | ε | Gaussian draw, [B, C, h, w] |
| `squared_error` | (ε_θ(x_t, c, t) − target)² | before any averaging, [B, C, h, w] |
| `objective` | "loss" or "eps2" | what is squared: the error, or ε_θ itself (Table 5) |
| `reference` | θ0 | a UNet whose output takes the target's place, so that its shift is squared |
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attribution import defaults
from attribution.pipelines import (
    check_supported,
    choose_device,
    latent_side,
    load_pipeline,
    tune,
)
from attribution.precision import FLOAT32, Precision
from attribution.regions import placement
from attribution.types import UserError

OnStep = Callable[[int, int], None]
Objective = Literal["loss", "eps2"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(eq=False)
class Denoiser:
    """A pipeline's parts and sizes.

    latent_shape: (C, h, w). resolution: image side in pixels. dtype: the UNet's; errors and losses
    come back in float32 (float64 for a float64 model). alphas_cumprod: ᾱ_t, [n_train_timesteps].
    objective: what `squared_error` squares; see `with_objective`. precision: what layers compute in
    while records are scored (attribution.cells); all else runs in `dtype`. reference: see
    `against_itself`.
    """

    pipeline: Any
    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    prediction_type: str
    resolution: int
    latent_shape: tuple[int, int, int]
    n_train_timesteps: int
    device: torch.device
    dtype: torch.dtype
    alphas_cumprod: Tensor
    objective: Objective = "loss"
    precision: Precision = FLOAT32
    reference: Any = None

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: str = "auto",
        dtype: torch.dtype | None = None,
        revision: str | None = None,
    ) -> Denoiser:
        """Open a local pipeline folder or hub id, float32 unless `dtype` says otherwise.

        Raises UserError when the model is missing, unreadable or of an unsupported kind.
        """
        pipe = load_pipeline(model, revision)
        # cast here: weights may be half precision on disk, and the loader's argument for it has
        # different names in different diffusers versions
        for module in (pipe.unet, pipe.vae, pipe.text_encoder):
            torch.nn.Module.to(module, dtype or torch.float32)
        return cls.from_pipeline(pipe, device=device)

    @classmethod
    def from_pipeline(cls, pipe: Any, device: str = "cpu") -> Denoiser:
        """Wrap a pipeline in memory: moved to `device`, its modules frozen and set to eval."""
        where = choose_device(device)
        check_supported(pipe)
        pipe.set_progress_bar_config(disable=True)
        pipe.to(where)
        for module in (pipe.unet, pipe.vae, pipe.text_encoder):
            module.eval().requires_grad_(False)
        tune(pipe.unet, where)
        unet, scale = pipe.unet, 2 ** (len(pipe.vae.config.block_out_channels) - 1)
        side = latent_side(unet.config.sample_size)
        return cls(
            pipeline=pipe,
            unet=unet,
            vae=pipe.vae,
            text_encoder=pipe.text_encoder,
            tokenizer=pipe.tokenizer,
            scheduler=pipe.scheduler,
            prediction_type=pipe.scheduler.config.prediction_type,
            resolution=side * scale,
            latent_shape=(unet.config.in_channels, side, side),
            n_train_timesteps=pipe.scheduler.config.num_train_timesteps,
            device=where,
            dtype=unet.dtype,
            alphas_cumprod=pipe.scheduler.alphas_cumprod.to(where, _wide(unet.dtype)),
        )

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Text states c [B, L, d] in the UNet's dtype, padded and cut as the pipeline does."""
        return self.text_states(prompts)

    def text_states(self, prompts: Sequence[str]) -> Tensor:
        """`encode_text`, differentiable: for training an embedding."""
        length = min(
            self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings
        )
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(self.device) if masked else None
        states = self.text_encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]
        return states.to(self.dtype)

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Tensor:
        """VAE posterior means times the scaling factor, float32 [B, C, h, w].

        Images of any size: padded to square on white, then resized to `resolution`.
        """
        pixels = np.stack([np.asarray(self.prepare_image(image)) for image in images])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device, self.vae.dtype)
        mean = self.vae.encode(x / 127.5 - 1.0).latent_dist.mean
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return ((mean - shift) * self.vae.config.scaling_factor).to(_wide(self.vae.dtype))

    def prepare_image(self, image: Image.Image) -> Image.Image:
        """RGB at the model's resolution: the shorter side padded with white, then resized."""
        image = image.convert("RGB")
        side, left, top = placement(image.size)
        if image.size != (side, side):
            square = Image.new("RGB", (side, side), "white")
            square.paste(image, (left, top))
            image = square
        if side != self.resolution:
            image = image.resize((self.resolution, self.resolution), Image.Resampling.LANCZOS)
        return image

    def predict(
        self, latents: Tensor, cond: Tensor, noise: Tensor, timesteps: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(output, target) of the UNet at x_t = √ᾱ_t z + √(1−ᾱ_t) ε, both [B, C, h, w].

        The target is the model's own: ε, v = √ᾱ_t ε − √(1−ᾱ_t) z, or z. timesteps: int64 [B].
        """
        wide = self.alphas_cumprod.dtype
        t = timesteps.to(self.device)
        z, eps = latents.to(self.device, wide), noise.to(self.device, wide)
        alpha = self.alphas_cumprod[t].sqrt().view(-1, 1, 1, 1)
        sigma = (1.0 - self.alphas_cumprod[t]).sqrt().view(-1, 1, 1, 1)
        x_t = (alpha * z + sigma * eps).to(self.dtype)
        output = self.unet(x_t, t, cond.to(self.device, self.dtype), return_dict=False)[0].to(wide)
        if self.prediction_type == "epsilon":
            return output, eps
        if self.prediction_type == "v_prediction":
            return output, alpha * eps - sigma * z
        return output, z

    def predicted_noise(
        self, output: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor
    ) -> Tensor:
        """ε_θ from the model's `output` [B, C, h, w]: itself, √ᾱ v + √(1−ᾱ) x_t for v models,
        (x_t − √ᾱ z_θ) / √(1−ᾱ) for sample models.
        """
        if self.prediction_type == "epsilon":
            return output
        bar = self.alphas_cumprod[timesteps.to(self.device)].view(-1, 1, 1, 1)
        alpha, sigma = bar.sqrt(), (1.0 - bar).sqrt()
        x_t = alpha * latents.to(output) + sigma * noise.to(output)
        if self.prediction_type == "v_prediction":
            return alpha * output + sigma * x_t
        return (x_t - alpha * output) / sigma

    def with_objective(self, objective: Objective) -> Denoiser:
        """The same model (the very same modules) with another `squared_error` and `loss`.

        "loss": (output − target)². "eps2": ε_θ², the output of D-TRAK and of Table 5, with no
        target; its mean takes the place of the loss in gradients, unlearning, Fisher and scores.
        """
        if objective not in OBJECTIVES:
            raise UserError(f"the objective is one of {', '.join(OBJECTIVES)}, not {objective!r}")
        return replace(self, objective=objective)

    def against_itself(self, moving: Collection[str]) -> Denoiser:
        """The same model, whose `squared_error` is (output − output with today's weights)²: 0 now,
        and how far the output has shifted once the parameters named in `moving` have changed.

        Those are copied, all others shared; an error then takes two forwards.
        """
        own = [p for name, p in self.unet.named_parameters() if name not in moving]
        shared = {id(tensor): tensor for tensor in (*own, *self.unet.buffers())}
        return replace(self, reference=deepcopy(self.unet, shared))

    @property
    def forwards(self) -> int:
        """Forwards of a UNet that one squared error takes."""
        return 1 if self.reference is None else 2

    def squared_error(
        self, latents: Tensor, cond: Tensor, noise: Tensor, timesteps: Tensor
    ) -> Tensor:
        """(output − target)², or ε_θ² by the objective, [B, C, h, w], differentiable."""
        output, target = self.predict(latents, cond, noise, timesteps)
        if self.reference is not None:
            with torch.no_grad():
                before = replace(self, unet=self.reference)
                target, _ = before.predict(latents, cond, noise, timesteps)
        if self.objective == "eps2":
            return self.predicted_noise(output, latents, noise, timesteps) ** 2
        return (output - target) ** 2

    def loss(self, latents: Tensor, cond: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """L(z, θ) at one (t, ε) per sample: mean of `squared_error` over latent elements, [B]."""
        return self.squared_error(latents, cond, noise, timesteps).mean(dim=(1, 2, 3))

    def generate(
        self,
        prompt: str,
        seed: int,
        *,
        steps: int = defaults.STEPS,
        guidance: float = defaults.GUIDANCE,
        on_step: OnStep | None = None,
    ) -> Image.Image:
        """One 8-bit RGB image by DDIM; the same arguments give the same image.

        `on_step(i, n)` is called after each of the n steps and may raise Cancelled.
        """
        images = self.generate_batch(
            [prompt], [seed], steps=steps, guidance=guidance, on_step=on_step
        )
        return images[0]

    def generate_batch(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int = defaults.STEPS,
        guidance: float = defaults.GUIDANCE,
        on_step: OnStep | None = None,
    ) -> list[Image.Image]:
        """DDIM from initial noise drawn on the CPU by seed; guidance scale 1 is no guidance."""
        images: list[Image.Image] = []
        for item in self.sample(prompts, seeds, steps=steps, guidance=guidance):
            if isinstance(item, list):
                images = item
            elif on_step is not None:
                on_step(*item)
        return images

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        steps: int = defaults.STEPS,
        guidance: float = defaults.GUIDANCE,
    ) -> Iterator[tuple[int, int] | list[Image.Image]]:
        """`generate_batch` step by step: (done, total) after each, the images last."""
        scheduler = self._ddim(steps)
        x = torch.stack([self._initial_noise(seed) for seed in seeds]).to(self.device, self.dtype)
        cond = self.encode_text(prompts)
        guided = guidance != 1.0
        context = torch.cat([self.encode_text([""]).expand_as(cond), cond]) if guided else cond
        for i, t in enumerate(scheduler.timesteps):
            output = self.unet(torch.cat([x, x]) if guided else x, t, context, return_dict=False)[0]
            if guided:
                free, conditional = output.chunk(2)
                output = free + guidance * (conditional - free)
            x = scheduler.step(output, t, x, eta=0.0, return_dict=False)[0]
            yield i + 1, len(scheduler.timesteps)
        yield self.decode_latents(x)

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> list[Image.Image]:
        """Latents [B, C, h, w] → 8-bit RGB images."""
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        z = (latents / self.vae.config.scaling_factor + shift).to(self.vae.dtype)
        pixels = self.vae.decode(z, return_dict=False)[0].float()
        pixels = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
        return [Image.fromarray(p) for p in pixels.permute(0, 2, 3, 1).cpu().numpy()]

    def _initial_noise(self, seed: int) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(int(seed))
        return torch.randn(self.latent_shape, generator=generator, dtype=torch.float32)

    def _ddim(self, steps: int) -> Any:
        from diffusers import DDIMScheduler

        # clip_sample is for pixel models: latents are not confined to [-1, 1]
        scheduler = DDIMScheduler.from_config(self.scheduler.config, clip_sample=False)
        scheduler.set_timesteps(int(steps), device=self.device)
        return scheduler


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype errors are computed in: float32, or float64 where the model is."""
    return torch.float64 if dtype == torch.float64 else torch.float32
