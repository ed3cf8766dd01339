"""EDGE: the composition root. One `Engine` serves the page, the command line and the tests.

>>> engine = Engine("assets/openclipart")
>>> *_, query = engine.generate("an ice cream cone", seed=7)
>>> *_, attribution = engine.attribute(query, methods=("abu",), top_k=24)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from attribution import defaults
from attribution.images import ImageSource
from attribution.types import (
    ArtistShare,
    Attribution,
    Example,
    Forgetting,
    Progress,
    Query,
    Record,
    Region,
)


class Engine:
    """An opened index with its model: loaded once, then asked many times.

    Every generator holds the engine's one lock while it runs; closing it (or a `Cancelled` thrown into it) stops
    the job within a step and leaves the weights as they were.

    Attributes: index (attribution.index.Index), denoiser (attribution.denoiser.Denoiser), manifest (dict),
    index_hash (hex, changes with the model, the data or the noise), n_records (int, training and held-out),
    n_train (int, the candidates: the greatest top_k), resolution (px of generated images), device (str).
    """

    def __init__(
        self, index_dir: str | Path, device: str = "auto", *, verify: str = "quick"
    ) -> None:
        """Open `index_dir` and load its model on `device` ("auto", "cpu" or "cuda"); UserError if either fails."""
        raise NotImplementedError

    def methods(self) -> list[dict[str, Any]]:
        """Every method as {name, kind, title, available, why}; `why` says in a line why one is not available."""
        raise NotImplementedError

    def generate(
        self, prompt: str, seed: int, *, steps: int | None = None, guidance: float | None = None
    ) -> Iterator[Progress | Query]:
        """One Progress for each sampling step, then the Query with the decoded 8-bit image."""
        raise NotImplementedError

    def upload(self, source: ImageSource, prompt: str, *, regions: Sequence[Region] = ()) -> Query:
        """A picture from outside (path, bytes or PIL) with the prompt to condition it on; its seed is None."""
        raise NotImplementedError

    def attribute(
        self,
        query: Query,
        methods: Sequence[str] = (defaults.METHOD,),
        top_k: int = defaults.TOP_K,
        exhaustive: bool = False,
        **params: Any,
    ) -> Iterator[Progress | Attribution]:
        """Run the methods one after another; Progress carries partial answers, each method ends with its Attribution.

        params: `shortlist` (int), `relative_increase` (float), and others that the method names.
        """
        raise NotImplementedError

    def forget(
        self,
        query: Query,
        strengths: Sequence[float] = defaults.FORGET_STRENGTHS,
        other_prompts: Sequence[str] | None = None,
    ) -> Iterator[Progress | Forgetting]:
        """The query's prompt and seed at each strength (relative loss increase, 0 first), and unrelated prompts.

        Reuses the delta of the last `abu` answer for the same query; else unlearns first.
        """
        raise NotImplementedError

    def rerank(
        self, attribution: Attribution, centre: float | None, width: float = defaults.SLIDER_WIDTH
    ) -> Attribution:
        """The same cells ranked anew with a triangle of weights around timestep `centre`; no forward pass.

        None gives every timestep the same weight, the original answer. UserError for a method without cells.
        """
        raise NotImplementedError

    def record(self, record_id: str) -> Record:
        """One record with its display image; UserError for an unknown id."""
        raise NotImplementedError

    def records(self, record_ids: Sequence[str]) -> list[Record]:
        """Many records, in the order asked."""
        raise NotImplementedError

    def random_records(self, n: int, seed: int, exclude: Sequence[str] = ()) -> list[Record]:
        """n seeded random training records not in `exclude`: the control strip."""
        raise NotImplementedError

    def artists(self, attribution: Attribution) -> list[ArtistShare]:
        """Influence above the noise floor split over each record's artists, greatest share first."""
        raise NotImplementedError

    def suggest_captions(self, image: Image.Image, k: int = 5) -> list[str]:
        """The k training captions nearest to an image in the embedded CLIP; empty where the index has no CLIP."""
        raise NotImplementedError

    def suggest_prompts(self, n: int = 8, seed: int = 0) -> list[str]:
        """n training captions of different categories, the same for the same seed."""
        raise NotImplementedError

    def examples(self) -> list[str]:
        """Slugs of the saved examples."""
        raise NotImplementedError

    def example(self, slug: str) -> Example:
        """A saved example; UserError when it was made with another index."""
        raise NotImplementedError

    def export(
        self,
        query: Query,
        attributions: Sequence[Attribution],
        path: str | Path,
        top_k: int = defaults.TOP_K,
    ) -> Path:
        """Write a ZIP with the images, a CSV per method and result.json; returns its path."""
        raise NotImplementedError

    def result(
        self, query: Query, attributions: Sequence[Attribution], top_k: int = defaults.TOP_K
    ) -> dict[str, Any]:
        """The contract's result.json as a dict (schema 1)."""
        raise NotImplementedError

    def link(self, query: Query, method: str, top_k: int) -> Mapping[str, str]:
        """Parameters of the page's address that reproduce a generated query: prompt, seed, method, k."""
        raise NotImplementedError
