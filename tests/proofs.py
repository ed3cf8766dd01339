"""A finished proof without a training."""

from __future__ import annotations

from PIL import Image

from attribution.proofs import Proof, Retraining
from attribution.types import Query


def made_up_proof(
    found: list[str], control: list[str], losses: tuple[float, float] = (0.6, 0.525)
) -> Proof:
    """The model's own loss is 0.5: by default 20 % worse without `found`, 5 % without `control`."""
    query = Query("a <red> card", Image.new("RGB", (16, 16), "red"), 7, 2, 3.0, "DDIMScheduler")
    curve = ((1, 0.9), (2, 0.5), (3, 0.4))
    sides = [
        Retraining(tuple(ids), Image.new("RGB", (16, 16), colour), loss, change, curve, 3.0)
        for ids, colour, loss, change in (
            (found, "blue", losses[0], 0.25),
            (control, "white", losses[1], 0.01),
        )
    ]
    return Proof(query, "abu", 0.5, *sides)
