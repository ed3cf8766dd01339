"""TRAK scores by `traker` (Park et al.'s own package), fed with the same losses as ours.

Only its public classes are used; x_t and targets come from the diffusers scheduler. Their samples
are independent of ours in everything but the noise: gradients by vmap over the whole UNet, their
projection, their solver in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution.denoiser import Denoiser
from attribution.types import UserError

NAME = "traker"


@dataclass(frozen=True)
class Samples:
    """B samples of K draws each: latents, noise [B, K, C, h, w], cond [B, K, L, d], timesteps
    int64 [B, K]; a sample's loss is the mean over its draws.
    """

    latents: Tensor
    cond: Tensor
    noise: Tensor
    timesteps: Tensor

    def __len__(self) -> int:
        return len(self.latents)


@dataclass
class Peer:
    """One model's TRAK by traker. dim: of its random projection, None for none at all."""

    denoiser: Denoiser
    names: Sequence[str]
    folder: Path
    count: int
    dim: int | None = None

    def __post_init__(self) -> None:
        trak = _package()
        unet, device = self.denoiser.unet, str(self.denoiser.device)
        projector = trak.projectors.NoOpProjector(device=device) if self.dim is None else None
        self.traker = trak.TRAKer(
            model=unet,
            task=_output(trak),
            train_set_size=self.count,
            save_dir=str(self.folder),
            device=device,
            projector=projector,
            proj_dim=self.dim or 0,
            logging_level=50,
            use_half_precision=False,
            grad_wrt=list(self.names),
        )
        self.traker.load_checkpoint(unet.state_dict(), model_id=0)

    def featurise(self, samples: Samples) -> None:
        """Features of a batch of training samples, in order."""
        self.traker.featurize(self._batch(samples), num_samples=len(samples))

    def scores(self, targets: Samples, damping: float) -> np.ndarray:
        """Scores [training samples, targets], up to a positive factor; λ = damping · tr(ΦᵀΦ)/d."""
        gram = np.square(np.asarray(self.traker.saver.current_store["grads"], dtype=np.float64))
        width = gram.shape[1]
        self.traker.score_computer.lambda_reg = damping * float(gram.sum()) / width
        self.traker.finalize_features()
        projector = self.traker.projector
        if getattr(projector, "num_blocks", 0) == 1:
            # finalising frees the matrix, and one of a single block is not drawn again by itself
            projector.generate_sketch_matrix(projector.generator_states[0])
        state = self.denoiser.unet.state_dict()
        self.traker.start_scoring_checkpoint("targets", state, model_id=0, num_targets=len(targets))
        self.traker.score(self._batch(targets), num_samples=len(targets))
        return np.array(self.traker.finalize_scores("targets"))

    def _batch(self, samples: Samples) -> tuple[Tensor, ...]:
        """(x_t, target, cond, timesteps) as the scheduler makes them."""
        scheduler, device = self.denoiser.scheduler, self.denoiser.device
        z, eps, t = (x.flatten(0, 1) for x in (samples.latents, samples.noise, samples.timesteps))
        x_t = scheduler.add_noise(z, eps, t)
        target = scheduler.get_velocity(z, eps, t) if self._velocity else eps
        shape = samples.latents.shape
        parts = x_t.view(shape), target.view(shape), samples.cond, samples.timesteps
        return tuple(part.to(device) for part in parts)

    @property
    def _velocity(self) -> bool:
        return self.denoiser.prediction_type == "v_prediction"


def _package() -> Any:
    """traker's modules; UserError where it is not installed."""
    try:
        import trak
        import trak.projectors
    except ImportError:
        raise UserError(f"{NAME} is not installed: pip install -r requirements-dev.txt") from None
    return trak


def _output(trak: Any) -> Any:
    """The loss as traker's model output function: its own derivative by the loss is 1."""

    class Loss(trak.modelout_functions.AbstractModelOutput):  # type: ignore[misc, name-defined]
        def __init__(self) -> None: ...

        @staticmethod
        def get_output(
            model: Any,
            weights: Any,
            buffers: Any,
            x_t: Tensor,
            target: Tensor,
            cond: Tensor,
            t: Tensor,
        ) -> Tensor:
            inputs, plain = (x_t, t, cond), {"return_dict": False}
            found = torch.func.functional_call(model, (weights, buffers), inputs, plain)[0]
            return (found - target).square().mean()

        @staticmethod
        def get_out_to_loss_grad(model: Any, weights: Any, buffers: Any, batch: Any) -> Tensor:
            return torch.ones(len(batch[0]), 1, device=batch[0].device)

    return Loss()
