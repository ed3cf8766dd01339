"""Step 4: the answer. Gallery, record, timestep slider, control, plots, table; hidden until there
is one.
"""

from __future__ import annotations

import random
from typing import Any

import gradio as gr

from app.markup import AT_ONCE, Unit, block, data_uri, heading, pickable, picked_id, text
from app.panels.about import about
from app.panels.gallery import Gallery
from app.panels.plots import artists_plot, spread_plot
from app.panels.record import KEEP, RecordView
from app.parts import outlined
from app.session import Session
from app.slider import Slider
from attribution.defaults import Recall
from attribution.engine import Engine
from attribution.types import Attribution, Record

CONTROLS = 6
EMPTY = (
    '<p class="w-empty w-await">The answer appears here: the training pictures that mattered most, '
    "who drew them, "
    "and how far they stand out from the rest.</p>"
)
SO_FAR = '<p class="w-lead">The best so far; the order still changes.</p>'
WAITING = '<p class="w-empty">Details follow when all are scored.</p>'


class Answer:
    """Everything that follows from one attribution. `partial` and `final` say what each component
    becomes.
    """

    def __init__(self, engine: Engine, session: gr.State) -> None:
        self.engine = engine
        self.gallery = Gallery(engine)
        self.records = RecordView(engine)
        block(heading(4, "The answer"))
        self.empty = block(EMPTY)
        with gr.Column(visible=False, elem_id="answer") as self.body:
            self.scope = block(elem_id="scope")
            with gr.Row(equal_height=False, elem_classes="w-answer"):
                with gr.Column(scale=7, min_width=300):
                    self.cards = pickable(elem_id="gallery")
                with gr.Column(scale=4, min_width=280, elem_classes="w-side"):
                    self.record = pickable(elem_id="record", script=KEEP)
                    about()
            with gr.Column(visible=False) as self.context:
                with gr.Row(equal_height=True):
                    self._when()
                    self._control()
                self._plots()
        self.outputs = [
            *(self.empty, self.body, self.context, self.scope, self.cards, self.table, self.record),
            *(
                self.controls,
                self.artists,
                self.spread,
                self.when,
                self.all_timesteps,
                self.when_group,
            ),
        ]
        self._listen(session)

    def _when(self) -> None:
        """The timestep slider, shown only when the method keeps cells."""
        with gr.Column(
            scale=4, min_width=300, elem_classes="w-card-box", elem_id="when"
        ) as self.when_group:
            block(
                "<h3>When in the drawing?</h3><p>A picture is made from noise in steps: its layout "
                "first (large t), "
                "its detail last (small t). Rank by one part of that path; nothing is computed "
                "again.</p>"
            )
            self.all_timesteps = gr.Checkbox(
                value=True, label="All timesteps", elem_id="all-timesteps", container=False
            )
            self.when = Slider(
                50,
                950,
                value=500,
                step=50,
                label="Timestep t",
                elem_id="timestep",
                container=False,
                buttons=[],  # the box above is its reset
            )
            block(
                '<p class="w-ends"><span>← detail (small t)</span><span>layout (large t) '
                "→</span></p>"
            )

    def _control(self) -> None:
        with gr.Column(scale=7, min_width=300, elem_classes="w-card-box"):
            block(
                "<h3>For comparison: pictures drawn at random</h3><p>A control. If these looked as "
                "fitting as the "
                "answer above, the answer would mean nothing.</p>"
            )
            self.controls = pickable(elem_id="controls")

    def _plots(self) -> None:
        with gr.Row(equal_height=True):
            with gr.Column(min_width=300, elem_classes="w-card-box"):
                block(
                    "<h3>Influence by artist</h3><p>Scores above the noise, added up for each "
                    "artist. A share of "
                    "this list, not of your picture.</p>"
                )
                self.artists = block(elem_id="artists")
            with gr.Column(min_width=300, elem_classes="w-card-box"):
                block(
                    "<h3>Spread of the scores</h3><p>How far the shown ones stand out from all the "
                    "others.</p>"
                )
                self.spread = block(elem_id="spread")
        with gr.Accordion("The answer as a table", open=False, elem_id="table-box"):
            self.table = block(elem_id="table")

    def _listen(self, session: gr.State) -> None:
        for source in (self.cards, self.controls, self.record):
            opened = source.select(self.opened, session, self.record, **AT_ONCE)
            opened.then(None, js="() => window.whence.reveal('record')", **AT_ONCE)
        self._session = session
        ranked = [
            session,
            self.scope,
            self.cards,
            self.table,
            self.record,
            self.artists,
            self.spread,
        ]
        self.when.input(
            self._slide,
            [session, self.when],
            [*ranked, self.all_timesteps],
            trigger_mode="always_last",
            **AT_ONCE,
        )
        self.all_timesteps.input(
            self._rerank, [session, self.when, self.all_timesteps], ranked, **AT_ONCE
        )

    def opened(self, session: Session, event: gr.EventData) -> str:
        """The record that was chosen, large."""
        return self.records.show(session, picked_id(event))

    def _slide(self, session: Session, centre: float) -> dict[Any, Any]:
        """Moving the slider leaves "all timesteps"."""
        return {**self._rerank(session, centre, False), self.all_timesteps: False}

    def _rerank(self, session: Session, centre: float, everything: bool) -> dict[Any, Any]:
        if session.answer is None:
            return {self._session: session}
        at = None if everything else centre
        session = session.viewed(self.engine.rerank(session.answer, at), at)
        return {self._session: session, **self._ranking(session)}

    def partial(self, answer: Attribution, top_k: int) -> dict[Any, Any]:
        """The best so far, while scoring goes on; what needs the whole answer is hidden."""
        return {
            self.body: gr.update(visible=True),
            self.context: gr.update(visible=False),
            self.empty: "",
            self.scope: SO_FAR,
            self.cards: self.gallery.cards(answer, top_k, partial=True),
            self.record: WAITING,
        }

    def abandoned(self, session: Session) -> dict[Any, Any]:
        """A run ended early: back to the answer before it, or to none."""
        return self.final(session) if session.answer is not None else self.cleared()

    def final(self, session: Session) -> dict[Any, Any]:
        """A finished answer."""
        answer = session.answer
        assert answer is not None
        controls = self._random(answer, session.top_k)
        times = answer.timesteps or (0,)
        slider = gr.update(
            minimum=min(times), maximum=max(max(times), min(times) + 1), step=_step(times)
        )
        return {
            self.body: gr.update(visible=True),
            self.context: gr.update(visible=True),
            self.empty: "",
            self.controls: self.gallery.strip(controls, answer),
            self.when: slider,
            self.all_timesteps: True,
            self.when_group: gr.update(visible=answer.cells is not None),
            **self._ranking(session),
        }

    def cleared(self) -> dict[Any, Any]:
        """A new picture has no answer yet."""
        return {self.body: gr.update(visible=False), self.empty: EMPTY}

    def _ranking(self, session: Session) -> dict[Any, Any]:
        """All that follows the order of the view."""
        view = session.view
        assert view is not None
        return {
            self.scope: scope_line(session, self.engine.n_train, self.engine.recall(view)),
            self.cards: self.gallery.cards(view, session.top_k),
            self.table: self.gallery.table(view, session.top_k),
            self.record: self.records.show(session, None),
            self.artists: artists_plot(self.engine.artists(view)),
            self.spread: spread_plot(view, session.top_k),
        }

    def _random(self, answer: Attribution, top_k: int) -> list[Record]:
        if answer.control is not None:
            shown, control = set(answer.ids[:top_k]), answer.control
            drawn = sorted(zip(control.rows.tolist(), control.ids, strict=True))
            return self.engine.records([name for _, name in drawn if name not in shown][:CONTROLS])
        seed = random.Random(answer.ids[0] if answer.ids else "").randrange(2**31)
        count = min(CONTROLS, max(self.engine.n_train - top_k, 1))
        return self.engine.random_records(count, seed, exclude=answer.ids[:top_k])


