"""Prove it: take out what a method found, train again before your eyes, look again.

Its own small world, which trains in minutes; the page's picture above plays no part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from app.jobs import Ended, Jobs, sentence
from app.markup import AT_ONCE, block, chips, data_uri, pickable, picked_id, text, with_code
from app.panels.proof_view import begun_html, curves_html, proof_html
from app.panels.run import choices
from app.proving import Begun, Proving
from app.status import Step, visitor
from app.trainings import STAGE, Curves
from attribution import catalogue, defaults, validate
from attribution.engine import Engine
from attribution.methods import needs
from attribution.methods.registry import METHODS
from attribution.proofs import Proof
from attribution.types import Progress

# Trainings are no business of the page's model: they wait for one another only.
TRAINING: dict[str, Any] = {"concurrency_id": "proof", "concurrency_limit": 1}
MOST, FIRST = 100, 10
WORLD = "proof"
OWN = "whence-proofs"  # where a browser keeps the names of its visitor's proofs
TO_TAKE_OUT = "Pictures to take out"
LEAD = (
    "A method says: these training pictures made this picture what it is. So take them out, train "
    "the model again from nothing, and draw the same picture from the same noise. If they "
    "mattered, the model is worse at it, and may draw another one; beside it stands a model that "
    "missed as many pictures at random. A separate, small model trains here, on {n} drawings of "
    "{px} px; the picture in step 1 plays no part. It takes three to five minutes on four cores."
)
ABSENT = "Not here, for the index of this small world is kept small"
K_INFO = "Ten train one model, another number two: the other one misses as many at random."
WAITING = (
    "Waiting for another proof",
    "One is trained at a time, for some minutes; yours begins after it.",
)
SHORT = 40  # characters of a prompt in a status line
EMPTY = '<p class="w-empty w-await">The picture before and after appears here.</p>'
EXAMPLES = "Finished proofs, yours too, open at once"


class Prove:
    """Saved proofs; prompt, seed, method and K; the training and what it proved."""

    def __init__(self, engine: Engine) -> None:
        self.proving = Proving(Path(engine.index.path).parent / WORLD)
        self.jobs = Jobs(engine)  # its own tickets: another picture above ends no training
        if self.proving.missing:
            block(f'<p class="w-empty">{with_code(sentence(self.proving.missing))}</p>')
            return
        index = self.proving.index
        px = index.image(int(index.train_rows[0])).width
        lead = LEAD.format(n=f"{len(index.train_rows):,}", px=px)
        block(f'<p class="w-lead">{lead}</p>')
        self.own = gr.BrowserState([], storage_key=OWN)  # slugs; they outlive a reload
        self.saved = self.proving.saved()
        self.titles = {method.name: method.title for method in METHODS.values()}
        listed = proofs_html(self.saved, self.titles)
        self.list = pickable(listed, elem_id="proofs", visible=bool(self.saved))
        self._form()
        self.step = Step("prove", "Prove it", self.jobs, waiting=WAITING)
        self.begun = block("", elem_id="proof-begun")  # what is trained now; below, the last proof
        self.curve = block("", elem_id="proof-curve")
        self.result = block(EMPTY, elem_id="proof")
        self._wire()

    def _form(self) -> None:
        methods = self._methods()
        ideas = catalogue.prompts(self.proving.index, 4, seed=1)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                self.prompt = gr.Textbox(
                    label="Prompt",
                    value=ideas[0],
                    max_length=validate.MAX_PROMPT,
                    elem_id="prove-prompt",
                )
                words = chips(((idea, idea) for idea in ideas), "Or one of these")
                self.ideas = pickable(words, elem_id="prove-ideas")
            with gr.Column(scale=2, min_width=280):
                self.method = gr.Dropdown(
                    choices=choices(methods),
                    value=defaults.METHOD,
                    label="Method",
                    info=absent(methods),
                    elem_id="prove-method",
                )
                most = min(MOST, len(self.proving.index.train_rows) - 1)
                self.k = gr.Slider(
                    1,
                    most,
                    value=min(FIRST, most),
                    step=1,
                    label=TO_TAKE_OUT,
                    info=K_INFO,
                    elem_id="prove-k",
                )
                self.seed = gr.Number(
                    label="Seed",
                    value=7,
                    precision=0,
                    elem_id="prove-seed",
                )

    def _methods(self) -> list[dict[str, Any]]:
        """Every method, and whether the proof world can serve it; not the control, which is always
        there."""
        index = self.proving.index
        found = []
        for m in METHODS.values():
            if m.kind != "control":
                able = not needs.why_not(index, m.needs)
                found.append({"name": m.name, "kind": m.kind, "title": m.title, "available": able})
        return found

    def _wire(self) -> None:
        asked = [self.prompt, self.seed, self.method, self.k]
        shown = [self.begun, self.curve, self.result, self.own]
        self.step.does(self.prove, [*asked, self.own], shown, turns=TRAINING)
        # when one is made, and when the page opens in a browser that kept some
        self.own.change(self._listed, self.own, self.list, **AT_ONCE)
        self.ideas.select(_idea, outputs=self.prompt, **AT_ONCE)
        opened = self.list.select(self._open, self.own, [*asked, self.result], **AT_ONCE)
        opened.then(None, js="() => window.whence.reveal('proof')", **AT_ONCE)

    def prove(
        self, prompt: str, seed: float, method: str, k: float, own: Any, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """Updates for each step of the work. The last proof, or one that was opened meanwhile,
        stands there until the new one does."""

        def work() -> Iterator[Progress | Begun | Curves | Proof]:
            most = len(self.proving.index.train_rows) - 1
            asked = validate.prompt(prompt), validate.seed(seed)
            yield from self.proving.prove(*asked, method, validate.top_k(k, most, TO_TAKE_OUT))

        name, index = self.titles.get(method, method), self.proving.index
        over: dict[Any, Any] = {self.begun: "", self.curve: ""}
        for item in self.jobs.follow(visitor(request), self.step.name, work):
            if isinstance(item, Ended):
                yield {**self.step.ended(item), **over}
            elif isinstance(item, Progress):
                yield self.step.progress(self._named(item, prompt, name, k))
            elif isinstance(item, Curves):
                yield {self.curve: curves_html(item, name)}
            elif isinstance(item, Begun):
                yield {self.begun: begun_html(item, self.titles, index)}
            else:
                yield {
                    **self.step.done(done(item)),
                    **over,
                    self.result: proof_html(item, self.titles, index),
                    self.own: [*self.proving.remembered(own), self.proving.remember(item)],
                }

    @staticmethod
    def _named(item: Progress, prompt: str, name: str, k: float) -> Progress:
        """Which of the proofs on the page is being trained."""
        if item.stage != STAGE:
            return item
        words = prompt if len(prompt) <= SHORT else f"{prompt[: SHORT - 1].rstrip()}…"
        return replace(item, stage=f"train without the {int(k)} that {name} found: “{words}”")

    def _proofs(self, own: Any) -> dict[str, Proof]:
        """The saved proofs, then the visitor's; own: what the browser kept."""
        return {**self.saved, **self.proving.remembered(own)}

    def _listed(self, own: Any) -> dict[str, Any]:
        proofs = self._proofs(own)
        return gr.update(value=proofs_html(proofs, self.titles), visible=bool(proofs))

    def _open(self, own: Any, event: gr.EventData) -> dict[Any, Any]:
        """A finished proof, as if it had just been made."""
        proof = self._proofs(own).get(picked_id(event))
        if proof is None:
            gr.Warning("This proof is gone: the page was started anew since.", title="Prove")
            return {self.result: gr.skip()}
        return {
            self.prompt: proof.query.prompt,
            self.seed: proof.query.seed,
            self.method: proof.method,
            self.k: proof.k,
            self.result: proof_html(proof, self.titles, self.proving.index),
        }


