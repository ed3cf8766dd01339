"""Compare methods: which ones, their strips as they finish, where they agree, what they cost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import gradio as gr

from app.jobs import OUR_FAULT, Ended, Jobs, sentence
from app.markup import (
    AT_ONCE,
    block,
    pickable,
    picked_id,
)
from app.panels.agreement import agreement
from app.panels.choice import Choice
from app.panels.gallery import Gallery
from app.panels.run import MOST_SHOWN
from app.panels.strips import EMPTY, NONE_PICKED, Strips
from app.session import Comparison, Session
from app.slider import Slider
from app.status import ANNOUNCE, Step, visitor
from attribution.engine import Engine
from attribution.regions import key
from attribution.types import Attribution, Cancelled, Example, Progress, Query, UserError

log = logging.getLogger(__name__)

LEAD = (
    "The same picture, asked in several ways. Answers that are there already, of this page or of a "
    "saved example, show at once; the others are computed one after another."
)
WARNING = (
    "<strong>Scores cannot be compared between methods.</strong> A loss change, an inner product "
    "of gradients and a likeness have no common scale. Compare what comes first, not by how much."
)
# The chosen record is marked in every strip, also in strips that come later.
MARK = """
const mark = () => window.whence?.markIn('strips', window.whence.compared);
watch('value', mark);
"""
PICKED = """
watch('value', () => {
  if (!window.whence) return;
  window.whence.compared = element.querySelector('[data-record]')?.dataset.record;
  window.whence.markIn('strips', window.whence.compared);
});
"""


@dataclass(frozen=True)
class Begun:
    """A method is at work from here on."""

    method: str


@dataclass(frozen=True)
class Finished:
    """Every chosen method has had its turn."""


@dataclass(frozen=True)
class Failure:
    """A method that gave no answer; the others go on."""

    method: str
    words: str


class Compare:
    """Choice, Compare button and everything it shows."""

    def __init__(self, engine: Engine, jobs: Jobs) -> None:
        self.engine, self.jobs = engine, jobs
        self.top_k = engine.top_k()
        self._cost = lru_cache(maxsize=None)(engine.cost)
        self.titles = {m["name"]: m["title"] for m in engine.methods()}
        self.draw = Strips(Gallery(engine), self.titles)
        block(f'<p class="w-lead">{LEAD}</p>')
        self.choice = Choice(engine.methods())
        self.state = gr.State(Comparison(self.choice.first))
        self.picked = gr.State("")
        self.k = Slider(
            1,
            min(MOST_SHOWN, engine.n_train),
            value=self.top_k,
            step=1,
            label="How many of each (k)",
            elem_id="compare-k",
        )
        self.step = Step("compare", "Compare", jobs, ready=False)
        block(f'<p class="w-note">{WARNING}</p>')
        with gr.Row(equal_height=False, elem_classes="w-answer"):
            with gr.Column(scale=7, min_width=300):
                self.strips = pickable(EMPTY, elem_id="strips", script=MARK)
            with gr.Column(scale=4, min_width=280, elem_classes="w-side w-stay"):
                self.ranks = pickable(NONE_PICKED, elem_id="ranks", script=PICKED + ANNOUNCE)
        self.agreement = block(elem_id="agreement")
        with gr.Accordion("What each method costs", open=False, elem_id="costs-box"):
            self.costs = block(elem_id="costs")
        self.shown = [self.strips, self.ranks, self.agreement, self.costs]
        self.outputs = [
            self.state,
            self.picked,
            *self.step.outputs,
            *self.choice.boxes,
            self.k,
            *self.shown,
        ]
        self._listen()

    def _listen(self) -> None:
        chosen = [self.state, self.k, self.picked, *self.choice.boxes]
        for box in self.choice.boxes:
            box.input(self._choose, chosen, [self.state, *self.shown], **AT_ONCE)
        self.k.moves(self._redraw, [self.state, self.k, self.picked], self.shown)
        picked = self.strips.select(
            self._pick, [self.state, self.k], [self.picked, self.ranks], **AT_ONCE
        )
        picked.then(None, js="() => window.whence.reveal('ranks')", **AT_ONCE)

    def _choose(
        self, comparison: Comparison, k: float, picked: str, *boxes: list[str]
    ) -> dict[Any, Any]:
        comparison = self.choice.chosen(comparison, boxes)
        return {self.state: comparison, **self._redraw(comparison, k, picked)}

    def _pick(self, comparison: Comparison, k: float, event: gr.EventData) -> dict[Any, Any]:
        picked = picked_id(event)
        return {self.picked: picked, self.ranks: self.draw.ranks(comparison, picked, int(k))}

    def _redraw(self, comparison: Comparison, k: float, picked: str) -> dict[Any, Any]:
        return {
            self.ranks: self.draw.ranks(comparison, picked, int(k)),
            **self._drawn(comparison, int(k)),
        }

    def _drawn(self, comparison: Comparison, k: int, running: str = "") -> dict[Any, Any]:
        """All that follows from the answers but the chosen record's ranks."""
        costs = {name: self._cost(name) for name in comparison.shown if name in self.titles}
        return {
            self.strips: self.draw.strips(comparison, k, running=running),
            self.agreement: agreement(comparison, self.titles, k, self.engine.n_train),
            self.costs: self.draw.costs(comparison, costs),
        }

    # ------------------------------------------------------------------------------------- running

    def compare(
        self, session: Session, comparison: Comparison, k: float, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Updates while the chosen methods that have no answer yet run one after another."""
        if session.query is not None:
            comparison = comparison.about(key(session.query))
        comparison, k = replace(comparison, failed={}), int(k)
        todo = comparison.missing
        work = partial(self._work, session, comparison.chosen, todo)
        for item in self.jobs.follow(visitor(request), self.step.name, work):
            if isinstance(item, Progress):
                yield self.step.progress(item)
            elif isinstance(item, Ended):
                yield {**self.step.ended(item), **self._finish(comparison, k)}
            elif isinstance(item, Begun):
                drawn = self._drawn(comparison, k, item.method)
                yield {self.state: comparison, **self._controls(running=True), **drawn}
            elif isinstance(item, Failure):
                comparison = comparison.failing(item.method, item.words)
            elif isinstance(item, Attribution):
                comparison = comparison.answered(item)
            else:
                yield {**self.step.done(_summary(comparison)), **self._finish(comparison, k)}

    def _work(
        self, session: Session, chosen: tuple[str, ...], todo: list[str]
    ) -> Iterator[Progress | Attribution | Begun | Failure | Finished]:
        """The methods in turn. A run that was dropped never gets to `Finished`."""
        if session.query is None:
            raise UserError("make a picture first")
        if not chosen:
            raise UserError("choose at least one method")
        for number, name in enumerate(todo, 1):
            yield Begun(name)
            yield from self._one(session.query, name, f"{number} of {len(todo)}")
        yield Finished()

    def _one(
        self, query: Query, name: str, count: str
    ) -> Iterator[Progress | Attribution | Failure]:
        """One method; what goes wrong in it is its own."""
        try:
            job: Any = self.jobs.attribute(query, (name,), self.top_k)
            with closing(job):
                for item in job:
                    if isinstance(item, Progress):
                        stage = f"{self.titles[name]} ({count}): {item.stage}"
                        item = replace(item, stage=stage, partial=None)
                    yield item
        except Cancelled:
            raise
        except UserError as error:
            yield Failure(name, sentence(str(error)))
        except Exception:
            log.exception("%s failed", name)
            yield Failure(name, OUR_FAULT)

    def _finish(self, comparison: Comparison, k: int) -> dict[Any, Any]:
        return {
            self.state: comparison,
            **self._controls(running=False),
            **self._drawn(comparison, k),
        }

    def _controls(self, *, running: bool) -> dict[Any, Any]:
        """What would change the question while it is being answered."""
        return {box: gr.update(interactive=not running) for box in (*self.choice.boxes, self.k)}

    def ranks_again(self, comparison: Comparison, k: float, picked: str) -> str:
        """The chosen record's ranks once all have answered."""
        return self.draw.ranks(comparison, picked, int(k))

    # ------------------------------------------------------------------------- from the other steps

    def cleared(self, comparison: Comparison) -> dict[Any, Any]:
        """A new picture: nothing is known of it."""
        return {
            self.state: comparison.fresh(),
            self.picked: "",
            **self.step.idle(ready=True),
            **self._controls(running=False),
            self.strips: EMPTY,
            self.ranks: NONE_PICKED,
            self.agreement: "",
            self.costs: "",
        }

    def joined(
        self, session: Session, comparison: Comparison, k: float, picked: str
    ) -> dict[Any, Any]:
        """The answer of step 3, where there is a new one, is a strip here."""
        answer = session.answer
        if session.query is None or answer is None:
            return {self.state: comparison}
        comparison = comparison.about(key(session.query))
        if any(a.scores is answer.scores for a in comparison.answers):
            return {self.state: comparison}
        comparison = comparison.answered(answer)
        redrawn = self._redraw(comparison, k, picked)
        return {self.state: comparison, **self.choice.ticks(comparison), **redrawn}

    def saved(self, comparison: Comparison, example: Example, k: int) -> dict[Any, Any]:
        """All the answers of a saved example at once."""
        comparison = comparison.fresh().about(key(example.query))
        if len(example.attributions) > 1:
            comparison = comparison.choose(())
        for answer in example.attributions:
            comparison = comparison.answered(answer)
        comparison = replace(comparison, correlations=example.correlations)
        return {
            **self.cleared(comparison),
            self.state: comparison,
            self.k: gr.update(value=k, interactive=True),
            **self.choice.ticks(comparison),
            **self._drawn(comparison, k),
        }


def _summary(comparison: Comparison) -> str:
    """One line at the end."""
    count = len(comparison.shown)
    words = f"Done: {count} method{'' if count == 1 else 's'}."
    return words + (f" {len(comparison.failed)} gave no answer." if comparison.failed else "")
