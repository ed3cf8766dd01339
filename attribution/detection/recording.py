"""Cross-attention recorded while a UNet runs, by diffusers' own processors wrapped for that long.

| code | meaning |
|---|---|
| A [B, heads, hw, L] | cross-attention probabilities of one layer, position against token |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attribution.types import UserError

TINY = 1e-12


@dataclass
class Recording:
    """Sums of A / mean_hw(A) over calls, by the number of positions hw.

    keep: how many samples at the end of a batch count; before them is guidance without a prompt.
    """

    keep: int
    sums: dict[int, Tensor] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)

    def add(self, probabilities: Tensor) -> None:
        """A of one call, [B, heads, hw, L]."""
        kept = probabilities[-self.keep :].float()
        one = (kept / kept.mean(dim=2, keepdim=True).clamp(min=TINY)).mean(dim=(0, 1)).cpu()
        positions = one.shape[0]
        self.sums[positions] = self.sums[positions] + one if positions in self.sums else one
        self.calls[positions] = self.calls.get(positions, 0) + 1

    def maps(self, height: int, width: int) -> Tensor:
        """Mean over all calls on the latent grid, float32 [L, h, w]; UserError without any."""
        if not self.calls:
            raise UserError("this model has no cross-attention to look at")
        total = torch.zeros(())
        for positions, summed in self.sums.items():
            rows = round((positions * height / width) ** 0.5)
            coarse = summed.T.reshape(1, -1, rows, positions // rows)
            total = total + F.interpolate(coarse, (height, width), mode="bilinear")[0]
        return total / sum(self.calls.values())


class Recorder:
    """An attention processor that lets another do the work, and records A beside it: what comes out
    is what would come out without it, bit for bit.
    """

    def __init__(self, processor: Any, recording: Recording) -> None:
        self.processor, self.recording = processor, recording

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        if encoder_hidden_states is not None:
            self.recording.add(_probabilities(attn, hidden_states, encoder_hidden_states))
        out: Tensor = self.processor(
            attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs
        )
        return out


@torch.no_grad()
def _probabilities(attn: Any, hidden: Tensor, states: Tensor) -> Tensor:
    """A of a layer, [B, heads, hw, L], by the layer's own projections and scores."""
    states = attn.norm_encoder_hidden_states(states) if attn.norm_cross else states
    query, key = (attn.head_to_batch_dim(x) for x in (attn.to_q(hidden), attn.to_k(states)))
    scores: Tensor = attn.get_attention_scores(query, key)
    return scores.unflatten(0, (len(hidden), -1))


@contextmanager
def recorded(unet: Any, keep: int) -> Iterator[Recording]:
    """The UNet's cross-attention is recorded inside; its own processors are back on every way out.

    keep: as in `Recording`.
    """
    own = dict(unet.attn_processors)
    recording = Recording(keep)
    try:
        unet.set_attn_processor(
            {
                name: Recorder(one, recording) if ".attn2." in name else one
                for name, one in own.items()
            }
        )
        yield recording
    finally:
        unet.set_attn_processor(dict(own))
