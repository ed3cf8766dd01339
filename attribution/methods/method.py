"""What the registry says of a method: who it is, what it needs of an index, how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attribution.methods.context import Context

Build = Callable[[Context], Any]


@dataclass(frozen=True)
class Method:
    """One method. build: None where it is not written yet. needs: what the index must hold, as in
    `Context.lacks`. source: whose idea it is. lesson: three sentences for a class; formula: LaTeX
    of the score.
    """

    name: str
    kind: str
    title: str
    explanation: str
    source: str
    needs: tuple[str, ...] = ()
    build: Build | None = None
    lesson: str = ""
    formula: str = ""
