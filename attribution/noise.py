"""Noise that belongs to a record, not to a batch: a pure function of its key, made on the CPU.

The same (scheme, namespace, seed, record id, timestep, draw) gives the same Gaussian draw whatever
the batch size, the order, the shard split or the machine, so a loss cached last week can be
compared with one computed today.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

SCHEME: int = 1

# Apart on purpose: a query that is itself a training record must not be unlearned on the very
# draws it is scored on.
NAMESPACES = (
    "query-gradient",
    "line-search",
    "score",
    "fisher",
    "train-gradient",
    "evaluation",
    "attention",
)


def _generator(
    namespace: str, seed: int, record_id: str, timestep: int, draw: int
) -> np.random.Generator:
    """numpy generator (Philox, counter based) for one key; ValueError for an unknown namespace."""
    if namespace not in NAMESPACES:
        raise ValueError(f"unknown noise namespace {namespace!r}; one of {', '.join(NAMESPACES)}")
    # the record id comes last: the only part that could hold the separator
    text = f"{SCHEME}|{namespace}|{seed}|{timestep}|{draw}|{record_id}"
    key = int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def keyed_noise(
    shape: Sequence[int], *, namespace: str, seed: int, record_id: str, timestep: int, draw: int = 0
) -> Tensor:
    """Gaussian draw ε of one key, float32 CPU tensor of `shape` ([C, h, w])."""
    generator = _generator(namespace, seed, record_id, int(timestep), int(draw))
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


def keyed_integers(
    low: int, high: int, *, namespace: str, seed: int, record_id: str, draw: int = 0
) -> int:
    """Integer in [low, high) of one key, for random timesteps."""
    # timestep -1 keeps it apart from any noise
    return int(_generator(namespace, seed, record_id, -1, int(draw)).integers(low, high))


def mirrored(noise: Tensor) -> Tensor:
    """The noise of the flipped image: the same draw flipped along width, [..., h, w]."""
    return noise.flip(-1)
