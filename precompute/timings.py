"""What making an index took: `timings.json` beside it, summed over runs; read by costs.py.

Wall-clock seconds of finished work, with the number of records they were for. Nothing vouches for
this file and nothing depends on it: time is no part of what an index is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attribution import layout
from attribution.integrity import read_json
from attribution.types import UserError
from precompute.shards import write_json


@contextmanager
def timed(out: Path, step: str, records: int) -> Iterator[None]:
    """Add the time of the block to `step` of the index at `out`, unless it raises."""
    began = time.perf_counter()
    yield
    add(out, step, time.perf_counter() - began, records)


def add(out: Path, step: str, seconds: float, records: int) -> None:
    """Add to what is noted; a note that cannot be read is begun anew."""
    path = out / layout.TIMINGS
    try:
        table = read_json(path) if path.is_file() else {}
    except UserError:
        table = {}
    old = table.get(step, {"seconds": 0.0, "records": 0})
    table[step] = {
        "seconds": round(old["seconds"] + seconds, 3),
        "records": old["records"] + records,
    }
    write_json(path, dict(sorted(table.items())))
