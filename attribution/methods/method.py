"""What the registry says of a method: who it is, what it needs of an index, how it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attribution.methods.context import Context
from attribution.types import UserError

Build = Callable[[Context], Any]
Check = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Method:
    """One method. needs: what the index must hold, as in `Context.lacks`. source: whose idea it is.
    lesson: three sentences for a class; formula: LaTeX of the score. options: what its run takes by
    name. check: UserError for values of them that no run takes.
    """

    name: str
    kind: str
    title: str
    explanation: str
    source: str
    needs: tuple[str, ...]
    build: Build
    lesson: str = ""
    formula: str = ""
    options: tuple[str, ...] = ("exhaustive", "shortlist")
    check: Check | None = None

    def check_options(self, options: Mapping[str, Any]) -> None:
        """UserError for an option the method does not have, or a value it cannot take: to be asked
        of every method before the first one runs.
        """
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options)
                raise UserError(f"method {self.name} has no option {name!r}; it has {known}")
        if self.check is not None:
            self.check(options)
