"""Two ways to let a model choose the part: a detector finds what words name, or the model's own
attention shows where it looked for a word of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from app.jobs import Ended, Jobs
from app.markup import block, chips, pickable, text
from app.pad import lead
from app.parts import DETECT, WORDS, Parts
from app.session import Session
from app.slider import Slider
from app.status import Step, visitor
from attribution.detection import words
from attribution.detection.attention import NAME as ATTENTION
from attribution.detection.attention import WordMaps
from attribution.detection.protocol import TEXT_THRESHOLD, THRESHOLD, Found
from attribution.engine import Engine
from attribution.types import Progress, Query, UserError

NONE_HERE = "No detector can be used here"
NOTHING = (
    "Nothing found. Lower both least scores to find more, or try other words: the detector that "
    "comes with a model knows those of its training captions."
)

Updates = dict[Any, Any]


class Detect:
    """What to look for, two thresholds, which detector; the boxes found, to be ticked."""

    def __init__(self, engine: Engine, jobs: Jobs) -> None:
        self.jobs = jobs
        listed = [entry for entry in engine.detectors() if entry["name"] != ATTENTION]
        usable = [entry for entry in listed if entry["available"]]
        chosen = next((e["name"] for e in usable if e["default"]), usable and usable[0]["name"])
        block(lead(DETECT))
        self.text = gr.Textbox(
            label="What to look for",
            info="Names, parted by dots. As a start, the nouns of the prompt.",
            lines=1,
            max_lines=3,
            max_length=1000,
            elem_id="detect-text",
        )
        with gr.Row(equal_height=True):
            self.threshold = _slider("Least score of a box", THRESHOLD, "detect-threshold")
            self.text_threshold = _slider(
                "Least score of its name", TEXT_THRESHOLD, "detect-text-threshold"
            )
        self.detector = gr.Dropdown(
            choices=[(entry["title"], entry["name"]) for entry in usable],
            value=chosen or None,
            label="Detector",
            info=_unusable(listed),
            elem_id="detector",
            interactive=bool(usable),
        )
        self.step = Step("detect", "Detect", jobs, ready=False)
        self.list = pickable(elem_id="found")
        self.found = gr.State(None)  # what is found, until it has joined what is chosen then
        self.inputs = [self.text, self.threshold, self.text_threshold, self.detector]
        self.fresh_outputs = [self.text, self.found, *self.step.outputs]

    def find(
        self,
        session: Session,
        wanted: str,
        threshold: float,
        text_threshold: float,
        detector: str | None,
        request: gr.Request,
    ) -> Iterator[Updates]:
        """Updates for each step of the work, at last with what was found."""

        def work() -> Iterator[Progress | Found]:
            if session.query is None:
                raise UserError("make a picture first")
            if not detector:
                raise UserError(NONE_HERE)
            words.phrases(wanted)  # none is refused: the field, not the prompt, says what is sought
            yield from self.jobs.detect(session.query, wanted, threshold, text_threshold, detector)

        for item in self.jobs.follow(visitor(request), self.step.name, work):
            if isinstance(item, Ended):
                yield self.step.ended(item)
            elif isinstance(item, Progress):
                yield self.step.progress(item)
            else:
                yield {**self.step.done(_counted(item)), self.found: item.detections}

    def fresh(self, query: Query) -> Updates:
        """Another picture: look for what its prompt names."""
        return {
            self.text: words.as_prompt(words.nouns(query.prompt)),
            self.found: None,
            **self.step.idle(ready=True),
        }


class Words:
    """Words of the prompt to click on, and how much of a word's heat counts."""

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        block(lead(WORDS))
        self.list = pickable(elem_id="words")
        self.keep = Slider(
            0.1,
            0.9,
            value=Parts.keep,
            step=0.05,
            label="How hot counts, as a share of the hottest",
            elem_id="words-keep",
        )
        self.step = Step("words", "Look for the words", jobs, ready=False)
        self.go = gr.State(0)  # a change of it starts the work without a click on the button
        self.found = gr.State(None)  # the maps, until they have joined what is chosen then
        self.fresh_outputs = [self.keep, self.found, *self.step.outputs]

    def look(self, session: Session, parts: Parts, request: gr.Request) -> Iterator[Updates]:
        """Updates for each step of the work, at last with the maps; they are made once a picture,
        however many words were clicked meanwhile."""

        def work() -> Iterator[Progress | WordMaps]:
            if session.query is None:
                raise UserError("make a picture first")
            if parts.maps is not None:
                yield parts.maps
            else:
                yield from self.jobs.word_maps(session.query)

        for item in self.jobs.follow(visitor(request), self.step.name, work):
            if isinstance(item, Ended):
                yield self.step.ended(item)
            elif isinstance(item, Progress):
                yield self.step.progress(item)
            else:
                yield {**self.step.done("Done. Any word can be chosen."), self.found: item}

    def fresh(self) -> Updates:
        """Another picture has other words."""
        return {self.keep: Parts.keep, self.found: None, **self.step.idle(ready=True)}


def found_list(parts: Parts) -> str:
    """What was found, best first; a click ticks and unticks."""
    if parts.found is None:
        return ""
    if not parts.found:
        return f'<p class="w-empty">{text(NOTHING)}</p>'
    items = "".join(
        f'<li><button type="button" class="w-chip" data-id="{i}" '
        f'aria-pressed="{"true" if i in parts.ticked else "false"}">'
        f"{i + 1} {text(one.label)} <small>{one.score:.2f}</small></button></li>"
        for i, one in enumerate(parts.found)
    )
    return f'<div class="w-chips"><p>Tick what counts</p><ul>{items}</ul></div>'


def word_list(parts: Parts) -> str:
    """The prompt's phrases, then its words."""
    names = dict.fromkeys((*words.nouns(parts.prompt), *words.words_of(parts.prompt)))
    listed = chips(((name, name) for name in names), "Words of the prompt")
    chosen = f'data-id="{text(parts.said)}"'
    return listed.replace(chosen, f'{chosen} aria-pressed="true"') if parts.said else listed


def _slider(label: str, value: float, elem_id: str) -> Slider:
    return Slider(0.0, 1.0, value=value, step=0.05, label=label, elem_id=elem_id, min_width=180)


def _unusable(listed: list[dict[str, Any]]) -> str:
    """Which detectors are missing; why they are stands in the documentation."""
    missing = [entry["title"] for entry in listed if not entry["available"]]
    return f"Not at hand here: {'; '.join(missing)}. See docs/detection.md." if missing else ""


def _counted(found: Found) -> str:
    many = len(found.detections)
    said = "Nothing found." if not many else f"Found {many} {'box' if many == 1 else 'boxes'}."
    if found.rather:
        said += f" To the detector it looks more like {' or '.join(map(quoted, found.rather))}."
    return said


def quoted(name: str) -> str:
    return f"“{name}”"
