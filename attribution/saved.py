"""EDGE: saved examples, answers that show at once. JSON, PNG and .npy, no pickle, < 100 kB each.

    examples/<slug>/result.json           the contract's result, and `saved`: how to read the
                                          arrays, and the records scored as a control
    examples/<slug>/query.png             and region_<i>.png for a region that is a mask
    examples/<slug>/<method>.<array>.npy  rows int32 [M], scores float32 [M], errors float16 [M],
                                          flip int8 [M], cells float16 [best, captions, flips, T],
                                          heatmaps float16 [R, h, w]
    examples/<slug>/top.*.npy             further methods, their best records alone: saved_top.py

float16 arrays are divided by a scale: loss changes are so small that half precision would flush
them to zero.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from attribution.compare import correlations
from attribution.images import read_image
from attribution.report import (
    QUERY_IMAGE,
    RESULT,
    json_text,
    mask_files,
    new_folder,
    png_bytes,
)
from attribution.saved_top import load_top, pairs_from_json, pairs_to_json, save_top
from attribution.types import Attribution, Example, Query, Region, UserError

# Cells are kept for the best records only; the timestep slider re-ranks among these.
BEST_CELLS = 512
ARRAYS = ("rows", "scores", "errors", "flip", "cells", "heatmaps")

Ids = Callable[[np.ndarray], Sequence[str]]


def save_example(
    folder: str | Path,
    query: Query,
    attributions: Sequence[Attribution],
    result: Mapping[str, Any],
    index_hash: str,
    further: Sequence[Attribution] = (),
) -> Path:
    """Write one example with its result.json; UserError if the folder is not empty.

    further: other methods' answers, of which the best records are kept; they are no part of
    `result`.
    """
    folder = Path(folder)
    with new_folder(folder) as part:
        for name, data in ((QUERY_IMAGE, png_bytes(query.image)), *mask_files(query)):
            (part / name).write_bytes(data)
        details = {a.method: _save_arrays(part, a) for a in attributions}
        saved = {"index_hash": index_hash, "methods": details, "top": save_top(part, further)}
        saved["correlations"] = pairs_to_json(correlations([*attributions, *further]))
        (part / RESULT).write_text(json_text({**result, "saved": saved}), encoding="utf-8")
    return folder


def load_example(folder: str | Path, index_hash: str, ids: Ids) -> Example:
    """Read an example back; `ids` maps row numbers of the index to record ids.

    UserError when it is missing, damaged, or was made with another index (both hashes are named).
    """
    folder = Path(folder)
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        made_with = result["saved"]["index_hash"]
        if made_with != index_hash:
            raise UserError(_other_index(folder.name, made_with, index_hash))
        query = _query(result["query"], folder)
        methods = result["methods"]
        answers = tuple(_attribution(folder, m, result["saved"], ids) for m in methods)
        # neither is there in an example of one method made before there were several
        answers += load_top(folder, result["saved"].get("top", {"methods": []}), ids)
        pairs = pairs_from_json(result["saved"].get("correlations", []))
    except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the example {folder.name} is missing or damaged: {_mend()}") from None
    return Example(folder.name, query, answers, pairs)


def list_examples(folder: str | Path) -> list[str]:
    """Slugs of the examples below a folder, sorted."""
    return sorted(path.parent.name for path in Path(folder).glob(f"*/{RESULT}"))


def _other_index(slug: str, made_with: str, index_hash: str) -> str:
    sides = f"index {str(made_with)[:12]}, this is {index_hash[:12]}"
    return f"the example {slug} was made with {sides}: {_mend()}"


def _mend() -> str:
    return "run python -m precompute examples to make it again"


def _save_arrays(folder: Path, attribution: Attribution) -> dict[str, Any]:
    """Write one method's arrays; returns what reading them back needs to know."""
    a = attribution
    arrays = {"rows": a.rows.astype(np.int32), "scores": a.scores.astype(np.float32)}
    arrays["flip"] = a.flip.astype(np.int8)
    arrays["errors"], errors_scale = _half(a.standard_error)
    details: dict[str, Any] = {"timesteps": a.timesteps, "errors_scale": errors_scale}
    if a.cells is not None:
        arrays["cells"], details["cells_scale"] = _half(a.cells[:BEST_CELLS])
    if a.heatmaps:
        details["heatmap_ids"] = list(a.heatmaps)
        arrays["heatmaps"], details["heatmaps_scale"] = _half(np.stack(list(a.heatmaps.values())))
    if a.control is not None:
        details["control"] = _control_to_json(a.control)
    for name, array in arrays.items():
        np.save(folder / f"{a.method}.{name}.npy", array, allow_pickle=False)
    return details