def proofs_html(saved: dict[str, Proof], titles: dict[str, str]) -> str:
    """One button a proof: its picture before and after, prompt, method and K."""
    items = "".join(
        f'<li><button type="button" class="w-example" data-id="{text(slug)}">'
        f'<img src="{data_uri(p.query.image)}" alt=""><img src="{data_uri(p.found.image)}" alt="">'
        f"<span><span>{text(p.query.prompt)}</span>"
        f"<small>{text(titles.get(p.method, p.method))}: {p.k} taken out</small></span>"
        "</button></li>"
        for slug, p in saved.items()
    )
    return f'<p class="w-examples-lead">{EXAMPLES}.</p><ul class="w-examples">{items}</ul>'


def absent(methods: Iterable[dict[str, Any]]) -> str:
    """Which methods are not among the choices, and why; nothing where all are."""
    titles = [m["title"] for m in methods if not m["available"]]
    return f"{ABSENT}: {'; '.join(titles)}." if titles else ""


def done(proof: Proof) -> str:
    """One line: what was trained, and for how long; a control that was there took no time."""
    seconds = max(proof.found.seconds, proof.control.seconds)
    if not proof.control.seconds:
        return (
            f"Done: trained without {proof.k} in {seconds:.0f} s. The model without {proof.k} at "
            "random was there already."
        )
    return f"Done: trained without {proof.k}, and without {proof.k} at random, in {seconds:.0f} s."


def _idea(event: gr.EventData) -> str:
    return picked_id(event)
