"""The heads: contrastive tuning of a linear map on frozen features, towards the identity.

| code | meaning |
|---|---|
| `W`, `b` | the head, h(f) = (W f + b) / ‖W f + b‖ |
| s(x̂, x) | h(f(x̂)) · h(f(x)) / temperature, the better of image and flip of the record x |
| loss | −½ [log softmax over records + log softmax over samples] + penalty (‖W − I‖² + ‖b‖²) / d |

A step takes one sample and one exemplar of each training model; other models' exemplars and a bank
of other records are the first softmax's negatives, other models' samples the second's. No record by
a held-out artist is ever a negative. The penalty is chosen by cross-validation over the training
artists, and the identity is among the choices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attribution.heads import Head
from precompute.recipes.abc.config import HeadConfig
from precompute.recipes.abc.features import Case, Features
from precompute.recipes.abc.plan import TRAIN, VALIDATION
from precompute.recipes.abc.retrieval import retrieval, scores


@dataclass(frozen=True)
class Tuned:
    """A head, and the mean average precision of each penalty in cross-validation."""

    head: Head
    penalty: float
    validated: dict[float, float]


def tune_head(found: Features, config: HeadConfig) -> Tuned:
    """The head of the training models, its penalty chosen by them alone."""
    cases = found.of_split(TRAIN)
    held = {case.artist for case in found.of_split(VALIDATION)}
    validated = {p: cross_validated(found, cases, held, p, config) for p in config.penalties}
    best = max(validated, key=lambda penalty: (validated[penalty], penalty))
    head = train_head(found, cases, held, best, config)
    about = {
        "features": found.name,
        "encoder_sha256": found.encoder_sha256,
        "models": len(cases),
        "artists": sorted({case.artist for case in cases}),
        "samples": sum(len(case.samples) for case in cases),
        "penalty": _json(best),
        "cross_validation_map": {str(_json(p)): round(v, 4) for p, v in validated.items()},
        "settings": {k: v for k, v in asdict(config).items() if k != "penalties"},
    }
    return Tuned(Head(head.weight, head.bias, about), best, validated)


def _json(penalty: float) -> float | str:
    return penalty if math.isfinite(penalty) else "identity"


def cross_validated(
    found: Features, cases: Sequence[Case], held: set[str], penalty: float, config: HeadConfig
) -> float:
    """Mean average precision on each fold of artists, of the head trained on the others."""
    if not math.isfinite(penalty):
        head = Head.identity(found.records.shape[-1])
        return scores(found, head, cases).mean("ap")
    values = []
    for fold in folds(cases, config):
        artists = held | {case.artist for case in fold}
        rest = [case for case in cases if case.artist not in artists]
        head = train_head(found, rest, artists, penalty, config)
        values += [row.ap for row in scores(found, head, fold).rows]
    return float(np.mean(values))


def folds(cases: Sequence[Case], config: HeadConfig) -> list[list[Case]]:
    """The cases dealt into folds, all of an artist's into one."""
    names = sorted({case.artist for case in cases})
    order = np.random.default_rng(config.seed).permutation(len(names))
    fold_of = {names[i]: turn % config.folds for turn, i in enumerate(order)}
    dealt = [[c for c in cases if fold_of[c.artist] == fold] for fold in range(config.folds)]
    return [fold for fold in dealt if fold and len(fold) < len(cases)]


def train_head(
    found: Features, cases: Sequence[Case], held: set[str], penalty: float, config: HeadConfig
) -> Head:
    """W and b by Adam from the identity. held: artists whose records are no negatives."""
    identity = Head.identity(found.records.shape[-1])
    if not math.isfinite(penalty) or not cases:
        return identity
    weight = identity.weight.clone().requires_grad_(True)
    bias = identity.bias.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([weight, bias], lr=config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    free = found.apart_from(held)
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - step / config.steps)
        batch = Batch.draw(found, cases, free, config.bank, generator)
        away = (weight - identity.weight).square().sum() + bias.square().sum()
        loss = contrast(batch, weight, bias, config.temperature) + penalty * away / len(bias)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return Head(weight.detach(), bias.detach())


@dataclass(frozen=True, eq=False)
class Batch:
    """samples [B, d]; records [B + bank, flips, d], row i the exemplar of sample i; same [B, B +
    bank]: true where a record is another exemplar of the sample's model, and so no negative."""

    samples: Tensor
    records: Tensor
    same: Tensor

    @classmethod
    def draw(
        cls,
        found: Features,
        cases: Sequence[Case],
        free: Tensor,
        bank: int,
        generator: torch.Generator,
    ) -> Batch:
        """One sample and one exemplar of each case, and records from `free`."""
        samples = torch.stack([c.samples[_one(len(c.samples), generator)] for c in cases])
        own = [c.exemplars[_one(len(c.exemplars), generator)] for c in cases]
        others = free[torch.randperm(len(free), generator=generator)[:bank]].tolist()
        places = torch.tensor([*own, *others])
        same = torch.stack([torch.isin(places, torch.tensor(c.exemplars)) for c in cases])
        same[range(len(own)), range(len(own))] = False
        return cls(samples, found.records[places], same)


def _one(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))


def contrast(batch: Batch, weight: Tensor, bias: Tensor, temperature: float) -> Tensor:
    """InfoNCE both ways, a scalar."""
    n = len(batch.samples)
    samples = F.normalize(batch.samples @ weight.T + bias, dim=-1)
    records = F.normalize(batch.records @ weight.T + bias, dim=-1)
    logits = torch.einsum("sd,nfd->snf", samples, records).amax(-1) / temperature
    logits = logits.masked_fill(batch.same, -torch.inf)
    target = torch.arange(n)
    square = logits[:, :n]
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(square.T, target))


def validation(found: Features, head: Head) -> dict[str, Any]:
    """Retrieval of held-out artists' exemplars before and after, as JSON values."""
    cases = found.of_split(VALIDATION)
    return {
        "before": retrieval(found, Head.identity(found.records.shape[-1]), cases),
        "after": retrieval(found, head, cases),
    }
