"""The detection loss, written here because transformers' own does not train a GroundingDINO from
scratch: it needs scipy, mixes up the phrases of a batch from its third picture on (an offset of one
prompt where the sum of all before it belongs), and gives the encoder's proposals no gradient.

| code | meaning |
|---|---|
| logits | [B, Q, L], a query against each token of the prompt |
| boxes | [B, Q, 4] as (cx, cy, w, h), shares of the picture |
| matched | int64 [B, Q], the object a query answers for, −1 for none |

Per stage (the encoder's proposals, each decoder layer): Hungarian matching (Carion et al. 2020,
"DETR"), focal loss on the tokens (Lin et al. 2017), L1 and generalised IoU on the boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attribution.detection.boxes import corners, overlap

ALPHA, GAMMA = 0.25, 2.0
CLASS_WEIGHT, BOX_WEIGHT, SHAPE_WEIGHT = 2.0, 5.0, 2.0
_FAR = 1e4


@dataclass(frozen=True)
class Targets:
    """Objects of a batch. boxes: [B, T, 4] as (cx, cy, w, h); tokens: bool [B, T, L], the tokens
    that name an object; there: bool [B, T], False for padding; text: bool [B, L], real tokens.
    """

    boxes: Tensor
    tokens: Tensor
    there: Tensor
    text: Tensor


def detection_loss(
    network: Any, outputs: Any, targets: Targets, proposals: int
) -> dict[str, Tensor]:
    """{"loss", "class", "box", "shape"}: means over the stages; `outputs` of the network's forward.

    proposals: how many cells of the encoder learn each object.
    """
    parts = []
    for number, (logits, boxes) in enumerate(stages(network, outputs, targets.text)):
        copies = proposals if number == 0 else 1
        parts.append(stage_loss(logits, boxes, targets, copies))
    means = [torch.stack(part).mean() for part in zip(*parts, strict=True)]
    weights = (CLASS_WEIGHT, BOX_WEIGHT, SHAPE_WEIGHT)
    total = torch.stack([w * mean for w, mean in zip(weights, means, strict=True)]).sum()
    named = zip(("class", "box", "shape"), means, strict=True)
    return {"loss": total, **{name: mean.detach() for name, mean in named}}


def stages(network: Any, outputs: Any, text: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits, boxes) of the encoder's proposals, then of every decoder layer, as in the network's
    forward, which returns only the last.
    """
    length = text.shape[1]
    yield outputs.enc_outputs_class[..., :length], outputs.enc_outputs_coord_logits.sigmoid()
    reference = outputs.init_reference_points
    states = outputs.encoder_last_hidden_state_text
    for level in range(outputs.intermediate_hidden_states.shape[1]):
        hidden = outputs.intermediate_hidden_states[:, level]
        logits = network.class_embed[level](hidden, states, text)[..., :length]
        shift = network.bbox_embed[level](hidden)
        yield logits, (shift + torch.special.logit(reference, eps=1e-5)).sigmoid()
        reference = outputs.intermediate_reference_points[:, level]


def stage_loss(
    logits: Tensor, boxes: Tensor, targets: Targets, copies: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """(focal, L1, 1 − generalised IoU), each summed and divided by the number of matched queries.

    copies: how many queries answer for an object; one leaves no duplicates.
    """
    text = targets.text[:, None, :]
    logits = logits.masked_fill(~text, 0.0)
    cost = matching_cost(logits.detach(), boxes.detach(), targets)
    matched = match(cost, targets.there) if copies == 1 else match_many(cost, targets.there, copies)
    chosen = matched >= 0
    count = chosen.sum().clamp(min=1)
    object_ = matched.clamp(min=0)
    wanted = _rows(targets.tokens, object_) & chosen[..., None]
    focal = (focal_loss(logits, wanted.float()) * text).sum() / count
    found, true = boxes[chosen], _rows(targets.boxes, object_)[chosen]
    distance = (found - true).abs().sum() / count
    shape = (1.0 - overlap(corners(found), corners(true))[1]).sum() / count
    return focal, distance, shape


def _rows(values: Tensor, number: Tensor) -> Tensor:
    """values [B, T, d] of objects number [B, Q] → [B, Q, d]."""
    return values.gather(1, number[..., None].expand(*number.shape, values.shape[-1]))


def focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """−α_t (1 − p_t)^γ log p_t per element, α = 0.25, γ = 2."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    alpha = ALPHA * targets + (1 - ALPHA) * (1 - targets)
    return alpha * (1 - (-entropy).exp()) ** GAMMA * entropy


def matching_cost(logits: Tensor, boxes: Tensor, targets: Targets) -> Tensor:
    """[B, Q, T]: what a query would pay as each object; the class part is the mean over the tokens
    of the object's name.
    """
    gain = focal_loss(logits, torch.ones_like(logits)) - focal_loss(
        logits, torch.zeros_like(logits)
    )
    share = targets.tokens.float()
    share = share / share.sum(-1, keepdim=True).clamp(min=1)
    named = gain @ share.transpose(1, 2)
    found, true = boxes[:, :, None, :], targets.boxes[:, None, :, :]
    distance = (found - true).abs().sum(-1)
    shape = -overlap(corners(found), corners(true))[1]
    return CLASS_WEIGHT * named + BOX_WEIGHT * distance + SHAPE_WEIGHT * shape


def match(cost: Tensor, there: Tensor) -> Tensor:
    """The assignment of least total cost, each object to a query of its own: matched [B, Q].

    Exact for Q ≥ T: in a best assignment every object has one of its own T cheapest queries (were
    it not so, one of those is free, and taking it costs no more), so trying all T^T choices among
    those finds it. T is 3 at most here.
    """
    batch, queries, objects = cost.shape
    cheapest, which = cost.topk(objects, dim=1, largest=False)  # [B, T choices, T objects]
    tries = torch.tensor(list(product(range(objects), repeat=objects)))  # [T^T, T]
    column = torch.arange(objects).expand_as(tries)
    price = cheapest[:, tries, column] * there[:, None, :]
    query = which[:, tries, column]
    # padding claims no query: each gets a number of its own beyond the real ones
    query = torch.where(there[:, None, :], query, queries + column)
    clash = query[..., :, None] == query[..., None, :]
    clash = clash.sum((-1, -2)) > objects
    best = (price.sum(-1) + _FAR * clash).argmin(1)
    chosen = query[torch.arange(batch), best]  # [B, T]
    matched = torch.full((batch, queries + objects), -1)
    matched.scatter_(1, chosen, torch.arange(objects).expand_as(chosen))
    return matched[:, :queries]


def match_many(cost: Tensor, there: Tensor, copies: int) -> Tensor:
    """The `copies` cheapest queries of each object; one that several want goes to the object it
    suits best. matched [B, Q].
    """
    batch, queries, objects = cost.shape
    cost = cost.masked_fill(~there[:, None, :], float("inf"))
    which = cost.topk(min(copies, queries), dim=1, largest=False).indices
    wanted = torch.zeros(batch, queries, objects, dtype=torch.bool).scatter_(1, which, True)
    cheapest, object_ = cost.masked_fill(~wanted, float("inf")).min(-1)
    return torch.where(cheapest.isfinite(), object_, -1)
