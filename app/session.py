"""What one visitor's page holds between clicks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attribution.types import Attribution, Query


@dataclass(frozen=True)
class Session:
    """A picture and what was found out about it.

    answer: the attribution as computed. view: the answer as shown, re-ranked by the timestep slider
    around the timestep `centre`; None is all of them. top_k: how many of its records are shown.
    link: a shared link is being followed, so the attribution follows the picture by itself.
    """

    query: Query | None = None
    answer: Attribution | None = None
    view: Attribution | None = None
    top_k: int = 0
    link: bool = False
    centre: float | None = None

    def asked(self, query: Query) -> Session:
        """A new picture: nothing is known about it yet."""
        return Session(query=query, link=self.link)

    def answered(self, answer: Attribution, top_k: int) -> Session:
        return replace(self, answer=answer, view=answer, top_k=top_k, link=False, centre=None)

    def viewed(self, view: Attribution, centre: float | None) -> Session:
        return replace(self, view=view, centre=centre)
