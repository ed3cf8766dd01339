"""Step 3: attribute. Which method, how many results, and the work itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import gradio as gr

from app.jobs import Ended, Jobs
from app.markup import AT_ONCE, block, by_kind, heading, label_of
from app.session import Session
from app.slider import Slider
from app.status import Step, visitor
from attribution import defaults, validate
from attribution.engine import Engine
from attribution.types import Attribution, Progress, UserError

MOST_SHOWN = 96
MANY = "How many to show"
# Whether a default answer leaves anything out.
SHORT_OF_ALL = defaults.SHORTLIST is not None or bool(defaults.RACING)


class Run:
    """Method, number of results, exactness, and the Attribute button."""

    def __init__(self, engine: Engine, jobs: Jobs) -> None:
        self.engine = engine
        self.jobs = jobs
        self.methods = {m["name"]: m for m in engine.methods()}
        block(heading(3, "Ask where it comes from"))
        with gr.Row(equal_height=True, elem_id="settings"):
            self.method = gr.Dropdown(
                choices=choices(self.methods.values()),
                value=defaults.METHOD,
                label="Method",
                info=self.explanation(defaults.METHOD),
                elem_id="method",
                min_width=220,
            )
            self.top_k = Slider(
                1,
                min(MOST_SHOWN, engine.n_train),
                value=engine.top_k(),
                step=1,
                label=MANY,
                elem_id="top-k",
                min_width=220,
            )
            self.exhaustive = gr.Checkbox(
                label="Score every training picture",
                info=f"Slower. Otherwise {_starters(engine.n_train)} start, and those that fall "
                "behind drop out.",
                elem_id="exhaustive",
                value=not SHORT_OF_ALL,
                interactive=SHORT_OF_ALL,
                min_width=220,
            )
        self.step = Step("attribute", "Attribute", jobs, ready=False)
        self.method.change(self._explain, self.method, self.method, **AT_ONCE)
        self.inputs = [self.method, self.top_k, self.exhaustive]

    def explanation(self, method: str) -> str:
        """What the chosen method does, in a line."""
        return self.methods[method]["explanation"] if method in self.methods else ""

    def _explain(self, method: str) -> dict[str, Any]:
        return gr.update(info=self.explanation(method))

    def attribute(
        self, session: Session, method: str, top_k: float, exhaustive: bool, request: gr.Request
    ) -> Iterator[tuple[dict[Any, Any], Progress | Attribution | Ended]]:
        """(updates of this panel, what happened) for each step of the work."""

        def work() -> Iterator[Progress | Attribution]:
            if session.query is None:
                raise UserError("make a picture first")
            k = validate.top_k(top_k, int(self.top_k.maximum), MANY)
            control = defaults.CONTROL
            yield from self.jobs.attribute(session.query, (method,), k, exhaustive, control)

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


def choices(methods: Iterable[dict[str, Any]]) -> list[tuple[str, str]]:
    """(title and kind, name) of the methods that can run here, kind after kind."""
    groups = by_kind(m for m in methods if m["available"])
    return [
        (f"{m['title']} · {label_of(kind)}", m["name"])
        for kind, group in groups.items()
        for m in group
    ]


def _starters(n_train: int) -> str:
    """Whom a default answer scores at first, in words."""
    limit = defaults.SHORTLIST
    return "all" if limit is None or limit >= n_train else f"the {limit:,} likeliest"
