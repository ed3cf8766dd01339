"""`python -m precompute dataset --data DIR --model DIR --out DIR`: images and captions into the
index's shards.

Reads an image folder with `metadata.jsonl` or `metadata.csv` (file_name, and text, caption or
captions), or Parquet with an image column (bytes, {bytes, path} or paths) and a caption column.
Records of every source get the same columns.
"""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from attribution import layout
from attribution.images import read_image
from attribution.types import UserError
from precompute import keys, steps
from precompute.build import Build
from precompute.shards import Work, replacing, shard
from precompute.sources import Raw, Source, open_source

STEP = "dataset"
DISPLAY_PX = 192
_ROW_GROUP = 32
_PART = pa.struct([("id", pa.string()), ("box", pa.list_(pa.float32()))])


def schema(*, linked: bool = False) -> pa.Schema:
    """Columns of records.parquet; `image` holds bytes, or with `linked` an absolute path."""
    image = pa.string() if linked else pa.binary()
    texts = pa.list_(pa.string())
    return pa.schema(
        [
            *(("id", pa.string()), ("image", image), ("display", pa.binary())),
            *(("width", pa.int32()), ("height", pa.int32())),
            *(("captions", texts), ("artists", texts)),
            *((name, pa.string()) for name in ("title", "category", "split")),
            ("parts", pa.list_(_PART)),
            *((name, pa.string()) for name in ("source", "licence")),
        ]
    )


@dataclass(frozen=True)
class Reading:
    """How rows become records: see the options of the same names."""

    max_captions: int
    link_images: bool
    skip_bad: bool

    def record(self, raw: Raw) -> dict[str, Any] | None:
        """The record of a row; None for a bad image that may be skipped, UserError for one that may
        not.
        """
        try:
            image = read_image(raw.image)
        except UserError as error:
            if self.skip_bad:
                return None
            raise UserError(f"{raw.origin}: {error} (--skip-bad leaves such images out)") from None
        fields = raw.fields
        sizes = {
            "width": fields["width"] or image.width,
            "height": fields["height"] or image.height,
        }
        return (
            fields
            | sizes
            | {
                "image": self._image(raw),
                "display": raw.display or display_bytes(image),
                "captions": fields["captions"][: self.max_captions],
            }
        )

    def _image(self, raw: Raw) -> bytes | str:
        if isinstance(raw.image, bytes):
            if self.link_images:
                raise UserError(f"{raw.origin}: --link-images needs images in files of their own")
            return raw.image
        return str(raw.image.resolve()) if self.link_images else raw.image.read_bytes()


def display_bytes(image: Image.Image) -> bytes:
    """A WebP of at most 192 px a side, for the page."""
    small = image.copy()
    small.thumbnail((DISPLAY_PX, DISPLAY_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=80, method=4)
    return buffer.getvalue()


def build(job: Build) -> None:
    """All records into shards, in the source's order; finished shards are passed over."""
    if job.has_records():
        return
    source = open_source(job.data_path())
    stale = source.sha256 != job.settings["dataset"]["sha256"]
    if stale:
        raise UserError(
            f"{job.data_path()} is not the training set {job.out} was begun with: add --rebuild"
        )
    reading = Reading(
        *(job.settings["dataset"][k] for k in ("max_captions", "link_images", "skip_bad"))
    )
    with tqdm(total=source.total, desc=STEP, unit="record") as bar:
        start = _write_all(job, source, reading, bar)
    if start == 0:
        raise UserError(f"{job.data_path()} holds no readable record")
    _refuse_twins(job)
    job.records_written(start)


def _write_all(job: Build, source: Source, reading: Reading, bar: tqdm) -> int:
    """Write every shard that is not done; returns the number of records."""
    size = job.settings["dataset"]["shard_size"]
    number = start = position = 0
    rows: Iterator[tuple[int, dict[str, Any]]] | None = None
    while True:
        work = shard(job.out, number)
        key = keys.dataset(job.settings, start, position)
        if work.is_done(STEP, key, full=True):
            rows = None
        else:
            job.reopen()
            rows = rows or _readable(source, reading, position)
            if not _write(work, key, islice(rows, size), start, position):
                return start
        done, number = work.done(), number + 1
        start, position = start + done["records"], done["source"][1]
        bar.update(position - bar.n)


def _readable(
    source: Source, reading: Reading, position: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(position after it, record) of each row from `position` on."""
    for number, raw in enumerate(source.rows(position), position + 1):
        if (record := reading.record(raw)) is not None:
            yield number, record


def _write(
    work: Work, key: str, rows: Iterator[tuple[int, dict[str, Any]]], start: int, position: int
) -> bool:
    """One shard, with the source position after its last record; False if no record was left."""
    first = next(rows, None)
    if first is None:
        return False
    linked = isinstance(first[1]["image"], str)
    written, end, captions = 0, position, 0
    with (
        replacing(work.file(layout.RECORDS)) as file,
        pq.ParquetWriter(file, schema(linked=linked), compression="zstd") as writer,
    ):
        for group in _grouped(chain([first], rows)):
            records = [record for _, record in group]
            writer.write_table(pa.Table.from_pylist(records, schema=writer.schema))
            written, end = written + len(records), group[-1][0]
            captions = max(captions, *(len(record["captions"]) for record in records))
    facts = {"start": start, "records": written, "captions": captions, "source": [position, end]}
    work.finish(STEP, key, keys.FILES[STEP], **facts)
    return True


def _grouped(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while group := list(islice(rows, _ROW_GROUP)):
        yield group


def _refuse_twins(job: Build) -> None:
    """Row i is record i in every file, and the noise is keyed by the id: two records may not share
    one.
    """
    digests = array("Q")
    for work in job.shards():
        for name in pq.read_table(work.file(layout.RECORDS), columns=["id"])["id"].to_pylist():
            digests.append(int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little"))
    order = np.argsort(np.frombuffer(digests, dtype=np.uint64), kind="stable")
    same = np.flatnonzero(np.diff(np.frombuffer(digests, dtype=np.uint64)[order]) == 0)
    if len(same):
        rows = order[same[0]], order[same[0] + 1]
        raise UserError(
            f"two records share an id: rows {rows[0]} and {rows[1]} of {job.data_path()}"
        )


def iterate_images(path: Path, column: str = "id") -> Iterator[tuple[Any, Image.Image]]:
    """(value of `column`, RGB image) of each record of a shard, a few at a time."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(_ROW_GROUP, columns=[column, "image"]):
            for row in batch.to_pylist():
                value = row["image"]
                yield row[column], read_image(Path(value) if isinstance(value, str) else value)


add_arguments, run = steps.verb(build)
