"""Step 2: which part of the picture: all of it, boxes by taps, drags or numbers, or a brush."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app.jobs import Jobs
from app.markup import AT_ONCE, QUIET, block, heading, pickable, picked_id
from app.pad import box_list, lead, line, marks, photo
from app.panels.detect import Detect, Words, found_list, word_list
from app.parts import BOXES, BRUSH, DETECT, WHOLE, WORDS, Parts, Point, Stroke, marks_of
from app.slider import Slider
from app.status import ANNOUNCE
from attribution import validate
from attribution.engine import Engine
from attribution.types import Query, UserError

DRAW = (Path(__file__).parents[1] / "static" / "draw.js").read_text(encoding="utf-8")
BRUSH_WIDTH = 10
OWN = (
    "Where it was named, or you type what it shows. Else the whole prompt goes with it, and the "
    "other things of the prompt answer, too."
)
EXAMPLE = "for example: a stop sign"
NO_PICTURE = '<p class="w-empty">Make a picture first: then a part of it can be chosen here.</p>'


class Part:
    """Tabs with the ways to choose, beside the picture to draw on. `state` holds the choice."""

    def __init__(self, engine: Engine, jobs: Jobs, session: gr.State) -> None:
        self.state, self.session = gr.State(Parts()), session
        block(heading(2, "Choose a part of it"))
        with gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=300):
                with gr.Tabs(elem_id="region-tabs", selected=WHOLE) as self.tabs:
                    with gr.Tab("Whole", id=WHOLE) as whole:
                        block(lead(WHOLE))
                    with gr.Tab("Box", id=BOXES) as boxes:
                        self._boxes_tab()
                    with gr.Tab("Brush", id=BRUSH) as brush:
                        self._brush_tab()
                    with gr.Tab("Detect", id=DETECT) as detect:
                        self.detect = Detect(engine, jobs)
                    with gr.Tab("Words", id=WORDS) as words:
                        self.words = Words(jobs)
                self.line = block(elem_id="region-line", js_on_load=ANNOUNCE)
                self._words_row()
            with gr.Column(scale=4, min_width=260):
                self.pad = block(
                    NO_PICTURE,
                    html_template='<div class="w-pad" style="--w-aspect: ${aspect}">'
                    "${photo}${value}</div>",
                    js_on_load=DRAW,
                    photo="",
                    aspect=1,
                    elem_id="pad",
                )
        lists = [self.list, self.detect.list, self.words.list]
        drawn = [self.state, self.line, self.pad, *lists, *self.numbers, *self.buttons]
        self.outputs = [*drawn, self.naming, self.typed]
        tabs = {WHOLE: whole, BOXES: boxes, BRUSH: brush, DETECT: detect, WORDS: words}
        self._listen(tabs)
        self._ask()

    def _words_row(self) -> None:
        """What the part goes by when it is asked about."""
        with gr.Row(visible=False, elem_id="own-words", equal_height=True) as self.naming:
            self.own = gr.Checkbox(
                True, label="Ask in words of its own", info=OWN, elem_id="own", min_width=200
            )
            self.typed = gr.Textbox(
                label="What the part shows",
                lines=1,
                max_lines=2,
                max_length=validate.MAX_PROMPT,
                elem_id="own-text",
                min_width=200,
            )

    def _boxes_tab(self) -> None:
        block(lead(BOXES))
        self.list = pickable(elem_id="boxes")
        with gr.Row(elem_classes="w-corners"):
            self.numbers = [
                gr.Number(
                    label=name,
                    precision=1,
                    step=1,
                    min_width=70,
                    interactive=False,
                    elem_id=f"box-{name.lower()}",
                )
                for name in map(str.capitalize, validate.SIDES)
            ]
        with gr.Row(elem_classes="w-buttons"):
            self.add = gr.Button("Add a box", min_width=110, elem_id="box-add", interactive=False)
            self.remove = gr.Button(
                "Remove this box", min_width=130, elem_id="box-remove", interactive=False
            )
            self.clear_boxes = gr.Button(
                "Clear", min_width=90, elem_id="boxes-clear", interactive=False
            )

    def _brush_tab(self) -> None:
        block(lead(BRUSH))
        with gr.Row(equal_height=True):
            self.width = Slider(
                2,
                50,
                value=BRUSH_WIDTH,
                step=1,
                label="Width of the brush, % of the picture",
                elem_id="brush-width",
                min_width=200,
            )
            self.erase = gr.Checkbox(label="Erase instead", elem_id="brush-erase", min_width=140)
        with gr.Row(elem_classes="w-buttons"):
            self.undo = gr.Button(
                "Undo the last stroke", min_width=150, elem_id="brush-undo", interactive=False
            )
            self.clear_brush = gr.Button(
                "Clear", min_width=90, elem_id="brush-clear", interactive=False
            )

    @property
    def buttons(self) -> list[gr.Button]:
        """What can be pressed only when there is something to press it for."""
        return [self.add, self.remove, self.clear_boxes, self.undo, self.clear_brush]

    def _listen(self, tabs: dict[str, gr.Tab]) -> None:
        for name, tab in tabs.items():
            tab.select(partial(self._on, name), self.state, self.outputs, **AT_ONCE)
        self.pad.select(self._drawn, self.state, self.outputs, **AT_ONCE)
        self.list.select(self._chosen, self.state, self.outputs, **AT_ONCE)
        for number in self.numbers:
            moved = [number.submit, number.blur]
            gr.on(moved, self._edited, [self.state, *self.numbers], self.outputs, **AT_ONCE)
        changes: dict[gr.Button, Callable[[Parts], Parts]] = {
            self.add: Parts.add_first,
            self.remove: Parts.remove,
            self.clear_boxes: Parts.clear,
            self.undo: Parts.undo,
            self.clear_brush: Parts.clear,
        }
        for button, change in changes.items():
            button.click(partial(self._changed, change), self.state, self.outputs, **AT_ONCE)
        brush = [self.state, self.width, self.erase]
        self.width.moves(self._brush, brush, self.outputs)
        self.erase.input(self._brush, brush, self.outputs, **AT_ONCE)
        words, shown = [self.state, self.own, self.typed], [self.state, self.line]
        self.own.input(self._worded, words, shown, **AT_ONCE)
        self.own.input(lambda own: gr.update(interactive=own), self.own, self.typed, **AT_ONCE)
        # not `input`, which what is pasted does not set off
        self.typed.change(self._worded, words, shown, trigger_mode="always_last", **AT_ONCE)

    def _ask(self) -> None:
        """What the model is asked for waits for its turn on it."""
        detect, words, asked = self.detect, self.words, [self.session, self.state]
        form = [self.session, *detect.inputs]
        ticked = detect.list.select
        ticked(self._ticked, self.state, self.outputs, **AT_ONCE)
        # queued: a state's change is only told to the page by events of the queue
        words.list.select(self._said, self.state, [*self.outputs, words.go], **QUIET)
        words.keep.moves(self._hotter, [self.state, words.keep], self.outputs)
        for panel, work, inputs, also, join in (
            (detect, detect.find, form, [], Parts.detected),
            (words, words.look, asked, [words.go.change], Parts.looked),
        ):
            found = panel.found
            done = panel.step.does(work, inputs, [found], also=also)
            # what was chosen while the model was at work stays: what it found joins it afterwards
            joined = partial(self._joined, found, join)
            done.then(joined, [self.state, found], [*self.outputs, found], **AT_ONCE)

    # -------------------------------------------------------------------------------------- events

    def _joined(
        self, state: gr.State, join: Callable[[Parts, Any], Parts], parts: Parts, found: Any
    ) -> dict[Any, Any]:
        """What the model found, with what is chosen now; nothing where another picture came."""
        if found is None:
            return self._same()
        return {**self._shown(join(parts, found)), state: None}

    def _same(self) -> dict[Any, Any]:
        """Nothing changes, not even back to what was there when the event began."""
        return {self.line: gr.skip()}

    def _ticked(self, parts: Parts, event: gr.EventData) -> dict[Any, Any]:
        return self._changed(lambda now: now.tick(int(picked_id(event))), parts)

    def _said(self, parts: Parts, event: gr.EventData) -> dict[Any, Any]:
        """A word's region at once where the maps are at hand, else the model is asked for them."""
        start = {} if parts.maps is not None else {self.words.go: time.monotonic_ns()}
        return {**self._shown(parts.say(picked_id(event))), **start}

    def _hotter(self, parts: Parts, keep: float) -> dict[Any, Any]:
        hotter = parts.hotter(keep)
        return self._shown(hotter) if hotter.keep != parts.keep else self._same()

    def _on(self, tab: str, parts: Parts) -> dict[Any, Any]:
        # a new picture opens a tab by itself: that must not undo a choice made meanwhile
        return self._shown(parts.on(tab)) if tab != parts.tab else self._same()

    def _drawn(self, parts: Parts, event: gr.EventData) -> dict[Any, Any]:
        """Boxes and strokes from the pad, in the order they were drawn."""
        try:
            for mark in marks_of(picked_id(event)):
                parts = _marked(parts, mark)
        except UserError as error:
            return self._shown(parts.on(parts.tab), str(error))
        return self._shown(parts)

    def _chosen(self, parts: Parts, event: gr.EventData) -> dict[Any, Any]:
        return self._shown(parts.choose(int(picked_id(event))))

    def _edited(self, parts: Parts, *corners: float | None) -> dict[Any, Any]:
        """Numbers that were typed, when the field is left or Enter pressed. Fields that are taken
        as they stand are not written to: the next may be typed in already."""
        if parts.box is None or corners == parts.box.box:
            return self._same()
        shown = self._changed(lambda now: now.edit(corners), parts)
        box = shown[self.state].box
        if box is not None and box.box == corners:
            return {output: value for output, value in shown.items() if output not in self.numbers}
        return shown

    def _changed(self, change: Callable[[Parts], Parts], parts: Parts) -> dict[Any, Any]:
        try:
            return self._shown(change(parts))
        except UserError as error:
            return self._shown(parts.on(parts.tab), str(error))

    def _worded(self, parts: Parts, own: bool, typed: str) -> dict[Any, Any]:
        """The field itself is not written to: more may have been typed already."""
        worded = parts.word(own, typed)
        if (worded.own, worded.typed) == (parts.own, parts.typed):
            return self._same()
        return {self.state: worded, self.line: line(worded, spoken=False)}

    def _brush(self, parts: Parts, width: float, erase: bool) -> dict[Any, Any]:
        other = parts.brush(width / 200 * max(parts.size), erase)
        same = (other.radius, other.erase) == (parts.radius, parts.erase)
        return self._same() if same else self._shown(other)

    # ------------------------------------------------------------------------------------- drawing

    def fresh(self, query: Query) -> dict[Any, Any]:
        """Another picture: nothing chosen, or the boxes that came with it."""
        parts = Parts.of(query)
        parts = replace(parts, radius=BRUSH_WIDTH / 200 * max(parts.size))
        return {
            **self._shown(parts),
            self.pad: gr.update(
                value=marks(parts),
                photo=photo(query.image),
                aspect=query.image.width / query.image.height,
            ),
            self.tabs: gr.update(selected=parts.tab),
            self.width: BRUSH_WIDTH,
            self.erase: False,
            self.own: parts.own,
            self.typed: gr.update(value=parts.typed, interactive=parts.own, placeholder=EXAMPLE),
            **self.detect.fresh(query),
            **self.words.fresh(),
        }

    @property
    def fresh_outputs(self) -> list[Any]:
        """What another picture changes in this panel."""
        others = [*self.detect.fresh_outputs, *self.words.fresh_outputs]
        return [*self.outputs, self.tabs, self.width, self.erase, self.own, *others]

    def _typed(self, parts: Parts) -> dict[str, Any]:
        """The field of words: emptied where they were typed for another part, else left alone, for
        more may have been typed already.
        """
        emptied = {} if parts.typed else {"value": ""}
        return gr.update(placeholder=parts.named or EXAMPLE, **emptied)

    def _shown(self, parts: Parts, refused: str = "") -> dict[Any, Any]:
        """Everything that follows from the choice."""
        corners = parts.box.box if parts.box else (None,) * 4
        there = [parts.picture, bool(parts.boxes), bool(parts.boxes), *[bool(parts.strokes)] * 2]
        return {
            self.state: parts,
            self.line: line(parts, refused) if parts.picture else "",
            self.pad: marks(parts) if parts.picture else NO_PICTURE,
            self.list: box_list(parts),
            self.naming: gr.update(visible=parts.picture and parts.tab != WHOLE),
            self.typed: self._typed(parts),
            self.detect.list: found_list(parts),
            self.words.list: word_list(parts),
            **{
                number: gr.update(value=value, interactive=parts.box is not None)
                for number, value in zip(self.numbers, corners, strict=True)
            },
            **{
                button: gr.update(interactive=can)
                for button, can in zip(self.buttons, there, strict=True)
            },
        }


def _marked(parts: Parts, mark: tuple[Point, Point] | Stroke | int) -> Parts:
    """With one more box or stroke, or one of what was found ticked or unticked."""
    if isinstance(mark, Stroke):
        return parts.paint(mark)
    return parts.tick(mark) if isinstance(mark, int) else parts.add(sum(mark, ()))
