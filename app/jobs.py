"""Long work on the model: one job at a time, each visitor's Stop, and errors as words instead of
exceptions.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from app.model_thread import run, steps
from app.spaces_gpu import gpu
from attribution.engine import Engine
from attribution.types import Cancelled, Progress, UserError

log = logging.getLogger(__name__)

# Gradio's queue runs one event of this group at a time; every event that touches the model belongs
# to it.
MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}

# Progress faster than the eye only costs time on the way to the browser.
SECONDS_BETWEEN_UPDATES = 0.2
GPU_SECONDS = 120

OUR_FAULT = "Something went wrong on our side. The model is as it was; please try again."

T = TypeVar("T")
How = Literal["stopped", "refused", "failed"]


@dataclass(frozen=True)
class Ended:
    """A job that ended without a result: `words` say why."""

    how: How
    words: str


@dataclass
class Ticket:
    """One click on a Run button, from the click to the end of its job."""

    stop: threading.Event = field(default_factory=threading.Event)
    started: bool = False
    dropped: bool = False


class Jobs:
    """Runs the engine's generators for many visitors.

    A click takes a ticket at once, outside the queue; its job picks the ticket up when its turn
    comes. Stop marks the visitor's tickets, whether they wait or run. Tickets of a visitor's step
    are picked up in the order of the clicks.
    """

    def __init__(self, engine: Engine) -> None:
        self.generate = steps(gpu(GPU_SECONDS)(engine.generate))
        self.attribute = steps(gpu(GPU_SECONDS)(engine.attribute))
        self.forget = steps(gpu(GPU_SECONDS)(engine.forget))
        self.detect = steps(gpu(GPU_SECONDS)(engine.detect))
        self.word_maps = steps(gpu(GPU_SECONDS)(engine.word_maps))
        self.suggest_captions = partial(run, gpu(GPU_SECONDS)(engine.suggest_captions))
        self._lock = threading.Lock()
        self._tickets: dict[tuple[str, str], deque[Ticket]] = defaultdict(deque)

    def enqueue(self, visitor: str, step: str) -> None:
        with self._lock:
            self._tickets[visitor, step].append(Ticket())

    def forget_click(self, visitor: str, step: str) -> bool:
        """Drop the visitor's first click whose job has not begun: it never will. Whether there was
        one."""
        with self._lock:
            tickets = self._tickets[visitor, step]
            waiting = next((t for t in tickets if not t.started), None)
            if waiting is not None:
                tickets.remove(waiting)
            if not tickets:
                del self._tickets[visitor, step]
            return waiting is not None

    def running(self, visitor: str, step: str) -> bool | None:
        """Whether one of the step's jobs has begun and not ended; None where none even waits."""
        with self._lock:
            tickets = self._tickets.get((visitor, step))
            return any(ticket.started for ticket in tickets) if tickets else None

    def stop(self, visitor: str, step: str) -> bool:
        """Mark every ticket of the step; True when one of them is already running."""
        with self._lock:
            tickets = list(self._tickets[visitor, step])
        for ticket in tickets:
            ticket.stop.set()
        return any(ticket.started for ticket in tickets)

    def drop(self, visitor: str) -> None:
        """The visitor has turned to another picture: end all their jobs without a word, so that
        none writes over what the page shows now.
        """
        with self._lock:
            mine = [
                t for (who, _), tickets in self._tickets.items() if who == visitor for t in tickets
            ]
        for ticket in mine:
            ticket.dropped = True
            ticket.stop.set()

    def follow(
        self, visitor: str, step: str, work: Callable[[], Iterator[Progress | T]]
    ) -> Iterator[Progress | T | Ended]:
        """The items of `work()`, progress thinned out; an `Ended` last where there is no result.

        Closing this generator, as gradio does when a visitor leaves, closes the engine's, which
        restores the weights.
        """
        ticket = self._start(visitor, step)
        try:
            yield from _watched(work, ticket)
        except (Cancelled, _Stopped):
            if not ticket.dropped:
                yield Ended("stopped", "Stopped. The model is as it was.")
        except UserError as error:
            yield Ended("refused", sentence(str(error)))
        except Exception:
            log.exception("%s failed", step)
            yield Ended("failed", OUR_FAULT)
        finally:
            self._finish(visitor, step, ticket)

    def _start(self, visitor: str, step: str) -> Ticket:
        with self._lock:
            waiting = (t for t in self._tickets[visitor, step] if not t.started)
            ticket = next(waiting, None)
            if ticket is None:  # a job without a click, as when a link is followed
                ticket = Ticket()
                self._tickets[visitor, step].append(ticket)
            ticket.started = True
            return ticket

    def _finish(self, visitor: str, step: str, ticket: Ticket) -> None:
        with self._lock:
            tickets = self._tickets[visitor, step]
            if ticket in tickets:
                tickets.remove(ticket)
            if not tickets:
                del self._tickets[visitor, step]


class _Stopped(Exception):
    """The visitor pressed Stop."""


def _watched(work: Callable[[], Iterator[Progress | T]], ticket: Ticket) -> Iterator[Progress | T]:
    if ticket.stop.is_set():
        raise _Stopped
    items = work()
    shown = 0.0
    stage = ""
    try:
        for item in items:
            if ticket.stop.is_set():
                raise _Stopped
            if isinstance(item, Progress):
                soon = time.monotonic() - shown < SECONDS_BETWEEN_UPDATES
                if soon and item.stage == stage:
                    continue
                shown, stage = time.monotonic(), item.stage
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def public(text: str) -> str:
    """An error's line for visitors: of a path on the server only the last name, as in
    `--out openclipart`."""
    return re.sub(r"(?<![\w:/.])(?:/[^\s/`'\"]+)+/([^\s/`'\"]+)", r"\1", text)


def sentence(text: str) -> str:
    """An error's one line as a sentence of the page."""
    text = " ".join(public(text).split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
