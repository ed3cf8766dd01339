"""The page: which event does what, and what it changes. Panels: layout.py; the work: flow.py."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.api import add_endpoints
from app.flow import Flow
from app.jobs import Jobs
from app.layout import Panels
from app.markup import AT_ONCE, QUIET
from app.panels.share import WHOLE_LINK
from attribution.engine import Engine

# Uploads and pictures of past visits are looked for every half hour and go when they are an hour
# old.
CLEANING = (1800, 3600)


def build_page(engine: Engine) -> gr.Blocks:
    """The page over an opened engine; `launch` it."""
    jobs = Jobs(engine)
    with gr.Blocks(title="Whence", analytics_enabled=False, delete_cache=CLEANING) as page:
        panels = Panels(engine, jobs)
        _wire(page, panels, Flow(panels))
        add_endpoints(engine, jobs)
    return page


def _wire(page: gr.Blocks, on: Panels, flow: Flow) -> None:
    """Connect the steps. Each starts outside the queue with a word, then waits for its turn on the
    model."""
    _wire_picture(on, flow)
    _wire_answer(on, flow)
    _wire_further(on, flow)
    _wire_opening(page, on, flow)


def _wire_picture(on: Panels, flow: Flow) -> None:
    picture, compare, fresh = on.picture, on.compare, _fresh_outputs(on)
    picture.step.does(
        flow.new_picture,
        [on.session, compare.state, picture.prompt, picture.seed],
        fresh,
        also=[on.go_generate.change],
    )
    picture.use.does(
        flow.take_upload,
        [on.session, compare.state, picture.upload, picture.upload_prompt],
        fresh,
        preprocess=False,
    )


def _wire_answer(on: Panels, flow: Flow) -> None:
    run, compare, rows = on.run, on.compare, on.rows
    attributed = run.step.does(
        flow.answer,
        [*_part_inputs(on), *run.inputs],
        _found_outputs(on),
        also=[on.go_attribute.change],
    )
    attributed.then(None, on.share.link, on.share.link, js=WHOLE_LINK, **QUIET)
    joined = [on.session, compare.state, compare.k, compare.picked]
    attributed.then(compare.joined, joined, compare.outputs, **AT_ONCE)
    asked = [on.session, on.part.state, rows.state]
    attributed.then(rows.joined, asked, rows.outputs, **AT_ONCE)
    rows.rows.select(flow.row_opened, rows.state, on.answer.record, **AT_ONCE).then(
        None, js="() => window.whence.reveal('record')", **AT_ONCE
    )


def _wire_further(on: Panels, flow: Flow) -> None:
    forget, compare = on.forget, on.compare
    forget.step.does(
        flow.forget,
        [on.session, on.part.state],
        [forget.pictures],
    )
    compared = compare.step.does(
        flow.compare,
        [*_part_inputs(on), compare.state, compare.k],
        compare.outputs,
    )
    again = [compare.state, compare.k, compare.picked]
    compared.then(compare.ranks_again, again, compare.ranks, **AT_ONCE)


def _wire_opening(page: gr.Blocks, on: Panels, flow: Flow) -> None:
    """Saved examples and links: the whole page at once."""
    picture, run, compare = on.picture, on.run, on.compare
    steps = [*picture.step.outputs, *picture.use.outputs]
    form = [picture.prompt, picture.seed, run.method, run.top_k]
    outputs = [*_fresh_outputs(on), *_found_outputs(on), *steps, *form]
    everything = list(dict.fromkeys(outputs))
    shown = on.examples.list.select(flow.example, compare.state, everything, **AT_ONCE)
    shown.then(None, on.share.link, on.share.link, js=WHOLE_LINK, **QUIET)
    shown.then(None, js="() => window.whence.reveal('step-answer')", **QUIET)
    load = [on.session, compare.state]
    linked = page.load(flow.link, load, [*everything, on.go_generate], **QUIET)
    linked.then(None, on.share.link, on.share.link, js=WHOLE_LINK, **QUIET)
    on.prove.on_load(page)


def _part_inputs(on: Panels) -> list[Any]:
    """The session and the part that is chosen, with its words as the field has them now."""
    return [on.session, on.part.state, on.part.own, on.part.typed]


def _fresh_outputs(on: Panels) -> list[Any]:
    """What a new picture changes: `Flow._fresh`."""
    return [
        *(on.session, on.go_attribute, *on.picture.outputs, *on.run.step.outputs),
        *(on.answer.empty, on.answer.body, on.share.row),
        *(on.forget.pictures, *on.forget.step.outputs, *on.compare.outputs),
        *(*on.part.fresh_outputs, *on.rows.outputs),
    ]


def _found_outputs(on: Panels) -> list[Any]:
    """What an answer changes: `Flow._found`."""
    return [
        *(on.session, *on.run.step.outputs, *on.answer.outputs, *on.share.outputs),
        *on.forget.step.outputs,
    ]
