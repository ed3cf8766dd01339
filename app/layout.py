"""What the page shows, from top to bottom."""

from __future__ import annotations

import gradio as gr

from app.jobs import Jobs
from app.markup import block, heading
from app.panels.answer import Answer
from app.panels.compare import Compare
from app.panels.examples import Examples
from app.panels.forget import Forget
from app.panels.guess import Guess
from app.panels.header import header
from app.panels.learn import Learn
from app.panels.picture import Picture
from app.panels.prove import OWN, Prove
from app.panels.region import Part
from app.panels.rows import Rows
from app.panels.run import Run
from app.panels.share import Share
from app.session import Session
from attribution.engine import Engine


class Panels:
    """The panels from top to bottom, and what the page knows of a visitor."""

    def __init__(self, engine: Engine, jobs: Jobs) -> None:
        self.engine, self.jobs = engine, jobs
        self.session = gr.State(Session())
        # A change of these starts a step without a click: a followed link makes its picture, then
        # its answer.
        self.go_generate = gr.State(0)
        self.go_attribute = gr.State(0)
        # Not in its tab, which is built when it is opened: read as soon as the page is there.
        self.own_proofs = gr.BrowserState([], storage_key=OWN)
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
                self.prove = Prove(engine, self.own_proofs)
            with gr.Tab("Learn", id="learn"):
                Learn(engine)
