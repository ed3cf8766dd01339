"""The page: panels top to bottom, and which event changes what."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.api import add_endpoints
from app.jobs import MODEL, Ended, Jobs
from app.markup import AT_ONCE, block, heading, picked_id
from app.panels.answer import Answer
from app.panels.compare import Compare
from app.panels.examples import Examples
from app.panels.forget import Forget
from app.panels.guess import Guess
from app.panels.header import header
from app.panels.learn import Learn
from app.panels.picture import Picture
from app.panels.prove import Prove
from app.panels.region import Part
from app.panels.rows import Line, Rows, picked
from app.panels.run import Run
from app.panels.share import WHOLE_LINK, Share
from app.parts import Parts, linked
from app.session import Comparison, Session
from app.status import EVERY_CLICK, never_nothing, visitor
from attribution import defaults, validate
from attribution.engine import Engine
from attribution.types import Attribution, Example, Progress, UserError

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# Uploads and pictures of past visits are looked for every half hour and go when they are an hour
# old.
CLEANING = (1800, 3600)

Updates = dict[Any, Any]


def build_page(engine: Engine) -> gr.Blocks:
    """The page over an opened engine; `launch` it."""
    jobs = Jobs(engine)
    with gr.Blocks(title="Whence", analytics_enabled=False, delete_cache=CLEANING) as page:
        _Page(engine, jobs).wire(page)
        add_endpoints(engine, jobs)
    return page


class _Page:
    """The panels, laid out, and the flow between them."""

    def __init__(self, engine: Engine, jobs: Jobs) -> None:
        self.engine, self.jobs = engine, jobs
        self.session = gr.State(Session())
        # A change of these starts a step without a click: a followed link makes its picture, then
        # its answer.
        self.go_generate = gr.State(0)
        self.go_attribute = gr.State(0)
        header(engine)
        self.examples = Examples(engine)
        with gr.Column(elem_classes="w-step", elem_id="step-picture"):
            self.picture = Picture(engine, jobs)
        with gr.Column(elem_classes="w-step", elem_id="step-region"):
            self.part = Part(engine, jobs, self.session)
        with gr.Column(elem_classes="w-step", elem_id="step-attribute"):
            self.run = Run(engine, jobs)
        with gr.Column(elem_classes="w-step", elem_id="step-answer"):
            self.answer = Answer(engine, self.session)
            self.share = Share(engine)
            self.rows = Rows(engine)
        with gr.Column(elem_classes="w-step", elem_id="step-further"):
            block(heading(5, "Look further"))
            self._further(engine, jobs)

    def _further(self, engine: Engine, jobs: Jobs) -> None:
        """What goes beyond the one answer, for the same picture."""
        with gr.Tabs(elem_id="further"):
            with gr.Tab("Forget", id="forget"):
                self.forget = Forget(jobs)
            with gr.Tab("Compare", id="compare"):
                self.compare = Compare(engine, jobs)
            with gr.Tab("Guess", id="guess"):
                Guess(engine, self.examples.saved, self.compare.titles)
            with gr.Tab("Prove", id="prove"):
                Prove(engine)
            with gr.Tab("Learn", id="learn"):
                Learn(engine)

    def wire(self, page: gr.Blocks) -> None:
        """Connect the steps. Each starts outside the queue with a word, then waits for its turn on
        the model.
        """
        self._wire_picture()
        self._wire_answer()
        self._wire_further()
        self._wire_opening(page)

    def _wire_picture(self) -> None:
        picture, compare, fresh = self.picture, self.compare, self._fresh_outputs()
        self._step(
            [picture.step.run.click, self.go_generate.change],
            picture.step,
            self._generate,
            [self.session, compare.state, picture.prompt, picture.seed],
            [*picture.step.outputs, *fresh],
        )
        self._step(
            [picture.use.run.click],
            picture.use,
            self._take_upload,
            [self.session, compare.state, picture.upload, picture.upload_prompt],
            [*picture.use.outputs, *fresh],
            preprocess=False,
        )

    def _wire_answer(self) -> None:
        run, compare, rows = self.run, self.compare, self.rows
        attributed = self._step(
            [run.step.run.click, self.go_attribute.change],
            run.step,
            self._attribute,
            [*self._part_inputs(), *run.inputs],
            self._found_outputs(),
        )
        attributed.then(None, self.share.link, self.share.link, js=WHOLE_LINK, **QUIET)
        joined = [self.session, compare.state, compare.k, compare.picked]
        attributed.then(compare.joined, joined, compare.outputs, queue=False, **QUIET)
        asked = [self.session, self.part.state, rows.state]
        attributed.then(rows.joined, asked, rows.outputs, **AT_ONCE)
        rows.rows.select(self._row_opened, rows.state, self.answer.record, **AT_ONCE).then(
            None, js="() => window.whence.reveal('record')", **AT_ONCE
        )

    def _wire_further(self) -> None:
        forget, compare = self.forget, self.compare
        self._step(
            [forget.step.run.click],
            forget.step,
            self._forget,
            [self.session, self.part.state],
            [*forget.step.outputs, forget.pictures],
        )
        compared = self._step(
            [compare.step.run.click],
            compare.step,
            self._compare,
            [*self._part_inputs(), compare.state, compare.k],
            compare.outputs,
        )
        again = [compare.state, compare.k, compare.picked]
        compared.then(compare.ranks_again, again, compare.ranks, queue=False, **QUIET)

    def _wire_opening(self, page: gr.Blocks) -> None:
        """Saved examples and links: the whole page at once."""
        picture, run, compare = self.picture, self.run, self.compare
        steps = [*picture.step.outputs, *picture.use.outputs]
        form = [picture.prompt, picture.seed, run.method, run.top_k]
        outputs = [*self._fresh_outputs(), *self._found_outputs(), *steps, *form]
        everything = list(dict.fromkeys(outputs))
        shown = self.examples.list.select(
            self._example, compare.state, everything, queue=False, **QUIET
        )
        shown.then(None, self.share.link, self.share.link, js=WHOLE_LINK, **QUIET)
        shown.then(None, js="() => window.whence.reveal('step-answer')", **QUIET)
        load = [self.session, compare.state]
        linked = page.load(self._link, load, [*everything, self.go_generate], **QUIET)
        linked.then(None, self.share.link, self.share.link, js=WHOLE_LINK, **QUIET)

    def _part_inputs(self) -> list[Any]:
        """The session and the part that is chosen, with its words as the field has them now."""
        return [self.session, self.part.state, self.part.own, self.part.typed]

    def _fresh_outputs(self) -> list[Any]:
        """What a new picture changes: `_fresh`."""
        return [
            *(self.session, self.go_attribute, *self.picture.outputs, *self.run.step.outputs),
            *(self.answer.empty, self.answer.body, self.share.row),
            *(self.forget.pictures, *self.forget.step.outputs, *self.compare.outputs),
            *(*self.part.fresh_outputs, *self.rows.outputs),
        ]

    def _found_outputs(self) -> list[Any]:
        """What an answer changes: `_found`."""
        return [
            *(self.session, *self.run.step.outputs, *self.answer.outputs, *self.share.outputs),
            *self.forget.step.outputs,
        ]

    def _step(
        self,
        triggers: list[Any],
        step: Any,
        work: Any,
        inputs: list[Any],
        outputs: list[Any],
        **more: Any,
    ) -> Any:
        queued = gr.on(triggers, step.queued, outputs=step.outputs, queue=False, **QUIET)
        work = never_nothing(work, step.line)
        outputs = list(dict.fromkeys(outputs))
        done = queued.then(work, inputs, outputs, **QUIET, **MODEL, **EVERY_CLICK, **more)
        done.failure(step.lost, outputs=step.outputs, queue=False, **QUIET)
        return done

    def _generate(
        self,
        session: Session,
        comparison: Comparison,
        prompt: str,
        seed: float,
        request: gr.Request,
    ) -> Iterator[Updates]:
        unlinked = {self.session: session.unlinked()}  # the next picture is another one
        for updates, item in self.picture.generate(session, prompt, seed, request):
            if isinstance(item, Session):
                yield {**updates, **self._fresh(item, comparison)}
            else:
                yield {**updates, **unlinked} if isinstance(item, Ended) else updates

    def _take_upload(
        self,
        session: Session,
        comparison: Comparison,
        file: dict[str, Any] | None,
        prompt: str,
        request: gr.Request,
    ) -> Iterator[Updates]:
        for updates, made in self.picture.take_upload(session, file, prompt, request):
            yield updates if made is None else {**updates, **self._fresh(made, comparison)}

    def _fresh(self, session: Session, comparison: Comparison) -> Updates:
        """A new picture: the steps below start over."""
        start = {self.go_attribute: time.monotonic_ns()} if session.link else {}
        return {
            self.session: session,
            **start,
            **self.run.step.idle(ready=True),
            **self.forget.step.idle(ready=True),
            **self.answer.cleared(),
            **self.share.cleared(),
            **self.forget.cleared(),
            **self.compare.cleared(comparison),
            **self.rows.cleared(),
            **self._whole(session),
        }

    def _whole(self, session: Session) -> Updates:
        """A new picture to choose a part of."""
        return {} if session.query is None else self.part.fresh(session.query)

    def _forget(self, session: Session, parts: Parts, request: gr.Request) -> Iterator[Updates]:
        # in the prompt's words, which the picture is drawn by again
        yield from self.forget.forget(session.about(parts.regions), request)

    def _compare(
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
        yield from self.compare.compare(session, comparison, k, request)

    def _attribute(
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
        work = self.run.attribute(session, method, top_k, exhaustive, request)
        for updates, item in work:
            if isinstance(item, Attribution):
                yield {**updates, **self._found(session.answered(item, int(top_k)))}
            elif isinstance(item, Ended) and shown:
                yield {**updates, **self.answer.abandoned(before)}
            elif isinstance(item, Progress) and item.partial is not None:
                shown = True
                yield {**updates, **self.answer.partial(item.partial, int(top_k))}
            else:
                yield updates

    def _row_opened(self, lines: tuple[Line, ...], event: gr.EventData) -> str:
        """A card of a row, with that row's own figures."""
        number, record = picked(picked_id(event))
        session, whose = self.rows.asked(lines[number])
        return self.answer.records.show(session, record, whose)

    def _found(self, session: Session) -> Updates:
        return {self.session: session, **self.answer.final(session), **self.share.final(session)}

    def _example(self, comparison: Comparison, event: gr.EventData, request: gr.Request) -> Updates:
        self.jobs.drop(visitor(request))
        return self._show(self.examples.saved[picked_id(event)], comparison)

    def _show(self, example: Example, comparison: Comparison) -> Updates:
        """A saved example as if it had just been computed."""
        query, answer = example.query, example.attributions[0]
        top_k = self.engine.top_k()
        session = Session().asked(query).answered(answer, top_k)
        return {
            **self._fresh(session, comparison),
            **self.compare.saved(comparison, example, top_k),
            **self.picture.show(query),
            **self.picture.step.idle(ready=True),
            **self.picture.use.idle(ready=True),
            **self.run.step.done("A saved answer. Press Attribute to compute it anew."),
            **self._found(session),
            self.picture.prompt: query.prompt,
            self.picture.seed: query.seed,
            self.run.method: answer.method,
            self.run.top_k: top_k,
        }

    def _link(self, session: Session, comparison: Comparison, request: gr.Request) -> Updates:
        """Follow ?prompt=&seed=&method=&k=&region=&called=: from a saved example at once, else by
        making the picture again.
        """
        asked = dict(request.query_params)
        if "prompt" not in asked:
            return {self.session: session}
        try:
            prompt = validate.prompt(asked["prompt"])
            seed = validate.seed(asked.get("seed", "0"))
            known = {m["name"]: m for m in self.engine.methods()}
            (method,) = validate.methods([asked.get("method", defaults.METHOD)], known)
            top_k = self.engine.top_k(asked.get("k"))
            regions = linked(asked.get("region", ""), (self.engine.resolution,) * 2)
            called = validate.called(asked.get("called"), bool(regions))
        except (UserError, ValueError) as error:
            gr.Warning(f"The link cannot be followed: {error}.", title="Link")
            return {self.session: session}
        example = self.examples.find(prompt, seed, method)
        if example is not None and not regions:
            return self._show(example, comparison)
        return {
            self.session: Session(link=True, regions=regions, called=called),
            self.go_generate: 1,
            self.picture.prompt: prompt,
            self.picture.seed: seed,
            self.run.method: method,
            self.run.top_k: top_k,
        }


def _about(session: Session, parts: Parts, own: bool, typed: str) -> Session:
    """The session's picture, asked about the chosen part, in the words that the field shows."""
    parts = parts.word(own, typed)
    return session.about(parts.regions, parts.words)
