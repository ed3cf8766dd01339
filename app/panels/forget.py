"""See it forget. The same prompt and seed at five strengths of unlearning, beside prompts
that stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from PIL import Image

from app.jobs import Ended, Jobs
from app.markup import block, data_uri, text
from app.session import Session
from app.status import Step, visitor
from attribution.types import Forgetting, OtherPrompt, Progress, UserError

EMPTY = (
    '<p class="w-empty">The same prompt and the same seed, with the model made to forget your '
    "picture a little more "
    "each time; and prompts that have nothing to do with it, to see that they stay.</p>"
)

EXPLAINED = (
    "Error: how badly the model predicts your picture, compared with the model as it is. Change: "
    "mean squared difference of the pixels from the first picture, in percent of the greatest "
    "possible."
)


class Forget:
    """The button and the pictures."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.step = Step("forget", "See it forget", jobs, ready=False)
        self.pictures = block(EMPTY, elem_id="forgetting")

    def forget(self, session: Session, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """Updates for each step of the work."""

        def work() -> Iterator[Progress | Forgetting]:
            if session.query is None:
                raise UserError("make a picture first")
            yield from self.jobs.forget(session.query)

        for item in self.jobs.follow(visitor(request), self.step.name, work):
            if isinstance(item, Ended):
                yield self.step.ended(item)
            elif isinstance(item, Progress):
                yield self.step.progress(item)
            else:
                yield {**self.step.done(_done(session)), self.pictures: forgetting_html(item)}

    def cleared(self) -> dict[Any, Any]:
        return {self.pictures: EMPTY}


def _done(session: Session) -> str:
    if session.query is not None and session.query.regions:
        return "Done: only the chosen part was forgotten."
    return "Done."


def forgetting_html(result: Forgetting) -> str:
    """A row for the prompt that is forgotten, a table of those that stay."""
    note = f'<p class="w-note">{text(result.note)}</p>' if result.note else ""
    figures = "".join(
        _figure(
            image,
            _strength(result, i),
            f"{text(result.prompt)}, {_strength(result, i)}",
            _change(result, i),
        )
        for i, image in enumerate(result.images)
    )
    others = "".join(_other(other) for other in result.others)
    stay = (
        "<h3>Unrelated prompts, before and after the strongest</h3>"
        f'<div class="w-others">{others}</div>'
        if others
        else ""
    )
    return (
        f'<div class="w-card-box w-forgetting">{note}'
        f"<h3>“{text(result.prompt)}”, seed {result.seed}</h3>"
        f'<div class="w-strengths">{figures}</div>{stay}'
        f'<p class="w-caption">{EXPLAINED}</p></div>'
    )


def _strength(result: Forgetting, i: int) -> str:
    if result.strengths[i] == 0:
        return "as it is"
    return f"error +{100 * result.reached[i]:.0f} %"


def _change(result: Forgetting, i: int) -> str:
    """How much the picture changed, and the strength asked for where it could not be reached."""
    asked, reached = result.strengths[i], result.reached[i]
    if asked == 0:
        return ""
    short = f" · +{100 * asked:.0f} % was out of reach" if reached < 0.8 * asked else ""
    return f"change {percent(result.changes[i])}{short}"


def percent(share: float) -> str:
    """A small share of one, with as many digits as it needs."""
    value = 100 * share
    return (
        f"{value:.0f} %" if value >= 10 else f"{value:.1f} %" if value >= 0.1 else f"{value:.2f} %"
    )


def _figure(image: Image.Image, words: str, alt: str, small: str) -> str:
    return (
        f'<figure><img src="{data_uri(image)}" alt="{alt}">'
        f"<figcaption><b>{text(words)}</b><span>{text(small)}</span></figcaption></figure>"
    )


def _other(other: OtherPrompt) -> str:
    prompt = text(other.prompt)
    return (
        f'<figure><div class="w-pair"><img src="{data_uri(other.before)}" alt="{prompt}, before">'
        f'<span aria-hidden="true">→</span><img src="{data_uri(other.after)}" alt="{prompt}, '
        'after"></div>'
        f"<figcaption><span>{prompt}</span><b>change "
        f"{percent(other.change)}</b></figcaption></figure>"
    )
