"""Attribution by features tuned on customised models (AbC)."""

from __future__ import annotations

from collections.abc import Generator
from functools import cached_property, partial

import numpy as np
import torch

from attribution.heads import Head
from attribution.manifest import model_of
from attribution.methods.context import Context
from attribution.methods.method import Method
from attribution.methods.similarity import (
    KIND,
    Encode,
    SimilarityAttributor,
    class_token,
    clip_image,
)
from attribution.search import Search, build_search
from attribution.types import Progress, Query, UserError

_SOURCE = "Wang et al. Evaluating Data Attribution for Text-to-Image Models (ICCV 2023)"
_LESSON = (
    "A model is shown a few drawings under a made-up word, and asked for pictures with that word: "
    "for once it is known which drawings a picture owes. With some ninety such models a map on "
    "{features} features is tuned until pictures land near the drawings they came from, and others "
    "far away. Then it is used on your picture: it has learned what influence looks like, but it "
    "still sees only pictures, and never looks into the model."
)
_FORMULA = (
    r"\tau(\hat z, z) = \max_{z' \in \{z,\, \bar z\}} \cos\big(W f(\hat z) + b,\, W f(z') + b\big)"
)


class TunedAttributor(SimilarityAttributor):
    """Cosines of features that went through a head; rows are the index's own, mapped on opening."""

    def __init__(self, context: Context, name: str, features: str, encode: Encode) -> None:
        super().__init__(context, name, self._tuned)
        self.features, self.plain = features, encode

    @cached_property
    def head(self) -> Head:
        """The index's head; UserError where it was trained on another encoder's features."""
        index = self.context.index
        own = model_of(index.manifest, "clip") if self.features == "clip" else None
        own = own or index.extras.encoders.get(self.features, {})
        head = Head.load(index.encoder(self.name) or index.path)
        if head.about.get("encoder_sha256") != own.get("sha256"):
            raise UserError(
                f"the {self.name} head of this index is for another {self.features} encoder: "
                f"`python -m precompute abc --out {index.path}` makes a new one"
            )
        return head

    @cached_property
    def tuned_search(self) -> Search:
        """Every training record's rows through the head."""
        index = self.context.index
        rows = torch.from_numpy(index.rows(self.features, index.train_rows).astype(np.float32))
        return build_search(self.head.apply(rows).numpy(), index.train_rows)

    def _tuned(self, context: Context, query: Query) -> np.ndarray:
        """The picture's feature through the head, [d]."""
        return self.head.apply(torch.from_numpy(self.plain(context, query))).numpy()

    def _search(self) -> Generator[Progress, None, Search]:
        yield from ()
        return self.tuned_search


def _method(features: str, title: str, needs: tuple[str, ...], encode: Encode) -> Method:
    name = f"{features}-abc"
    return Method(
        name,
        KIND,
        f"{title} (AbC)",
        f"{title} features with a head tuned on customised models.",
        _SOURCE,
        (*needs, f"rows:{features}", f"encoder:{name}"),
        partial(TunedAttributor, name=name, features=features, encode=encode),
        _LESSON.format(features=title),
        _FORMULA,
    )


METHODS: tuple[Method, ...] = (
    _method("clip", "CLIP", ("clip",), clip_image),
    _method("dino", "DINO", ("encoder:dino",), partial(class_token, encoder="dino")),
)
