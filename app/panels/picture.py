"""Step 1: the picture. Generate it from a prompt and a seed, or upload one with a prompt."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.jobs import MODEL, Ended, Jobs
from app.markup import AT_ONCE, QUIET, block, chips, heading, pickable, picked_id, text
from app.session import Session
from app.status import Step, visitor
from attribution import validate
from attribution.engine import Engine
from attribution.types import Progress, Query, UserError

EMPTY = "No picture yet. Type a prompt and press Generate, or start from an example above."
NO_TRUTH = (
    "This model did not make this picture, so there is no true answer to compare with. The result "
    "says which training pictures the model would lean on for it, not where the picture came from."
)


class Picture:
    """Prompt, seed and Generate beside the picture; the second tab takes an upload."""

    def __init__(self, engine: Engine, jobs: Jobs) -> None:
        self.engine = engine
        self.jobs = jobs
        block(heading(1, "Make a picture"))
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=300), gr.Tabs(elem_id="picture-tabs") as self.tabs:
                with gr.Tab("Generate", id="generate"):
                    self._generate_tab()
                with gr.Tab("Upload", id="upload"):
                    self._upload_tab()
            with gr.Column(scale=4, min_width=260):
                self.image = gr.Image(
                    label="Your picture",
                    interactive=False,
                    format="png",
                    type="pil",
                    buttons=["download"],
                    elem_id="picture",
                    alt_text="The picture to be explained",
                )
                self.caption = block(caption(None), elem_id="picture-caption")

    def _generate_tab(self) -> None:
        self.prompt = gr.Textbox(
            label="Prompt",
            lines=2,
            max_lines=4,
            max_length=validate.MAX_PROMPT,
            placeholder="What should the picture show? The model knows the words of its training "
            "captions.",
            elem_id="prompt",
        )
        self.ideas = pickable(_ideas(self.engine), elem_id="ideas")
        with gr.Row(elem_classes="w-seed"):
            self.seed = gr.Number(
                label="Seed",
                info="The same prompt and seed give the same picture.",
                value=7,
                # no limits and no precision: gradio would end the click without a word, or round
                elem_id="seed",
                min_width=140,
            )
            self.new_seed = gr.Button("New seed", min_width=100, scale=0, elem_id="new-seed")
        self.step = Step("generate", "Generate", self.jobs)
        self.ideas.select(_idea, outputs=self.prompt, **AT_ONCE)
        self.new_seed.click(_new_seed, outputs=self.seed, **AT_ONCE)

    def _upload_tab(self) -> None:
        self.upload = gr.Image(
            label="Picture from your computer",
            type="filepath",
            image_mode=None,
            sources=["upload", "clipboard"],
            height=220,
            buttons=[],
            elem_id="upload",
        )
        self.upload_prompt = gr.Textbox(
            label="Prompt",
            info="What the picture shows, in words like those of the training captions.",
            lines=2,
            max_length=validate.MAX_PROMPT,
            elem_id="upload-prompt",
        )
        self.nearest = pickable("", elem_id="nearest")
        self.use = Step("use", "Use this picture", self.jobs)
        self.upload.upload(
            self._suggest, self.upload, self.nearest, preprocess=False, **QUIET, **MODEL
        )
        self.nearest.select(_idea, outputs=self.upload_prompt, **AT_ONCE)

    @property
    def outputs(self) -> list[Any]:
        """What a new picture changes in this panel."""
        return [self.image, self.caption]

    def generate(
        self, session: Session, prompt: str, seed: float | None, request: gr.Request
    ) -> Iterator[tuple[dict[Any, Any], Session | Ended | None]]:
        """(updates, the session when there is a new picture, or how it ended without one) for each
        step of the sampling.
        """

        def work() -> Iterator[Progress | Query]:
            checked = validate.prompt(prompt), validate.seed(seed)
            yield from self.jobs.generate(*checked)

        for item in self.jobs.follow(visitor(request), self.step.name, work):
            if isinstance(item, Ended):
                yield self.step.ended(item), item
            elif isinstance(item, Progress):
                yield self.step.progress(item), None
            else:
                yield {**self.step.done("Done."), **self.show(item)}, session.asked(item)

    def take_upload(
        self, session: Session, file: dict[str, Any] | None, prompt: str, request: gr.Request
    ) -> Iterator[tuple[dict[Any, Any], Session | None]]:
        """The uploaded file and its prompt as the picture."""

        def work() -> Iterator[Query]:
            if not file:
                raise UserError("choose a picture first")
            yield self.engine.upload(file["path"], prompt)

        for item in self.jobs.follow(visitor(request), self.use.name, work):
            if isinstance(item, Ended):
                yield self.use.ended(item), None
            elif isinstance(item, Query):
                yield {**self.use.done("Taken."), **self.show(item)}, session.asked(item)

    def show(self, query: Query) -> dict[Any, Any]:
        """The picture and its caption."""
        alt = f"Your picture: {query.prompt}"
        return {
            self.image: gr.update(value=query.image, alt_text=alt),
            self.caption: caption(query),
        }

    def _suggest(self, file: dict[str, Any] | None) -> str:
        """The captions nearest to an upload; what cannot be read is refused later, with why."""
        if not file:
            return ""
        try:
            image = self.engine.upload(file["path"], "suggestion").image
            nearest = self.jobs.suggest_captions(image)
        except UserError:
            return ""
        return chips(((words, words) for words in nearest), "Nearest training captions")


def caption(query: Query | None) -> str:
    """How the picture was made, or the warning that nobody knows."""
    if query is None:
        return f'<p class="w-empty">{text(EMPTY)}</p>'
    if query.seed is None:
        return f'<p class="w-note w-warning"><strong>No ground truth.</strong> {text(NO_TRUTH)}</p>'
    made = [f"seed {query.seed}", f"{query.image.width} × {query.image.height} px"]
    if query.steps:
        made.insert(1, f"{query.steps} steps")
    if query.guidance:
        made.insert(2, f"guidance scale {query.guidance:g}")
    return f'<p class="w-caption">“{text(query.prompt)}”<br>{text(" · ".join(made))}</p>'


def _ideas(engine: Engine) -> str:
    return chips(((words, words) for words in engine.suggest_prompts(5)), "Try one of these")


def _idea(event: gr.EventData) -> str:
    return picked_id(event)


def _new_seed() -> int:
    return random.SystemRandom().randrange(10_000)
