"""Step 2: attribute. Which method, how many results, and the work itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.jobs import Ended, Jobs
from app.markup import block, heading
from app.session import Session
from app.status import Step, visitor
from attribution import defaults, validate
from attribution.engine import Engine
from attribution.types import Attribution, Progress, UserError

MOST_SHOWN = 96


class Run:
    """Method, number of results, exactness, and the Attribute button."""

    def __init__(self, engine: Engine, jobs: Jobs) -> None:
        self.engine = engine
        self.jobs = jobs
        block(heading(2, "Ask where it comes from"))
        with gr.Row(equal_height=True, elem_id="settings"):
            self.method = gr.Dropdown(
                choices=[(m["title"], m["name"]) for m in engine.methods() if m["available"]],
                value=defaults.METHOD,
                label="Method",
                info="AbU unlearns the picture; the others compare.",
                elem_id="method",
                min_width=220,
            )
            self.top_k = gr.Slider(
                1,
                min(MOST_SHOWN, engine.n_train),
                value=min(defaults.TOP_K, engine.n_train),
                step=1,
                label="How many to show",
                elem_id="top-k",
                min_width=220,
            )
            self.exhaustive = gr.Checkbox(
                label="Score every training picture",
                info="Slower. Otherwise a shortlist is made first.",
                elem_id="exhaustive",
                value=defaults.SHORTLIST is None,
                interactive=defaults.SHORTLIST is not None,
                min_width=220,
            )
        self.step = Step("attribute", "Attribute", jobs, ready=False)
        self.inputs = [self.method, self.top_k, self.exhaustive]

    def attribute(
        self, session: Session, method: str, top_k: float, exhaustive: bool, request: gr.Request
    ) -> Iterator[tuple[dict[Any, Any], Progress | Attribution | Ended]]:
        """(updates of this panel, what happened) for each step of the work."""

        def work() -> Iterator[Progress | Attribution]:
            if session.query is None:
                raise UserError("make a picture first")
            k = validate.top_k(top_k, self.engine.n_train)
            yield from self.jobs.attribute(session.query, (method,), k, exhaustive)

        for item in self.jobs.follow(visitor(request), self.step.name, work):
            if isinstance(item, Ended):
                yield self.step.ended(item), item
            elif isinstance(item, Progress):
                yield self.step.progress(item), item
            else:
                yield self.step.done(summary(item)), item


def summary(answer: Attribution) -> str:
    """One line: how many were scored, and how long it took."""
    seconds = sum(answer.seconds.values())
    return f"Done: {answer.candidates:,} training pictures scored in {seconds:.1f} s."
