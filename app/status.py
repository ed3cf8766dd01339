"""A step's run button, its Stop, and the line that says how the work is going."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import wraps
from typing import Any

import gradio as gr

from app.jobs import MODEL, OUR_FAULT, Ended, Jobs
from app.markup import AT_ONCE, QUIET, block, text
from attribution.types import Progress

# The announcement is spoken once per stage, not with every update.
ANNOUNCE = """
watch('value', () => {
  const spoken = document.getElementById('announcer');
  const words = element.querySelector('[data-announce]')?.dataset.announce || '';
  if (spoken && words && spoken.textContent !== words) spoken.textContent = words;
});
"""

# A click while the step's last one is at work waits for its turn: its ticket is taken already.
EVERY_CLICK: dict[str, Any] = {"trigger_mode": "multiple"}
LOST = "That did not begin: please look at what is filled in, and try again."
QUEUED = "Waiting for the model"
QUEUED_DETAIL = "It serves one visitor at a time; your turn comes by itself."


class Step:
    """Button, Stop and status line of one step. `name` is the step's in `Jobs`, and the prefix of
    element ids. waiting: what a visitor is told whose turn has not come.
    """

    def __init__(
        self,
        name: str,
        label: str,
        jobs: Jobs,
        *,
        ready: bool = True,
        waiting: tuple[str, str] = (QUEUED, QUEUED_DETAIL),
    ) -> None:
        self.name = name
        self.jobs = jobs
        self.waiting = waiting
        with gr.Row(elem_classes="w-buttons"):
            self.run = gr.Button(
                label, variant="primary", elem_id=f"{name}-run", interactive=ready, min_width=120
            )
            self.stop = gr.Button(
                "Stop", elem_id=f"{name}-stop", elem_classes="w-stop", visible=False, min_width=80
            )
        self.line = block(elem_id=f"{name}-status", js_on_load=ANNOUNCE)
        self.outputs = [self.run, self.stop, self.line]
        # The word first, then the deed: a job that ends at once must not be told of before the word
        # that it is ending, which would stand there for good.
        said = self.stop.click(self._stopping, outputs=self.outputs, **AT_ONCE)
        said.then(self._stop, outputs=self.outputs, **AT_ONCE)

    def does(
        self,
        work: Callable[..., Iterator[dict[Any, Any]]],
        inputs: list[Any],
        outputs: list[Any],
        *,
        also: Sequence[Any] = (),
        turns: Mapping[str, Any] = MODEL,
        **more: Any,
    ) -> Any:
        """At a click a word, beside the queue, then the work in its turn; what could not begin is
        told. Returns the work's event. also: further triggers; turns: what the work waits for."""
        queued = gr.on([self.run.click, *also], self.queued, outputs=self.outputs, **AT_ONCE)
        work = never_nothing(work, self.line)
        outputs = list(dict.fromkeys((*self.outputs, *outputs)))
        done = queued.then(work, inputs, outputs, **QUIET, **turns, **EVERY_CLICK, **more)
        done.failure(self.lost, outputs=self.outputs, **AT_ONCE)
        return done

    def queued(self, request: gr.Request) -> dict[Any, Any]:
        """At the click, before the queue: take a ticket and say so."""
        self.jobs.enqueue(visitor(request), self.name)
        return self.waits()

    def waits(self) -> dict[Any, Any]:
        """Its turn has not come."""
        return self._state(working_line(*self.waiting), running=True)

    def lost(self, request: gr.Request) -> dict[Any, Any]:
        """The work did not begin, since what was asked could not be read; or it broke."""
        waited = self.jobs.forget_click(visitor(request), self.name)
        line = ended_line("refused", LOST) if waited else ended_line("failed", OUR_FAULT)
        return self._state(line, running=False)

    def _stopping(self, request: gr.Request) -> dict[Any, Any]:
        if self.jobs.running(visitor(request), self.name):
            return self._state(working_line("Stopping", "Putting the model back."), running=True)
        return {self.line: gr.skip()}

    def _stop(self, request: gr.Request) -> dict[Any, Any]:
        """Free the page at once when the job still waits; else the job itself reports that it has
        stopped.
        """
        running = self.jobs.running(visitor(request), self.name)
        self.jobs.stop(visitor(request), self.name)
        if running:
            return {self.line: gr.skip()}
        words = "It had ended already." if running is None else "Cancelled before it began."
        return self._state(ended_line("stopped", words), running=False)

    def progress(self, item: Progress) -> dict[Any, Any]:
        return self._state(progress_line(item), running=True)

    def ended(self, item: Ended) -> dict[Any, Any]:
        return self._state(ended_line(item.how, item.words), running=False)

    def done(self, words: str) -> dict[Any, Any]:
        return self._state(ended_line("done", words), running=False)

    def idle(self, *, ready: bool) -> dict[Any, Any]:
        """As on a fresh page; `ready` when the step has what it needs."""
        return self._state("", running=False, ready=ready)

    def _state(self, line: str, *, running: bool, ready: bool = True) -> dict[Any, Any]:
        return {
            self.run: gr.update(interactive=ready and not running),
            self.stop: gr.update(visible=running),
            self.line: line,
        }


def never_nothing(
    work: Callable[..., Iterator[dict[Any, Any]]], output: Any
) -> Callable[..., Iterator[dict[Any, Any]]]:
    """`work` as gradio may run it: of a job that was dropped before it said anything, gradio would
    empty every output; so it is told that nothing changes. output: one of the event's."""

    @wraps(work)
    def steps(*args: Any, **named: Any) -> Iterator[dict[Any, Any]]:
        with closing(work(*args, **named)) as updates:  # type: ignore[type-var]
            yield next(updates, {output: gr.skip()})
            yield from updates

    return steps


def visitor(request: gr.Request | None) -> str:
    """Who clicked: one browser tab is one visitor."""
    return str(getattr(request, "session_hash", None) or "nobody")


def working_line(title: str, detail: str = "", share: float | None = None) -> str:
    """A running job: what it does, how far it is (None: unknown), what is left."""
    known = "" if share is None else f' aria-valuenow="{round(100 * share)}"'
    width = "" if share is None else f' style="width:{100 * share:.1f}%"'
    kind = "w-bar w-bar-open" if share is None else "w-bar"
    return (
        f'<div class="w-status w-working" data-announce="{text(title)}">'
        f"<p><strong>{text(title)}</strong><span>{text(detail)}</span></p>"
        f'<div class="{kind}" role="progressbar" aria-label="{text(title)}" aria-valuemin="0"'
        f' aria-valuemax="100"{known}><span{width}></span></div></div>'
    )


def progress_line(item: Progress) -> str:
    """Stage name, count and time left."""
    stage = item.stage[:1].upper() + item.stage[1:]
    share = item.done / item.total if item.total else None
    count = f"{item.done:,} of {item.total:,}" if item.total > 1 else ""
    return working_line(stage, " · ".join(filter(None, (count, left(item.remaining)))), share)


def left(seconds: float | None) -> str:
    """Time left in words that do not pretend to be exact."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    if seconds < 1.5:
        return "a moment left"
    if seconds < 90:
        return f"about {math.ceil(seconds)} s left"
    return f"about {math.ceil(seconds / 60)} min left"


ICONS = {"done": "✓", "stopped": "■", "refused": "!", "failed": "!"}


def ended_line(how: str, words: str) -> str:
    """A job's last word; sign and words carry the meaning, colour only repeats it."""
    return (
        f'<div class="w-status w-{how}" data-announce="{text(words)}">'
        f'<p><span class="w-sign" aria-hidden="true">{ICONS[how]}</span>{text(words)}</p></div>'
    )
