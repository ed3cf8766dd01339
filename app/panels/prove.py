"""Prove it: take out what a method found, train again before your eyes, look again.

Its own small world, which trains in minutes; the page's picture above plays no part. The training
goes on when the page is closed, and the same browser finds it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from app.jobs import Ended, Jobs, sentence
from app.markup import AT_ONCE, QUIET, block, chips, data_uri, pickable, picked_id, text, with_code
from app.panels.proof_view import begun_html, curves_html, proof_html
from app.panels.run import choices
from app.proving import NOT_YET, Begun, Going, Proving, Shown
from app.slider import Slider
from app.status import Step, never_nothing, visitor
from app.trainings import STAGE, Curves
from attribution import catalogue, defaults, validate
from attribution.engine import Engine
from attribution.methods import needs
from attribution.methods.registry import METHODS
from attribution.proofs import Proof
from attribution.types import Progress

# Trainings are no business of the page's model. They take turns among themselves (app/turns.py);
# this is how many visitors at a time may watch theirs, or wait.
WATCHING: dict[str, Any] = {"concurrency_id": "proof", "concurrency_limit": 16}
MOST, FIRST = 100, 10
WORLD = "proof"
OWN = "whence-proofs"  # where a browser keeps the names of its visitor's proofs
TO_TAKE_OUT = "Pictures to take out"
LEAD = (
    "A method says: these training pictures made this picture what it is. So take them out, train "
    "the model again from nothing, and draw the same picture from the same noise. If they "
    "mattered, the model is worse at it, and may draw another one; beside it stands a model that "
    "missed as many pictures at random. A separate, small model trains here, on {n} drawings of "
    "{px} px; the picture in step 1 plays no part. It takes three to seven minutes on four cores; "
    "should you leave meanwhile, it goes on, and this browser shows it when you are back."
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
    """Saved proofs; prompt, seed, method and K; the training and what it proved. own: the names of
    the visitor's proofs, which outlive a reload."""

    def __init__(self, engine: Engine, own: gr.BrowserState) -> None:
        self.own = own
        self.proving = Proving(Path(engine.index.path).parent / WORLD)
        self.jobs = Jobs(engine)  # its own tickets: another picture above ends no training
        if self.proving.missing:
            block(f'<p class="w-empty">{with_code(sentence(self.proving.missing))}</p>')
            return
        index = self.proving.index
        px = index.image(int(index.train_rows[0])).width
        lead = LEAD.format(n=f"{len(index.train_rows):,}", px=px)
        block(f'<p class="w-lead">{lead}</p>')
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
                self.k = Slider(
                    1,
                    most,
                    value=min(FIRST, most),
                    step=1,
                    label=TO_TAKE_OUT,
                    info=K_INFO,
                    elem_id="prove-k",
                )
                self.seed = gr.Number(label="Seed", value=7, elem_id="prove-seed")

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
        shown = [self.begun, self.curve, self.result, self.own, self.list]
        self._outputs = [*self.step.outputs, *asked, *shown]
        self.step.does(self.prove, [*asked, self.own], shown, turns=WATCHING)
        # when one is made, and when the page opens in a browser that kept some
        self.own.change(self._listed, self.own, self.list, **AT_ONCE)
        self.ideas.select(_idea, outputs=self.prompt, **AT_ONCE)
        opened = self.list.select(self._open, self.own, [*asked, self.result], **AT_ONCE)
        opened.then(None, js="() => window.whence.reveal('proof')", **AT_ONCE)

    def prove(
        self, prompt: str, seed: float, method: str, k: float, own: Any, request: gr.Request
    ) -> Iterator[dict[Any, Any]]:
        """A new proof, from its turn to its end. The last one, or one that was opened meanwhile,
        stands there until the new one does."""
        who = visitor(request)

        def begin() -> Going:
            asked = validate.prompt(prompt), validate.seed(seed)
            many = validate.top_k(k, int(self.k.maximum), TO_TAKE_OUT)
            return self.proving.begin(who, *asked, method, many)

        yield from self._watch(begin, who, own)

    def resume(self, own: Any, request: gr.Request) -> Iterator[dict[Any, Any]]:
        """The page has opened in a browser that began a proof before: watch it to its end."""
        if found := self.proving.going(own):
            yield self._form_of(*found[-1].asked)
            yield from self._watch(lambda: found[-1], visitor(request), own)

    def on_load(self, page: gr.Blocks) -> None:
        """What happens when `page`, which this is a part of, opens."""
        if not self.proving.missing:
            resume = never_nothing(self.resume, self.step.line)
            page.load(resume, self.own, self._outputs, **QUIET, **WATCHING)

    def _watch(self, begin: Callable[[], Going], who: str, own: Any) -> Iterator[dict[Any, Any]]:
        """Updates for each step of the work. Only Stop ends it; whoever leaves does not."""
        going: Going | None = None

        def work() -> Iterator[Going | Shown]:
            yield (begun := begin())
            yield from begun.work.follow()

        for item in self.jobs.follow(who, self.step.name, work):
            if isinstance(item, Going):
                going = item
                yield {self.own: self._names(own, going)}
            elif isinstance(item, Ended):
                if going:
                    going.work.end()
                yield {**self.step.ended(item), self.begun: "", self.curve: ""}
            else:
                yield self._seen(item, going, own)

    def _seen(self, item: Shown, going: Going, own: Any) -> dict[Any, Any]:
        """What one step of a proof changes."""
        prompt, _, method, k = going.asked
        name, index = self.titles.get(method, method), self.proving.index
        if item is NOT_YET:
            return self.step.waits()
        if isinstance(item, Progress):
            return self.step.progress(_named(item, prompt, name, k))
        if isinstance(item, Curves):
            return {self.curve: curves_html(item, name)}
        if isinstance(item, Begun):
            return {self.begun: begun_html(item, self.titles, index)}
        return {
            **self.step.done(done(item)),
            **{self.begun: "", self.curve: ""},
            self.result: proof_html(item, self.titles, index),
            self.list: self._listed(self._names(own, going)),
        }

    def _names(self, own: Any, going: Going) -> list[str]:
        """What the browser keeps: its proofs that are still there, and those to come."""
        known = [*self.proving.remembered(own), *(one.slug for one in self.proving.going(own))]
        return [*(slug for slug in known if slug != going.slug), going.slug]

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
            **self._form_of(proof.query.prompt, proof.query.seed, proof.method, proof.k),
            self.result: proof_html(proof, self.titles, self.proving.index),
        }

    def _form_of(self, prompt: str, seed: int, method: str, k: int) -> dict[Any, Any]:
        """What was asked, in its fields."""
        return {self.prompt: prompt, self.seed: seed, self.method: method, self.k: k}


def _named(item: Progress, prompt: str, name: str, k: int) -> Progress:
    """Which of the proofs on the page is being trained."""
    if item.stage != STAGE:
        return item
    words = prompt if len(prompt) <= SHORT else f"{prompt[: SHORT - 1].rstrip()}…"
    return replace(item, stage=f"train without the {k} that {name} found: “{words}”")


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
