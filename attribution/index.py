"""EDGE: opens and checks an index. Row i is record i in every file of it.

>>> index = Index.open("assets/openclipart")
>>> index.n_records, index.train_rows[:3], index.captions([0])
>>> index.latents(index.train_rows[:8], flip=1)                  # float32 [8, C, h, w]
>>> rows, products, flips = index.search("clip").nearest(query, 100)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from attribution import layout
from attribution import manifest as manifests
from attribution.extras import Extras
from attribution.images import read_image
from attribution.integrity import read_json
from attribution.search import Search, cached_search
from attribution.types import UserError

Rows = Sequence[int] | np.ndarray
VERIFY = ("auto", "quick", "full")
_PIXELS = ("image", "display")


class Index:
    """An opened index. Held-out records are in it, for evaluation, and are never candidates: see
    `train_rows`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        """Use `Index.open`, which checks."""
        self.path = path
        self.manifest = manifest
        self.n_records: int = manifest["n_records"]
        self.timesteps: tuple[int, ...] = tuple(manifest["timesteps"])
        self.seed: int = manifest["noise"]["seed"]
        self.index_hash: str = manifest["index_hash"]
        counts = [shard["records"] for shard in manifest["shards"]]
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._array = lru_cache(maxsize=128)(self._load_array)
        self._search: dict[str, Search] = {}
        self.extras = Extras.read(path, self.index_hash, len(counts))

    @classmethod
    def open(cls, path: str | Path, verify: str = "auto") -> Index:
        """Open an index after checking it; UserError names what is wrong and the command that mends
        it.

        verify: "quick" compares versions, sizes and row counts; "full" also hashes every file;
        "auto" is full for indexes below 300 MB, quick above.
        """
        if verify not in VERIFY:
            raise ValueError(f"verify is one of {', '.join(VERIFY)}, not {verify!r}")
        root = Path(path)
        manifest = manifests.read_manifest(root)
        small = manifests.total_bytes(manifest) < manifests.FULL_BELOW_BYTES
        full = verify == "full" or (verify == "auto" and small)
        manifests.check_files(root, manifest, full=full)
        index = cls(root, manifest)
        index.extras.check(full=full)
        index._check_counts()
        return index

    # ------------------------------------------------------------------ records

    @cached_property
    def records(self) -> pa.Table:
        """Every record without its pixels, row i of the table being record i."""
        tables = []
        for number in range(len(self._starts) - 1):
            path = self._shard_file(number, layout.RECORDS)
            names = [name for name in pq.read_schema(path).names if name not in _PIXELS]
            tables.append(pq.read_table(path, columns=names))
        return pa.concat_tables(tables)

    @cached_property
    def all_ids(self) -> list[str]:
        """The id of every record, by row."""
        return self.records["id"].to_pylist()

    @cached_property
    def all_captions(self) -> list[list[str]]:
        """The captions of every record, by row."""
        return self.records["captions"].to_pylist()

    @cached_property
    def train_rows(self) -> np.ndarray:
        """Rows of the training records, the only candidates, int64 ascending."""
        split = np.array(self.records["split"].to_pylist())
        return np.flatnonzero(split != "held-out").astype(np.int64)

    @cached_property
    def held_out_rows(self) -> np.ndarray:
        """Rows of the records that trained nothing, int64 ascending."""
        return np.setdiff1d(np.arange(self.n_records, dtype=np.int64), self.train_rows)

    @cached_property
    def _row_numbers(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.all_ids)}

    def row_of(self, record_id: str) -> int:
        """Row number of a record; UserError for an unknown id."""
        row = self._row_numbers.get(record_id)
        if row is None:
            raise UserError(f"no record {record_id!r} in the index {self.path}")
        return row

    def training_rows(self, names: Sequence[str]) -> np.ndarray:
        """Rows of training records, int64; UserError for an unknown id or a held-out record."""
        rows = np.array([self.row_of(name) for name in names], dtype=np.int64)
        outside = np.setdiff1d(rows, self.train_rows)
        if len(outside):
            name = self.ids(outside[:1])[0]
            raise UserError(f"record {name!r} is held out: it trained nothing")
        return rows

    def ids(self, rows: Rows) -> list[str]:
        """Record ids of `rows`."""
        return [self.all_ids[int(row)] for row in rows]

    def captions(self, rows: Rows) -> list[list[str]]:
        """Captions of each of `rows`; every record has at least one."""
        return [self.all_captions[int(row)] for row in rows]

    def record(self, row: int) -> dict[str, Any]:
        """All fields of a record but its pixels."""
        return self.records.slice(int(row), 1).to_pylist()[0]

    def image(self, row: int) -> Image.Image:
        """The training image, RGB; UserError where a linked file is gone."""
        return self._picture(int(row), "image")

    def display(self, row: int) -> Image.Image:
        """The image to show, RGB, about 192 px."""
        return self._picture(int(row), "display")

    # ------------------------------------------------------------------ arrays

    def latents(self, rows: Rows, flip: int = 0) -> Tensor:
        """Latents of `rows`, float32 [B, C, h, w]; flip 1 gives those of the mirrored images."""
        return torch.from_numpy(self._gather(layout.LATENTS, rows, flip).astype(np.float32))

    @cached_property
    def base_loss(self) -> np.ndarray:
        """L(z, θ0) per cell, float32 [N, captions, flips, T]; NaN where a record has fewer
        captions.
        """
        return self._whole(layout.BASE_LOSS)

    @cached_property
    def base_loss_eps2(self) -> np.ndarray | None:
        """Mean ‖ε_θ‖² of the same forwards, float32 [N, captions, flips, T]; None where it was not
        kept.
        """
        there = self._shard_file(0, layout.BASE_LOSS_EPS2).is_file()
        return self._whole(layout.BASE_LOSS_EPS2) if there else None

    def has_rows(self, method: str) -> bool:
        """Whether the index holds training rows of a method, all of them and up to date."""
        name = f"{layout.ROWS}/{layout.rows_name(method)}"
        return name in self._core_files or self.extras.step_of(name) is not None

    def extra(self, step: str) -> dict[str, Any] | None:
        """Settings of a step beside the core (extras.json); None where it was not made for this
        index.
        """
        return self.extras.settings(step)

    def encoder(self, name: str) -> Path | str | None:
        """What opens an extra encoder ("dino", ...): a folder or a hub id; None without one."""
        return self.extras.encoder(name)

    def rows(self, method: str, rows: Rows | None = None) -> np.ndarray:
        """A method's vectors, float16 [N or len(rows), flips, d]; UserError where the index has
        none.
        """
        if not self.has_rows(method):
            raise UserError(
                f"the index {self.path} holds no {method} rows; "
                f"`{manifests.make_command(self.path)}` makes them"
            )
        name = f"{layout.ROWS}/{layout.rows_name(method)}"
        return self._whole(name) if rows is None else self._gather(name, rows)

    def search(self, method: str) -> Search:
        """Nearest training records by inner product over a method's rows; built once, then kept."""
        if method not in self._search:
            self._search[method] = self._open_search(method)
        return self._search[method]

    # ------------------------------------------------------------------ models

    @property
    def model_path(self) -> str | Path:
        """What Denoiser.load opens: a folder of the index, or a hub id (with `model_revision`)."""
        return self._model("pipeline") or ""

    @property
    def model_revision(self) -> str | None:
        """The hub revision of the model; None for a folder."""
        return self._revision("pipeline")

    @property
    def clip_path(self) -> str | Path | None:
        """What ClipEncoder.load opens, a folder or a hub id (with `clip_revision`); None for an
        index without CLIP rows.
        """
        return self._model("clip")

    @property
    def clip_revision(self) -> str | None:
        """The hub revision of the CLIP; None for a folder."""
        return self._revision("clip")

    def _model(self, role: str) -> str | Path | None:
        model = manifests.model_of(self.manifest, role)
        if model is None:
            return None
        return self.path / model["path"] if "path" in model else model["hub_id"]

    def _revision(self, role: str) -> str | None:
        return (manifests.model_of(self.manifest, role) or {}).get("revision")

    # ------------------------------------------------------------------ inside

    @cached_property
    def _core_files(self) -> set[str]:
        """Files that the core steps of the first shard made."""
        steps = read_json(self._shard_file(0, layout.DONE))["steps"].values()
        return {name for step in steps for name in step["files"]}

    def _shard_file(self, number: int, name: str) -> Path:
        return self.path / layout.SHARDS / layout.shard_name(number) / name

    def _load_array(self, number: int, name: str) -> np.ndarray:
        return np.load(self._shard_file(number, name), mmap_mode="r", allow_pickle=False)

    def _whole(self, name: str) -> np.ndarray:
        return np.concatenate([self._load_array(n, name) for n in range(len(self._starts) - 1)])

    def _locate(self, row: int) -> tuple[int, int]:
        """(shard, position in it) of a row."""
        if not 0 <= row < self.n_records:
            raise IndexError(f"row {row} of an index of {self.n_records} records")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return number, row - int(self._starts[number])

    def _gather(self, name: str, rows: Rows, flip: int | None = None) -> np.ndarray:
        """Rows of an array over all shards, in the order asked, each shard's read in one go."""
        rows = np.asarray(rows, dtype=np.int64)
        shards = np.searchsorted(self._starts, rows, side="right") - 1
        if len(rows) and not (rows.min() >= 0 and rows.max() < self.n_records):
            raise IndexError(
                f"rows {rows.min()}..{rows.max()} of an index of {self.n_records} records"
            )
        first = self._array(0, name)
        shape = first.shape[1:] if flip is None else first.shape[2:]
        result = np.empty((len(rows), *shape), dtype=first.dtype)
        for number in np.unique(shards):
            here = np.flatnonzero(shards == number)
            inside = rows[here] - self._starts[number]
            array = self._array(int(number), name)
            result[here] = array[inside] if flip is None else array[inside, flip]
        return result

    def _picture(self, row: int, column: str) -> Image.Image:
        number, inside = self._locate(row)
        with pq.ParquetFile(self._shard_file(number, layout.RECORDS)) as file:
            for group in range(file.num_row_groups):
                length = file.metadata.row_group(group).num_rows
                if inside < length:
                    value = file.read_row_group(group, columns=[column])[column][inside].as_py()
                    return read_image(Path(value) if isinstance(value, str) else value)
                inside -= length
        raise UserError(
            f"{self._shard_file(number, layout.RECORDS)} is shorter than the manifest says"
        )

    def _open_search(self, method: str) -> Search:
        vectors, rows = self.rows(method, self.train_rows), self.train_rows
        step = self.extras.step_of(f"{layout.ROWS}/{layout.rows_name(method)}")
        settings = self.extra(step) if step else None
        key = {"index": self.index_hash, "method": method, "settings": settings}
        path = self.path / layout.SEARCH / layout.search_name(method)
        return cached_search(path, key, vectors, rows)

    def _check_counts(self) -> None:
        """UserError when a file has another number of rows than the manifest."""
        for number, shard in enumerate(self.manifest["shards"]):
            table = self._shard_file(number, layout.RECORDS)
            _same_count(table, pq.read_metadata(table).num_rows, shard["records"])
            for path in sorted(table.parent.rglob("*.npy")):
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                _same_count(path, len(array), shard["records"])
        if int(self._starts[-1]) != self.n_records:
            raise UserError(
                f"{self.path / layout.MANIFEST} says {self.n_records} records, "
                f"its shards hold {self._starts[-1]}"
            )


def _same_count(path: Path, found: int, stated: int) -> None:
    if found != stated:
        raise UserError(f"{path} has {found} rows, the manifest says {stated}")
