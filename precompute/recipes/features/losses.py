"""The losses of DINO and DINOv2, from the papers' equations.

| code | paper | |
|---|---|---|
| `scores` | g_θ(x) | a head's output before any softmax, [B, K] |
| `centre` | c | running mean of the teacher's scores (DINO, Eq. 4), [K] |
| `temperature` | τ_s, τ_t | student's 0.1, teacher's lower: sharper |
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def centred(scores: torch.Tensor, centre: torch.Tensor, temperature: float) -> torch.Tensor:
    """The teacher's distribution softmax((g − c) / τ_t), [B, K]: centring keeps one prototype from
    taking all, sharpening keeps all from being alike.
    """
    return F.softmax((scores - centre) / temperature, dim=-1)


def sinkhorn(scores: torch.Tensor, temperature: float, rounds: int = 3) -> torch.Tensor:
    """The teacher's distribution by Sinkhorn–Knopp (SwAV, DINOv2), [B, K]: exp(g / τ) scaled by
    turns until prototypes share the batch alike; each row sums to 1.
    """
    if not len(scores):
        return scores
    weights = torch.exp((scores - scores.max()) / temperature)
    n, k = weights.shape
    for _ in range(rounds):
        weights = weights / weights.sum(0, keepdim=True).clamp_min(1e-12) / k
        weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-12) / n
    return weights * n


def cross_views(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> torch.Tensor:
    """Σ −p_t log p_s over all pairs of a teacher's view and ANOTHER student's view, their mean.

    teacher: probabilities [2, B, K]; student: scores [V, B, K], its first two of the same views.
    """
    logs = F.log_softmax(student / temperature, dim=-1)
    losses = -torch.einsum("tbk,vbk->tv", teacher, logs) / teacher.shape[1]
    same = torch.eye(len(teacher), len(student), dtype=torch.bool)
    return losses[~same].mean()


def masked_patches(
    teacher: torch.Tensor, student: torch.Tensor, temperature: float, per_patch: torch.Tensor
) -> torch.Tensor:
    """iBOT: cross-entropy at the hidden patches, each picture counting alike.

    teacher: probabilities [M, K] of what the hidden patches show; student: scores [M, K] of the
    mask tokens there; per_patch: 1 / (hidden patches of its picture · masked pictures), [M].
    """
    losses = -(teacher * F.log_softmax(student / temperature, dim=-1)).sum(-1)
    return (losses * per_patch).sum()


def koleo(features: torch.Tensor) -> torch.Tensor:
    """−1/n Σ log min_{j≠i} ‖x_i − x_j‖ of unit vectors x, [n, d] (DINOv2, Sec. 4): features spread
    out.
    """
    x = F.normalize(features, dim=-1)
    with torch.no_grad():
        cosines = x @ x.T
        cosines.fill_diagonal_(-2.0)
        nearest = cosines.argmax(1)
    return -torch.log((x - x[nearest]).norm(dim=1) + 1e-8).mean()


@torch.no_grad()
def health(teacher: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """What collapse would show in, all in [0, 1]: teacher probabilities [B, K], tokens [B, d].

    sharpness: mean entropy of a row over log K (1: no opinion). information: what a row says of
    which picture it is, the entropy of the mean row less that of the rows, over log B (0: the same
    of every picture, sharp or not). spread: standard deviation of unit class tokens times √d (0:
    all alike).
    """
    n, k = teacher.shape
    rows, mean = _entropy(teacher).mean(), _entropy(teacher.mean(0))
    x = F.normalize(tokens, dim=-1)
    return {
        "sharpness": rows / math.log(k),
        "information": (mean - rows) / math.log(min(n, k)),
        "spread": x.std(0).square().mean().sqrt() * x.shape[1] ** 0.5,
    }


def _entropy(p: torch.Tensor) -> torch.Tensor:
    return -(p * p.clamp_min(1e-12).log()).sum(-1)
