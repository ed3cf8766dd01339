"""EDGE: what an opened index tells without its model: records, examples, costs, reports.

>>> reader = Reader(Index.open("assets/openclipart"), device="cpu")
>>> reader.record("food/fruit/apple").artists
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attribution import catalogue, defaults, layout, report, saved, validate
from attribution.artists import artist_shares, score_floor
from attribution.costs import Cost, cost
from attribution.index import Index
from attribution.methods.registry import METHODS
from attribution.methods.unlearning import measured_recall
from attribution.timeline import rerank
from attribution.types import ArtistShare, Attribution, Example, Query, Record, UserError


class Reader:
    """The part of an `Engine` that never runs the model.

    Attributes: index (attribution.index.Index), manifest (dict), index_hash (hex, changes with the
    model, the data or the noise), n_records (int, training and held-out), n_train (int, the
    candidates: the greatest top_k), device (str, named in reports).
    """

    def __init__(self, index: Index, device: str) -> None:
        self.index, self.device = index, device
        self.manifest: dict[str, Any] = index.manifest
        self.index_hash: str = index.index_hash
        self.n_records: int = index.n_records
        self.n_train: int = len(index.train_rows)
        self._about = report.about(self.manifest, self.n_train, device)

    def top_k(self, asked: object = None) -> int:
        """How many records to show: the number asked for, else as many as by default, or all where
        there are fewer. UserError for what is no such number.
        """
        if asked is None:
            return min(defaults.TOP_K, self.n_train)
        return validate.top_k(asked, self.n_train)

    def cost(self, name: str) -> Cost:
        """Bytes kept and seconds of precomputing for each record, of one method."""
        return cost(self.index, METHODS[name].kind, METHODS[name].needs)

    def rerank(
        self, attribution: Attribution, centre: float | None, width: float = defaults.SLIDER_WIDTH
    ) -> Attribution:
        """The same cells ranked anew with a triangle of weights around timestep `centre`; no
        forward pass.

        None gives every timestep the same weight, the original answer. UserError for a method
        without cells.
        """
        return rerank(attribution, centre, width)

    def record(self, record_id: str) -> Record:
        """One record with its display image; UserError for an unknown id."""
        return catalogue.record(self.index, self.index.row_of(record_id))

    def records(self, record_ids: Sequence[str]) -> list[Record]:
        """Many records, in the order asked."""
        return [self.record(record_id) for record_id in record_ids]

    def control_ids(self, k: int) -> tuple[str, ...]:
        """The K random records that proofs leave out for comparison: the same for every picture."""
        return tuple(record.id for record in self.random_records(k, seed=k))

    def random_records(self, n: int, seed: int, exclude: Sequence[str] = ()) -> list[Record]:
        """n seeded random training records not in `exclude`: the control strip."""
        rows = catalogue.random_rows(self.index, n, seed, exclude)
        return [catalogue.record(self.index, row) for row in rows]

    def artists(self, attribution: Attribution) -> list[ArtistShare]:
        """Influence above the noise floor split over the artists, greatest share first."""
        names = self.index.records["artists"].take(attribution.rows).to_pylist()
        floor = score_floor(attribution)
        return artist_shares(attribution.ids, attribution.scores, names, floor)

    def recall(self, attribution: Attribution) -> defaults.Recall | None:
        """Share of the exhaustive answer that such answers held when it was measured; None where
        this one covers everything, or was made in another way or with another index.
        """
        return measured_recall(attribution, self.index_hash)

    def suggest_prompts(self, n: int = 8, seed: int = 0) -> list[str]:
        """n training captions of different categories, the same for the same seed."""
        return catalogue.prompts(self.index, n, seed)

    def examples(self) -> list[str]:
        """Slugs of the saved examples."""
        return saved.list_examples(self.index.path / layout.EXAMPLES)

    def example(self, slug: str) -> Example:
        """A saved example; UserError when it was made with another index."""
        if slug not in self.examples():
            raise UserError(f"no example {slug!r}")
        folder = self.index.path / layout.EXAMPLES / slug
        return saved.load_example(folder, self.index_hash, self.index.ids)

    def result(
        self,
        query: Query,
        attributions: Sequence[Attribution],
        top_k: int = defaults.TOP_K,
    ) -> dict[str, Any]:
        """The contract's result.json as a dict (schema 1)."""
        return report.result_dict(self._about, query, attributions, top_k, self.records)

    def export(
        self,
        query: Query,
        attributions: Sequence[Attribution],
        path: str | Path,
        top_k: int = defaults.TOP_K,
    ) -> Path:
        """Write a ZIP with the images, a CSV per method and result.json; returns its path."""
        result = self.result(query, attributions, top_k)
        return report.write_zip(path, result, query, self.records)

    def link(self, query: Query, method: str, top_k: int) -> dict[str, str]:
        """Parameters of the page's address that reproduce a generated query: prompt, seed, method,
        k, region where there are boxes, and called where these have words of their own.
        """
        if query.seed is None:
            raise UserError(
                "an uploaded picture has no link: only its prompt and seed would fit in one"
            )
        if any(region.mask is not None for region in query.regions):
            raise UserError("a part of free form has no link: only boxes would fit in one")
        link = {"prompt": query.prompt, "seed": str(query.seed), "method": method, "k": str(top_k)}
        boxes = (",".join(f"{value:.10g}" for value in region.box) for region in query.regions)
        region = {"region": ";".join(boxes)} if query.regions else {}
        return {**link, **region, **({"called": query.called} if query.called else {})}