def _step(times: tuple[int, ...]) -> int:
    """Half the distance between stored timesteps, so that the slider rests on them and between."""
    gaps = [b - a for a, b in zip(sorted(times), sorted(times)[1:], strict=False)]
    return max(min(gaps, default=2) // 2, 1)


def scope_line(session: Session, n_train: int, recall: Recall | None = None) -> str:
    """The picture again, and what was compared with what: an answer from a shortlist or a race says
    that it is one, and what share of the whole answer such a one was measured to hold.
    """
    answer, query = session.view, session.query
    assert answer is not None and query is not None
    how = _scope(answer, n_train)
    if recall is not None:
        how += (
            f" On {recall.queries} test pictures such answers held {recall.share:.0%} of what "
            "scoring everything finds."
        )
    meaning = SHIFT if answer.params.get("tracks") == "shift" else SCORES.get(answer.kind, "")
    when = "" if session.centre is None else f" Ranked around timestep t = {session.centre:g}."
    unit = Unit.of(answer.scores).words
    scale = f" Shown {unit}." if unit else ""
    if part := answer.params.get("region"):
        how += f" {PARTS.get(part) or OWN_LOSS.get(answer.kind, '')}"
    seen = "The part of your picture" if query.regions else "Your picture"
    called = answer.params.get("called", "")
    asked = f"“{text(query.prompt)}”" + (f", its part as “{text(called)}”" if called else "")
    return (
        f'<div class="w-scope"><img src="{data_uri(outlined(query))}" alt="{seen}">'
        f"<p><b>{asked}</b><br>{how}{when}<br>{meaning}{scale}</p></div>"
    )


def _scope(answer: Attribution, n_train: int) -> str:
    race = answer.params.get("racing")
    some = sum(len(wave["timesteps"]) for wave in race["waves"]) if race else 0
    rest = (
        f" at up to {some} of {len(answer.timesteps)} timesteps, the best {race['finalists']:,} at "
        "all of them"
        if race
        else ""
    )
    if answer.candidates >= n_train:
        return f"All {n_train:,} training pictures were scored{rest}."
    return (
        f"A shortlist of {answer.candidates:,} of {n_train:,} training pictures was scored{rest}; "
        "one that is not on it cannot appear here."
    )


# What became of the part that was asked about.
PARTS = {
    "crop": "A crop of the part was compared.",
    "ignored": "This method does not look at parts: it answers for the whole prompt.",
    "words": "This method looks at no picture: it answers for the part's own words.",
}
OWN_LOSS = {
    "unlearning": "Only the part was unlearned.",
    "gradient": "Only the part counts in the gradient.",
}
SHIFT = "Score: how far the model's guess at the training picture moved when it unlearned yours."
SCORES = {
    "unlearning": "Score: how much worse the model got at the training picture after unlearning "
    "yours.",
    "gradient": "Score: how alike the two pictures' gradients are.",
    "similarity": "Score: how alike the two pictures look; the model's weights are not involved.",
    "control": "Score: drawn at random.",
}
