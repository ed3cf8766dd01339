"""Jobs are generators: Progress, and at last what they were for."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any


def result(job: Iterator[Any], kind: type[Any]) -> Generator[Any, None, Any]:
    """Pass on a job's Progress; return the item of `kind` that it ends with."""
    for item in job:
        if isinstance(item, kind):
            return item
        yield item
    raise RuntimeError(f"the job ended without {kind.__name__}")
