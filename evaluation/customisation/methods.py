"""Named configurations of the benchmark: an arm (evaluation/counterfactual/arms.py) with flags.

| written | what it is |
|---|---|
| `abu` | the method as the product runs it, asked with the prompt that drew the picture |
| `abu:relative_increase=0.1` | with options of its own: the picture's loss a tenth higher |
| `abu/no-v` | neither the prompt nor the exemplars' captions name V* |
| `dtrak` | rows of the customised model, for the pool |
| `dtrak/index-rows` | the index's rows, of the base model: only the query's gradient is new |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from attribution.index import Index
from attribution.integrity import canonical_hash
from attribution.methods.projected import DRAWS
from attribution.methods.registry import METHODS
from attribution.types import UserError
from evaluation.counterfactual import arms
from evaluation.counterfactual.arms import Arm

NO_WORD, INDEX_ROWS = "no-v", "index-rows"
FLAGS = (NO_WORD, INDEX_ROWS)
GRADIENT, UNLEARNING = "gradient", "unlearning"
MAIN = ("abu-ekfac", "abu")
# In order of need; what an index lacks is left out and said so. Fig. 6, then Fig. 9.
FIRST = (*MAIN, "clip", "dino", "clip-abc", "dino-abc", "dtrak/index-rows", "random")
THEN = ("dtrak",)
# A customised model has learned its exemplars to the bottom of their loss, where to first order
# nothing moves it: after a small step distractors in no such minimum should come first.
SMALL_STEP = ("abu-ekfac:relative_increase=0.1", "abu:relative_increase=0.1")
VARIANTS = (
    *("abu/no-v", "abu:steps=1", "abu:steps=10", "abu-sgd", "abu-full"),
    *("abu-ekfac/no-v", "abu-ekfac:steps=1", "abu-ekfac:steps=10", *SMALL_STEP),
)


@dataclass(frozen=True)
class Configuration:
    """One way to ask. word: with V*. own_rows: gradient rows of the customised model."""

    arm: Arm
    word: bool = True
    own_rows: bool = True

    @classmethod
    def parse(cls, text: str) -> Configuration:
        """From `arm[/flag...]`; UserError for what there is not."""
        head, *flags = text.strip().split("/")
        arm = Arm.parse_plain(head)
        if other := [flag for flag in flags if flag not in FLAGS]:
            raise UserError(f"{text}: no flag {other[0]!r}; there are {', '.join(FLAGS)}")
        if INDEX_ROWS in flags and METHODS[arm.name].kind != GRADIENT:
            raise UserError(f"{text}: only gradient methods have {INDEX_ROWS}")
        return cls(arm, NO_WORD not in flags, INDEX_ROWS not in flags)

    @property
    def text(self) -> str:
        """As it is written."""
        flags = f"/{NO_WORD}" * (not self.word) + f"/{INDEX_ROWS}" * (not self.own_rows)
        return self.arm.text + flags

    @property
    def kind(self) -> str:
        """The method's kind."""
        return METHODS[self.arm.name].kind

    @property
    def rows(self) -> str | None:
        """The step of the rows that a gradient method compares; None for other methods."""
        if self.kind != GRADIENT:
            return None
        return next(n.removeprefix("rows:") for n in METHODS[self.arm.name].needs if "rows:" in n)

    def digest(self, index: Index) -> str:
        """What its answers depend on besides the run's settings: rows and encoders."""
        return canonical_hash([arms.digest(self.arm, index), self.text])[:12]


@dataclass(frozen=True)
class Stage:
    """Work of one rank: these configurations on the first `queries` queries of every model."""

    title: str
    configurations: tuple[Configuration, ...]
    queries: int


def stages(asked: Sequence[str] | None, queries: int, variant_queries: int) -> list[Stage]:
    """What is done in which order; asked: only these, as written, on every query."""
    if asked is not None:
        return [Stage("asked", _parsed(asked), queries)]
    few = min(queries, variant_queries)
    return [
        Stage("methods", _parsed(FIRST), queries),
        Stage("gradients", _parsed(THEN), queries),
        Stage("variants", _parsed(VARIANTS), few),
    ]


def _parsed(texts: Iterable[str]) -> tuple[Configuration, ...]:
    return tuple(map(Configuration.parse, texts))


def able(found: list[Stage], index: Index) -> tuple[list[Stage], dict[str, str]]:
    """The stages with what the index can serve, and why not for the rest, by configuration."""
    lacking: dict[str, str] = {}
    kept = []
    for stage in found:
        some = []
        for one in stage.configurations:
            if why := arms.why_no(one.arm, index):
                lacking[one.text] = why
            else:
                some.append(one)
        kept.append(Stage(stage.title, tuple(some), stage.queries))
    return kept, lacking


def options(one: Configuration, columns: int, grid: int, survivors: int | None) -> dict[str, Any]:
    """Options of the method's run: its own, and how its cells are raced or its gradient drawn.

    columns: timesteps of the benchmark; grid: of the index. A gradient method draws as many (t, ε)
    at fewer timesteps. survivors: who goes on after the first timestep; None: everyone.
    """
    chosen = dict(one.arm.asked)
    if one.kind == UNLEARNING:
        chosen["racing"] = [(1, survivors)] if survivors else False
        chosen["fresh_base"] = False
    elif one.kind == GRADIENT and one.own_rows:
        chosen.setdefault("draws", round(DRAWS * grid / columns))
    return chosen
