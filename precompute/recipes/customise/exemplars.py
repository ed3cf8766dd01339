"""The few images a model is customised to, and the training set they join."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from attribution.images import read_image
from attribution.types import UserError
from precompute.dataset import schema
from precompute.shards import replacing
from precompute.sources import Raw, open_source

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".gif"),
    *(".bmp", ".tif", ".tiff", ".ppm", ".avif"),
)
MOST = 100  # more is a training set, not a customisation
_ROW_GROUP = 32


@dataclass(frozen=True)
class Exemplar:
    """One image to learn: `id` as a record, SHA-256 of the file as given, and its pixels, RGB."""

    id: str
    sha256: str
    image: Image.Image

    def png(self) -> bytes:
        """The pixels alone, without what the file says of camera, place or author."""
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG")
        return buffer.getvalue()


def read_exemplars(places: Sequence[Path]) -> list[Exemplar]:
    """The images at `places`, files or folders of images, in the order given, folders by name.

    UserError for a missing or unreadable one, for none at all, for two of the same name, and for
    more than MOST.
    """
    paths = [path for place in places for path in _images_at(place)]
    if not paths:
        raise UserError(f"no image in {', '.join(map(str, places))}")
    if len(paths) > MOST:
        raise UserError(f"{len(paths)} images: a model is customised to {MOST} at most")
    names = [path.name for path in paths]
    if twins := {name for name in names if names.count(name) > 1}:
        raise UserError(f"two of the images have the name {min(twins)}: rename one")
    return [_read(path) for path in paths]


def _images_at(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    files = (path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in files if not path.name.startswith("."))


def _read(path: Path) -> Exemplar:
    try:
        image = read_image(path)
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    return Exemplar(f"exemplar/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest(), image)


def write_training_set(
    data: Path, exemplars: Sequence[Exemplar], caption: str, artist: str, file: Path
) -> int:
    """The records of `data` (anything `precompute index` takes), then the exemplars under
    `caption`, as one Parquet file; returns their number. Memory does not grow with the set.
    """
    rows = chain(
        (_of_raw(raw) for raw in open_source(data).rows(0)),
        (_of_exemplar(exemplar, caption, artist) for exemplar in exemplars),
    )
    table, count = schema(), 0
    with replacing(file) as sink, pq.ParquetWriter(sink, table) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=table))
            count += len(group)
    return count


def _of_raw(raw: Raw) -> dict[str, Any]:
    image = raw.image if isinstance(raw.image, bytes) else raw.image.read_bytes()
    return {**raw.fields, "image": image, "display": raw.display}


def _of_exemplar(exemplar: Exemplar, caption: str, artist: str) -> dict[str, Any]:
    return {
        "id": exemplar.id,
        "image": exemplar.png(),
        "captions": [caption],
        "artists": [artist] if artist else [],
        "title": exemplar.id.removeprefix("exemplar/"),
        "category": "exemplar",
        "split": "train",
    }


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while group := list(islice(rows, _ROW_GROUP)):
        yield group
