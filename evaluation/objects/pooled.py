"""Methods asked about a fixed pool of records, each built once and keeping what it can reuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from attribution.methods.registry import METHODS
from attribution.racing import by_spread
from attribution.types import Attribution, Query
from evaluation.answers import Answers, last
from evaluation.roster import UNLEARNING

# A pool whose scores are all compared is scored at so many timesteps, those a race looks at first.
COMPARED_TIMESTEPS = 3


@dataclass
class Ranker:
    """Ranks records by methods of one index. timesteps: of unlearning methods; None: they race the
    records as a default query races its candidates."""

    answers: Answers
    timesteps: Sequence[int] | None = None
    _built: dict[str, Any] = field(default_factory=dict)
    _configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def config(self, name: str) -> dict[str, Any]:
        """What an unlearning method's answers depend on beside a run's settings."""
        if METHODS[name].kind != UNLEARNING:
            return {}
        if name not in self._configs:
            self._configs[name] = asdict(self.answers.config(name))
        return self._configs[name]

    def answered(self, units: Mapping[str, Mapping[str, Any]], unit: str, name: str) -> bool:
        """Whether there is such a line, of the method as it is configured now."""
        return unit in units and units[unit]["config"] == self.config(name)

    def ranked(
        self, name: str, query: Query, ids: Sequence[str], top: int, compared: bool = False
    ) -> Attribution:
        """The records `ids`, best first, a race deciding the first `top`; compared: every record
        scored alike, so that all scores compare."""
        if name not in self._built:
            self._built[name] = METHODS[name].build(self.answers.context)
        options: dict[str, Any] = {}
        if METHODS[name].kind == UNLEARNING:
            race = self.timesteps is None and not compared
            options = {"racing": True} if race else {"columns": self.columns}
        found: Attribution = last(self._built[name].run(query, ids, k=top, **options), Attribution)
        return found

    @property
    def columns(self) -> list[int]:
        """Columns of the timesteps asked for; else the few that a race begins with."""
        if self.timesteps is not None:
            return self.answers.columns(self.timesteps)
        return sorted(by_spread(self.answers.index.base_loss)[:COMPARED_TIMESTEPS])
