"""The objects of a picture, each drawn in a picture of its own: what a method finds of an object
when nothing else is there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from attribution.types import Query
from evaluation import generated, recogniser
from evaluation.generated import Sampling, seed_of
from evaluation.objects.cutting import content, cut_out, ink
from evaluation.objects.two_objects import SEEDS, Case
from evaluation.recogniser import Recogniser
from evaluation.world import World


def alone(
    world: World,
    model: Recogniser,
    among: Sequence[str],
    cases: Sequence[Case],
    sampling: Sampling,
    cache: Path,
) -> dict[tuple[str, int], Query]:
    """(case's key, which object) → the picture of the caption of its drawing, the first that the
    classifier names as its category; none where SEEDS pictures are something else."""
    records = world.records
    captions = dict(zip(records.ids, records.captions, strict=True))
    found: dict[tuple[str, int], Query] = {}
    for attempt in range(SEEDS):
        left = [(case, i) for case, i in product(cases, (0, 1)) if (case.key, i) not in found]
        if not left:
            break
        prompts = [captions[case.parts[i]] for case, i in left]
        asked = [(prompt, seed_of(f"alone|{attempt}|{prompt}")) for prompt in prompts]
        images = generated.draw(world, list(dict.fromkeys(asked)), sampling, cache)
        drawn = dict(zip(dict.fromkeys(asked), images, strict=True))
        for (case, i), pair in zip(left, asked, strict=True):
            if named(model, among, drawn[pair]) == case.categories[i]:
                prompt, seed = pair
                found[case.key, i] = Query(prompt, Image.fromarray(drawn[pair]), seed=seed)
    return found


def named(model: Recogniser, among: Sequence[str], image: np.ndarray) -> str | None:
    """What the classifier calls the whole of what is drawn, uint8 [H, W, 3]; None for nothing."""
    ground, drawn = ink(image)
    box = content(drawn, (0, 0, image.shape[1], image.shape[0]))
    if box is None:
        return None
    return among[int(recogniser.predict(model, cut_out(image, box, ground)[None])[0])]
