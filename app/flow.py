"""What an event of the page does: asks a panel for the work, says what changes on the others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.jobs import Ended, public
from app.layout import Panels
from app.markup import picked_id
from app.panels.rows import Line, picked
from app.parts import Parts, linked
from app.session import Comparison, Session
from app.status import visitor
from attribution import defaults, validate
from attribution.types import Attribution, Example, Progress, UserError

Updates = dict[Any, Any]


class Flow:
    """The work behind the panels. Gradio names an event after its function: none may be called like
    an endpoint of api.py."""

    def __init__(self, on: Panels) -> None:
        self.on, self.engine, self.jobs = on, on.engine, on.jobs

    def new_picture(
        self,
        session: Session,
        comparison: Comparison,
        prompt: str,
        seed: float,
        request: gr.Request,
    ) -> Iterator[Updates]:
        unlinked = {self.on.session: session.unlinked()}  # the next picture is another one
        for updates, item in self.on.picture.generate(session, prompt, seed, request):
            if isinstance(item, Session):
                yield {**updates, **self._fresh(item, comparison)}
            else:
                yield {**updates, **unlinked} if isinstance(item, Ended) else updates

    def take_upload(
        self,
        session: Session,
        comparison: Comparison,
        file: dict[str, Any] | None,
        prompt: str,
        request: gr.Request,
    ) -> Iterator[Updates]:
        for updates, made in self.on.picture.take_upload(session, file, prompt, request):
            yield updates if made is None else {**updates, **self._fresh(made, comparison)}

    def _fresh(self, session: Session, comparison: Comparison) -> Updates:
        """A new picture: the steps below start over."""
        start = {self.on.go_attribute: time.monotonic_ns()} if session.link else {}
        return {
            self.on.session: session,
            **start,
            **self.on.run.step.idle(ready=True),
            **self.on.forget.step.idle(ready=True),
            **self.on.answer.cleared(),
            **self.on.share.cleared(),
            **self.on.forget.cleared(),
            **self.on.compare.cleared(comparison),
            **self.on.rows.cleared(),
            **self._whole(session),
        }

    def _whole(self, session: Session) -> Updates:
        """A new picture to choose a part of."""
        return {} if session.query is None else self.on.part.fresh(session.query)

    def forget(self, session: Session, parts: Parts, request: gr.Request) -> Iterator[Updates]:
        # in the prompt's words, which the picture is drawn by again
        yield from self.on.forget.forget(session.about(parts.regions), request)

    def compare(
        self,
        session: Session,
        parts: Parts,
        own: bool,
        typed: str,
        comparison: Comparison,
        k: float,
        request: gr.Request,
    ) -> Iterator[Updates]:
        session = _about(session, parts, own, typed)
        yield from self.on.compare.compare(session, comparison, k, request)

    def answer(
        self,
        session: Session,
        parts: Parts,
        own: bool,
        typed: str,
        method: str,
        top_k: float,
        exhaustive: bool,
        request: gr.Request,
    ) -> Iterator[Updates]:
        before, session = session, _about(session, parts, own, typed)
        shown = False  # a partial answer stands where the last answer stood
        work = self.on.run.attribute(session, method, top_k, exhaustive, request)
        for updates, item in work:
            if isinstance(item, Attribution):
                yield {**updates, **self._found(session.answered(item, int(top_k)))}
            elif isinstance(item, Ended) and shown:
                yield {**updates, **self.on.answer.abandoned(before)}
            elif isinstance(item, Progress) and item.partial is not None:
                shown = True
                yield {**updates, **self.on.answer.partial(item.partial, int(top_k))}
            else:
                yield updates

    def row_opened(self, lines: tuple[Line, ...], event: gr.EventData) -> str:
        """A card of a row, with that row's own figures."""
        number, record = picked(picked_id(event))
        session, whose = self.on.rows.asked(lines[number])
        return self.on.answer.records.show(session, record, whose)

    def _found(self, session: Session) -> Updates:
        return {
            self.on.session: session,
            **self.on.answer.final(session),
            **self.on.share.final(session),
        }

    def example(self, comparison: Comparison, event: gr.EventData, request: gr.Request) -> Updates:
        self.jobs.drop(visitor(request))
        return self._show(self.on.examples.saved[picked_id(event)], comparison)

    def _show(self, example: Example, comparison: Comparison) -> Updates:
        """A saved example as if it had just been computed."""
        query, answer = example.query, example.attributions[0]
        top_k = self.engine.top_k()
        session = Session().asked(query).answered(answer, top_k)
        return {
            **self._fresh(session, comparison),
            **self.on.compare.saved(comparison, example, top_k),
            **self.on.picture.show(query),
            **self.on.picture.step.idle(ready=True),
            **self.on.picture.use.idle(ready=True),
            **self.on.run.step.done("A saved answer. Press Attribute to compute it anew."),
            **self._found(session),
            self.on.picture.prompt: query.prompt,
            self.on.picture.seed: query.seed,
            self.on.run.method: answer.method,
            self.on.run.top_k: top_k,
        }

    def link(self, session: Session, comparison: Comparison, request: gr.Request) -> Updates:
        """Follow ?prompt=&seed=&method=&k=&region=&called=: from a saved example at once, else by
        making the picture again.
        """
        asked = dict(request.query_params)
        if "prompt" not in asked:
            return {self.on.session: session}
        try:
            prompt = validate.prompt(asked["prompt"])
            seed = validate.seed(asked.get("seed", "0"))
            known = {m["name"]: m for m in self.engine.methods()}
            (method,) = validate.methods([asked.get("method", defaults.METHOD)], known)
            top_k = self.engine.top_k(asked.get("k"))
            regions = linked(asked.get("region", ""), (self.engine.resolution,) * 2)
            called = validate.called(asked.get("called"), bool(regions))
        except (UserError, ValueError) as error:
            gr.Warning(f"The link cannot be followed: {public(str(error))}.", title="Link")
            return {self.on.session: session}
        example = self.on.examples.find(prompt, seed, method)
        if example is not None and not regions:
            return self._show(example, comparison)
        return {
            self.on.session: Session(link=True, regions=regions, called=called),
            self.on.go_generate: 1,
            self.on.picture.prompt: prompt,
            self.on.picture.seed: seed,
            self.on.run.method: method,
            self.on.run.top_k: top_k,
        }


def _about(session: Session, parts: Parts, own: bool, typed: str) -> Session:
    """The session's picture, asked about the chosen part, in the words that the field shows."""
    parts = parts.word(own, typed)
    return session.about(parts.regions, parts.words)
