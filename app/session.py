"""What one visitor's page holds between clicks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from attribution.types import Attribution, Correlation, Query, Region


@dataclass(frozen=True)
class Session:
    """A picture and what was found out about it.

    answer: the attribution as computed. view: the answer as shown, re-ranked by the timestep slider
    around the timestep `centre`; None is all of them. top_k: how many of its records are shown.
    link: a shared link is being followed, so the attribution follows the picture by itself, about
    the link's `regions` as `called` there.
    """

    query: Query | None = None
    answer: Attribution | None = None
    view: Attribution | None = None
    top_k: int = 0
    link: bool = False
    centre: float | None = None
    regions: tuple[Region, ...] = ()
    called: str = ""

    def asked(self, query: Query) -> Session:
        """A new picture: nothing is known about it yet."""
        if self.regions:
            query = replace(query, regions=self.regions, called=self.called)
        return Session(query=query, link=self.link)

    def unlinked(self) -> Session:
        """The link is no longer followed, nor is its part asked about."""
        return replace(self, link=False, regions=(), called="")

    def answered(self, answer: Attribution, top_k: int) -> Session:
        return replace(self, answer=answer, view=answer, top_k=top_k, link=False, centre=None)

    def about(self, regions: tuple[Region, ...], called: str = "") -> Session:
        """The same picture, asked about a part of it in words of its own; () is the whole, and ""
        the prompt.
        """
        if self.query is None or (self.query.regions, self.query.called) == (regions, called):
            return self
        return replace(self, query=replace(self.query, regions=regions, called=called))

    def viewed(self, view: Attribution, centre: float | None) -> Session:
        return replace(self, view=view, centre=centre)


@dataclass(frozen=True)
class Comparison:
    """What several methods say of the picture of the session.

    chosen: names of the methods to compare. answers: those at hand, one per method, in the order
    they came. correlations: of saved answers, computed while they were whole. failed: method → why
    it has no answer. part: of the picture that all this is about (attribution.regions.key), "" for
    the whole.
    """

    chosen: tuple[str, ...] = ()
    answers: tuple[Attribution, ...] = ()
    correlations: Mapping[tuple[str, str], Correlation] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    part: str = ""

    def fresh(self) -> Comparison:
        """A new picture: only the choice of methods stays."""
        return Comparison(self.chosen)

    def about(self, part: str) -> Comparison:
        """Of this part of the picture; answers about another part are no use."""
        return self if part == self.part else Comparison(self.chosen, part=part)

    def choose(self, names: Iterable[str]) -> Comparison:
        return replace(self, chosen=tuple(dict.fromkeys(names)))

    def answered(self, answer: Attribution) -> Comparison:
        """One more answer, in the place of the same method's last; its method is chosen. Cells,
        heat maps and controls, which nothing here shows, are left behind.
        """
        name = answer.method
        light = replace(answer, cells=None, heatmaps={}, control=None)
        return replace(
            self.choose([*self.chosen, name]),
            answers=(*(a for a in self.answers if a.method != name), light),
            correlations={pair: c for pair, c in self.correlations.items() if name not in pair},
            failed={other: why for other, why in self.failed.items() if other != name},
        )

    def failing(self, name: str, why: str) -> Comparison:
        return replace(self, failed={**self.failed, name: why})

    @property
    def shown(self) -> dict[str, Attribution]:
        """Answers of the chosen methods, by name."""
        return {a.method: a for a in self.answers if a.method in self.chosen}

    @property
    def missing(self) -> list[str]:
        """Chosen methods without an answer."""
        return [name for name in self.chosen if name not in self.shown]
