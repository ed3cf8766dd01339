"""Attribution by likeness: cosines of features. The paper's baselines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from attribution.features import pixel_features
from attribution.methods.answers import ranked, refuse_unknown, region_params
from attribution.methods.context import Context
from attribution.methods.method import Method
from attribution.regions import crop
from attribution.types import Attribution, Progress, Query

KIND = "similarity"
Encode = Callable[[Context, Query], np.ndarray]


def clip_image(context: Context, query: Query) -> np.ndarray:
    """CLIP feature of the picture, [d]."""
    return np.asarray(context.clip.images([query.image])[0])


def clip_text(context: Context, query: Query) -> np.ndarray:
    """CLIP feature of the prompt, [d]."""
    return np.asarray(context.clip.texts([query.prompt])[0])


def pixels(context: Context, query: Query) -> np.ndarray:
    """The picture itself, small, [d]."""
    return np.asarray(pixel_features([query.image])[0])


class SimilarityAttributor:
    """Inner products of one feature with every training record's, the better of image and flip.

    Of a query with regions the crop is compared, unless `prompt_only`: then no picture is looked
    at.
    """

    def __init__(
        self, context: Context, name: str, encode: Encode, prompt_only: bool = False
    ) -> None:
        self.context, self.name, self.encode = context, name, encode
        self.prompt_only = prompt_only

    def run(
        self, query: Query, ids: Sequence[str] | None = None, k: int = 24, **options: Any
    ) -> Iterator[Progress | Attribution]:
        """One Progress, then the Attribution over all training records (or `ids`)."""
        refuse_unknown(self.name, options, {"exhaustive": None, "shortlist": None})
        began = time.perf_counter()
        yield Progress("compare", 0, 1)
        wanted = self.context.training_rows(ids)
        search = self.context.index.search(self.name)
        seen = query if self.prompt_only else replace(query, image=crop(query), regions=())
        feature = self.encode(self.context, seen)
        rows, products, flips = search.nearest(feature, len(self.context.index.train_rows))
        keep = np.isin(rows, wanted)
        yield ranked(
            self.name,
            KIND,
            self.context.index,
            rows[keep],
            products[keep],
            flip=flips[keep],
            seconds={"compare": time.perf_counter() - began},
            params=region_params(query, "ignored" if self.prompt_only else "crop"),
        )


def _method(
    name: str, title: str, explanation: str, source: str, needs: tuple[str, ...], encode: Any
) -> Method:
    prompt_only = encode is clip_text
    build = partial(SimilarityAttributor, name=name, encode=encode, prompt_only=prompt_only)
    return Method(name, "similarity", title, explanation, source, needs, build)


METHODS: tuple[Method, ...] = (
    _method(
        "pixel",
        "Pixels",
        "Cosine of the small pictures themselves.",
        "Baseline",
        ("rows:pixel",),
        pixels,
    ),
    _method(
        "clip-text",
        "CLIP text",
        "Cosine of the prompt's and the captions' CLIP features; the picture plays no part.",
        "Radford et al. CLIP (ICML 2021)",
        ("clip", "rows:clip-text"),
        clip_text,
    ),
    _method(
        "clip",
        "CLIP",
        "Cosine of CLIP image features: what looks alike, whether or not it mattered.",
        "Radford et al. CLIP (ICML 2021)",
        ("clip", "rows:clip"),
        clip_image,
    ),
    Method(
        "dino",
        "similarity",
        "DINO",
        "Cosine of DINO image features.",
        "Caron et al. DINO (ICCV 2021)",
    ),
    Method(
        "dinov2",
        "similarity",
        "DINOv2",
        "Cosine of DINOv2 image features.",
        "Oquab et al. DINOv2 (TMLR 2024)",
    ),
)
