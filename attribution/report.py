"""Answers as files: result.json (schema 1), images, scores_<method>.npy, a ZIP with CSV tables."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attribution.types import Attribution, Query, Record, UserError

SCHEMA = 1
RESULT = "result.json"
QUERY_IMAGE = "query.png"
IMAGES = "images"
COLUMNS = (
    *("rank", "record", "score", "standard_error", "flip", "title", "artists", "captions"),
    *("source", "licence", "file"),
)

RecordLookup = Callable[[Sequence[str]], Sequence[Record]]


def png_bytes(image: Image.Image) -> bytes:
    """An image as PNG, without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def image_file(record_id: str) -> str:
    """Path of a record's image in an answer; odd characters of an id give way to a hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", record_id).strip("._")[:80]
    if plain != record_id or not plain:
        plain = f"{plain or 'record'}-{hashlib.sha256(record_id.encode()).hexdigest()[:8]}"
    return f"{IMAGES}/{plain}.png"


def about(manifest: Mapping[str, Any], n_train: int, device: str) -> dict[str, Any]:
    """The contract's `index`: which index, model and data an answer came from, and where it ran."""
    models = [{k: v for k, v in model.items() if k != "files"} for model in manifest["models"]]
    kept = ("format_version", "n_records", "dataset", "noise", "timesteps", "environment")
    facts = {key: manifest[key] for key in kept if key in manifest}
    name = {"hash": manifest["index_hash"], "n_train": n_train, "device": device}
    return {**name, **facts, "models": models}


def query_dict(query: Query) -> dict[str, Any]:
    """The contract's `query`; `image_sha256` is that of query.png."""
    return {
        "prompt": query.prompt,
        "seed": query.seed,
        "steps": query.steps,
        "guidance": query.guidance,
        "scheduler": query.scheduler,
        "regions": [_region_dict(query, i) for i in range(len(query.regions))],
        "called": query.called,
        "image_sha256": hashlib.sha256(png_bytes(query.image)).hexdigest(),
    }


def _region_dict(query: Query, i: int) -> Any:
    """A box as its corners; a mask as {box, mask: its file}."""
    region = query.regions[i]
    if region.mask is None:
        return list(region.box)
    return {"box": list(region.box), "mask": mask_file(i)}


def mask_file(i: int) -> str:
    """File of the mask of the query's region i, from 0."""
    return f"region_{i + 1}.png"


def mask_files(query: Query) -> Iterator[tuple[str, bytes]]:
    """(file, bytes) of each region that is a mask, white inside."""
    for i, region in enumerate(query.regions):
        if region.mask is not None:
            yield mask_file(i), png_bytes(region.mask)


def result_dict(
    index: Mapping[str, Any],
    query: Query,
    attributions: Sequence[Attribution],
    top_k: int,
    lookup: RecordLookup,
) -> dict[str, Any]:
    """The contract's result.json, schema 1: only what JSON can hold, NaN as null."""
    methods = [_method_dict(attribution, top_k, lookup) for attribution in attributions]
    return plain(
        {"schema": SCHEMA, "index": dict(index), "query": query_dict(query), "methods": methods}
    )


def _method_dict(attribution: Attribution, top_k: int, lookup: RecordLookup) -> dict[str, Any]:
    records = lookup(attribution.ids[:top_k])
    return {
        "name": attribution.method,
        "kind": attribution.kind,
        "params": attribution.params,
        "seconds": attribution.seconds,
        "candidates": attribution.candidates,
        "candidate_source": attribution.candidate_source,
        "evaluated_cells": attribution.evaluated_cells,
        "noise_floor": attribution.noise_floor,
        "results": [_row(attribution, i, record) for i, record in enumerate(records)],
    }


def _row(attribution: Attribution, i: int, record: Record) -> dict[str, Any]:
    return {
        "rank": i + 1,
        "record": record.id,
        "score": attribution.scores[i],
        "standard_error": attribution.standard_error[i],
        "flip": bool(attribution.flip[i]),
        "captions": record.captions,
        "artists": record.artists,
        "title": record.title,
        "source": record.source,
        "licence": record.licence,
        "file": image_file(record.id),
    }


def plain(value: Any) -> Any:
    """Numpy, tuples, paths and NaN to what JSON can hold (NaN and infinities become None)."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def json_text(value: Any) -> str:
    """JSON that any parser reads: UTF-8, indented, no NaN."""
    return json.dumps(plain(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def full_scores(attribution: Attribution, n_records: int) -> np.ndarray:
    """float32 [N] by row number of the index, NaN where a record was not scored."""
    scores = np.full(n_records, np.nan, dtype=np.float32)
    scores[attribution.rows] = attribution.scores
    return scores


def csv_text(method: Mapping[str, Any]) -> str:
    """The rows of one method of a result as CSV; several values in a field are joined by "; "."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in method["results"]:
        joined = {"artists": "; ".join(row["artists"]), "captions": "; ".join(row["captions"])}
        writer.writerow({**row, **joined})
    return buffer.getvalue()


def answer_files(
    result: Mapping[str, Any], query: Query, lookup: RecordLookup
) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of query.png, masks, each attributed image once, and result.json last."""
    yield QUERY_IMAGE, png_bytes(query.image)
    yield from mask_files(query)
    ids = dict.fromkeys(row["record"] for method in result["methods"] for row in method["results"])
    for record in lookup(list(ids)):
        yield image_file(record.id), png_bytes(record.image)
    yield RESULT, json_text(result).encode()


def write_zip(
    path: str | Path, result: Mapping[str, Any], query: Query, lookup: RecordLookup
) -> Path:
    """The answer as a ZIP with one CSV per method; whole under its name or not at all."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in answer_files(result, query, lookup):
            archive.writestr(name, data)
        for method in result["methods"]:
            archive.writestr(f"{method['name']}.csv", csv_text(method))
    os.replace(part, path)
    return path


def write_folder(
    folder: Path,
    result: Mapping[str, Any],
    query: Query,
    lookup: RecordLookup,
    scores: Mapping[str, np.ndarray],
) -> None:
    """The answer as files below an existing empty `folder`; `scores` maps method -> float32 [N]."""
    for method, values in scores.items():
        np.save(folder / f"scores_{method}.npy", values, allow_pickle=False)
    for name, data in answer_files(result, query, lookup):
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)


def check_new_folder(path: str | Path) -> Path:
    """A path that can become a folder: absent or an empty folder; UserError otherwise."""
    path = Path(path).absolute()
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError(f"{path} exists and is not a folder")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{path} is not empty: give --out a new folder")
    above = next(folder for folder in path.parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {path}: {above} is not a folder to write in")
    return path


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """A temporary sibling that becomes `path` if the block succeeds, and vanishes if not."""
    path = check_new_folder(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.part-", dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    try:
        yield part
        part.chmod(0o777 & ~_umask())
        if path.is_dir():
            path.rmdir()  # empty; Windows renames onto no folder
        os.rename(part, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _umask() -> int:
    """mkdtemp makes folders for the owner alone; an answer gets the modes of any folder."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
