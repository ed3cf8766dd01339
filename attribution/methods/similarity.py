"""Attribution by likeness: cosines of features. The paper's baselines."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from attribution import regions
from attribution.encoders import encoder_of
from attribution.features import pixel_features
from attribution.methods.answers import ranked, refuse_unknown, region_params
from attribution.methods.context import Context
from attribution.methods.method import Method
from attribution.pixels import NAME as PIXEL
from attribution.pixels import pixel_search
from attribution.search import Search
from attribution.types import Attribution, Progress, Query

KIND = "similarity"
Encode = Callable[[Context, Query], np.ndarray]


def clip_image(context: Context, query: Query) -> np.ndarray:
    """CLIP feature of the picture, [d]."""
    return np.asarray(context.clip.images([query.image])[0])


def clip_text(context: Context, query: Query) -> np.ndarray:
    """CLIP feature of the prompt, or of the regions' own words, [d]."""
    return np.asarray(context.clip.texts([regions.text(query)])[0])


def pixels(context: Context, query: Query) -> np.ndarray:
    """The picture itself, small, [d]."""
    return np.asarray(pixel_features([query.image])[0])


def class_token(context: Context, query: Query, encoder: str) -> np.ndarray:
    """Feature of the picture by one of the index's extra encoders, [d]."""
    opened = encoder_of(context.index, encoder, context.denoiser.device)
    return np.asarray(opened.images([query.image])[0])


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
        """Progress, then the Attribution over all training records (or `ids`)."""
        refuse_unknown(self.name, options, {"exhaustive": None, "shortlist": None})
        began = time.perf_counter()
        yield Progress("compare", 0, 1)
        wanted = self.context.training_rows(ids)
        search = yield from self._search()
        seen = query if self.prompt_only else replace(query, image=regions.crop(query), regions=())
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
            params=region_params(query, self._seen(query)),
        )

    def _seen(self, query: Query) -> str:
        """What this method looks at of a region."""
        if self.prompt_only:
            return "words" if query.called else "ignored"
        return "crop"

    def _search(self) -> Generator[Progress, None, Search]:
        """What the query is compared with, rows of the index."""
        yield from ()
        return self.context.index.search(self.name)


class PixelAttributor(SimilarityAttributor):
    """The pictures themselves, small: made from the records when they are first asked for."""

    _pictures: Search | None = None

    def _search(self) -> Generator[Progress, None, Search]:
        if self._pictures is None:
            self._pictures = yield from pixel_search(self.context.index)
        return self._pictures


def _cosine(query: str, record: str) -> str:
    """LaTeX of the cosine of two features, the record's the better of image and flip."""
    return rf"\tau(\hat z, z) = \max_{{z' \in \{{z,\, \bar z\}}}} \cos\big({query},\, {record}\big)"


def _method(
    name: str,
    title: str,
    explanation: str,
    source: str,
    lesson: str,
    needs: tuple[str, ...],
    encode: Encode,
    formula: str = _cosine(r"f(\hat z)", "f(z')"),
    kind: type[SimilarityAttributor] = SimilarityAttributor,
) -> Method:
    build = partial(kind, name=name, encode=encode, prompt_only=encode is clip_text)
    return Method(name, KIND, title, explanation, source, needs, build, lesson, formula)


METHODS: tuple[Method, ...] = (
    _method(
        "pixel",
        "Pixels",
        "Cosine of the small pictures themselves.",
        "Baseline",
        "Both pictures are shrunk to 16 by 16 points, and the points are compared one by one. "
        "That finds copies, and things of the same colour in the same place; a cat moved to the "
        "other corner is no longer the same cat. Whatever claims to know more about a model than "
        "this has to do better than this.",
        (f"made:{PIXEL}",),
        pixels,
        _cosine(r"1 - \hat z_{16}", "1 - z'_{16}"),
        PixelAttributor,
    ),
    _method(
        "clip-text",
        "CLIP text",
        "Cosine of the prompt's and the captions' CLIP features; the picture plays no part.",
        "Radford et al. CLIP (ICML 2021)",
        "CLIP has learned from pictures and their captions to turn any text into a list of "
        "numbers, so that texts of like meaning get like lists. Your prompt's list is compared "
        "with that of each caption. The picture itself is never looked at: every drawing of this "
        "prompt gets the same answer.",
        ("clip", "rows:clip-text"),
        clip_text,
        r"\tau(\hat z, z) = \cos\big(f_{\text{text}}(\hat c),\, \overline{f_{\text{text}}(c)}\big)",
    ),
    _method(
        "clip",
        "CLIP",
        "Cosine of CLIP image features: what looks alike, whether or not it mattered.",
        "Radford et al. CLIP (ICML 2021)",
        "CLIP turns a picture into a list of numbers that fits the words people would use for it. "
        "Pictures with like lists show like things, even in other colours or another place. But a "
        "look-alike need not have taught the model anything: CLIP never looks into the model that "
        "made the picture.",
        ("clip", "rows:clip"),
        clip_image,
    ),
    _method(
        "dino",
        "DINO",
        "Cosine of DINO image features, learned from pictures alone, without a word.",
        "Caron et al. DINO (ICCV 2021)",
        "DINO learned without captions: a student that sees a small cut-out of a picture has to "
        "say what its teacher, a slower copy of itself, says of a larger one. To succeed it has to "
        "notice what the parts of a picture share, such as its shapes and its hand. The published "
        "comparison found it the best of the plain look-alike methods, and yet it knows nothing of "
        "the model that made the picture.",
        ("encoder:dino", "rows:dino"),
        partial(class_token, encoder="dino"),
    ),
    _method(
        "dinov2",
        "DINOv2",
        "Cosine of DINOv2 image features: DINO that also has to fill in hidden parts.",
        "Oquab et al. DINOv2 (TMLR 2024), Darcet et al. Registers (ICLR 2024)",
        "DINOv2 is DINO with more homework: patches of the picture are covered, and the student "
        "has to say what the teacher sees there; and its features have to spread out, so that no "
        "two pictures sit on one spot. A few spare tokens, the registers, hold notes about the "
        "picture as a whole. Better features for finding things are not always better for "
        "attribution: in the published comparison DINOv2 did worse than DINO.",
        ("encoder:dinov2", "rows:dinov2"),
        partial(class_token, encoder="dinov2"),
    ),
)