def _control_to_json(control: Attribution) -> dict[str, Any]:
    """A handful of records: lists will do. NaN becomes null."""
    arrays = {"rows": control.rows, "scores": control.scores, "flip": control.flip}
    return {**arrays, "errors": control.standard_error, "cells": control.cells}


def _control(saved: Mapping[str, Any], whole: Attribution, ids: Ids) -> Attribution:
    """Back from `_control_to_json`; what is not in there is as in the answer it belongs to."""
    rows = np.array(saved["rows"], dtype=np.int64)
    cells = saved["cells"]
    return replace(
        whole,
        ids=tuple(ids(rows)),
        rows=rows,
        scores=np.array(saved["scores"], dtype=np.float32),
        standard_error=np.array(saved["errors"], dtype=np.float32),
        flip=np.array(saved["flip"], dtype=np.int8),
        cells=None if cells is None else np.array(cells, dtype=np.float32),
        heatmaps={},
        candidates=len(rows),
        candidate_source="control",
    )


def _half(values: np.ndarray) -> tuple[np.ndarray, float]:
    """(values / scale as float16, scale), the greatest magnitude being 1."""
    values = np.asarray(values, dtype=np.float32)
    finite = np.abs(values[np.isfinite(values)])
    scale = float(finite.max(initial=0.0)) or 1.0
    return (values / scale).astype(np.float16), scale


def _query(saved: Mapping[str, Any], folder: Path) -> Query:
    return Query(
        prompt=saved["prompt"],
        image=read_image(folder / QUERY_IMAGE),
        seed=saved["seed"],
        steps=saved["steps"],
        guidance=saved["guidance"],
        scheduler=saved["scheduler"],
        regions=tuple(_region(region, folder) for region in saved["regions"]),
        called=saved.get("called", ""),
    )


def _region(saved: Any, folder: Path) -> Region:
    if not isinstance(saved, dict):
        return Region(tuple(saved))
    mask = read_image(folder / Path(saved["mask"]).name).convert("L")
    return Region(tuple(saved["box"]), mask)


def _attribution(
    folder: Path, method: Mapping[str, Any], saved: Mapping[str, Any], ids: Ids
) -> Attribution:
    details = saved["methods"][method["name"]]
    arrays = {name: _array(folder, method["name"], name) for name in ARRAYS}
    rows = _present(arrays["rows"]).astype(np.int64)
    maps = _whole(arrays["heatmaps"], details.get("heatmaps_scale"))
    whole = Attribution(
        method=method["name"],
        kind=method["kind"],
        ids=tuple(ids(rows)),
        rows=rows,
        scores=_present(arrays["scores"]),
        standard_error=_present(_whole(arrays["errors"], details["errors_scale"])),
        flip=_present(arrays["flip"]),
        cells=_padded(_whole(arrays["cells"], details.get("cells_scale")), len(rows)),
        timesteps=tuple(details["timesteps"]),
        noise_floor=method["noise_floor"],
        heatmaps={} if maps is None else dict(zip(details["heatmap_ids"], maps, strict=True)),
        seconds=method["seconds"],
        params=method["params"],
        candidates=method["candidates"],
        candidate_source=method["candidate_source"],
        evaluated_cells=method["evaluated_cells"],
    )
    control = details.get("control")
    return whole if control is None else replace(whole, control=_control(control, whole, ids))


def _array(folder: Path, method: str, name: str) -> np.ndarray | None:
    path = folder / f"{method}.{name}.npy"
    return np.load(path, allow_pickle=False) if path.exists() else None


def _present(array: np.ndarray | None) -> np.ndarray:
    if array is None:
        raise ValueError("an array is missing")
    return array


def _whole(array: np.ndarray | None, scale: float | None) -> np.ndarray | None:
    return None if array is None or scale is None else array.astype(np.float32) * np.float32(scale)


def _padded(cells: np.ndarray | None, length: int) -> np.ndarray | None:
    """Cells [length, ...], NaN for the records whose cells were not kept."""
    if cells is None:
        return None
    full = np.full((length, *cells.shape[1:]), np.nan, dtype=np.float32)
    full[: len(cells)] = cells
    return full
