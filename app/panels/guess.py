"""Guess first: six drawings, which one mattered most for this picture? Then what each method says.

The rounds are the same for every visitor, so that a class can play them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import gradio as gr

from app.markup import (
    AT_ONCE,
    block,
    data_uri,
    label_of,
    name_of,
    pickable,
    picked_id,
    text,
    with_code,
)
from app.panels.gallery import Gallery, thumbnail
from app.status import ANNOUNCE
from attribution.engine import Engine
from attribution.guess import DRAWINGS, Round, Verdict, choose, verdicts
from attribution.types import Attribution, Example, Record

LETTERS = "ABCDEF"
NEXT = "next round"  # no record has this id: it is not in the round
NONE = (
    "There is nothing to guess yet: this index has no saved examples. "
    "`python -m precompute examples` makes them."
)
LEAD = (
    "The model made this picture from its prompt; beside it are six of its training pictures. "
    "Making the model forget the picture hurts one of the six more than the others. Which one?"
)
# After a guess the keyboard goes on from the result; a screen reader speaks it.
FOCUS = """
let played = false;
element.addEventListener('click', () => { played = true; });
watch('value', () => {
  const next = element.querySelector('[data-focus]');
  if (played && next) next.focus({preventScroll: true});
});
"""


@dataclass(frozen=True)
class Play:
    """A visitor's game: the round at hand from 0, the guess in it, and the score so far."""

    number: int = 0
    guess: str = ""
    right: int = 0
    played: int = 0

    def guessed(self, record_id: str, right: bool) -> Play:
        return replace(self, guess=record_id, right=self.right + right, played=self.played + 1)

    def next(self) -> Play:
        return replace(self, number=self.number + 1, guess="")


class Guess:
    """The panel: one round at a time."""

    def __init__(
        self, engine: Engine, saved: Mapping[str, Example], titles: Mapping[str, str]
    ) -> None:
        self.titles, self.gallery = titles, Gallery(engine)
        self.examples = [e for e in saved.values() if len(e.attributions[0].ids) >= DRAWINGS]
        self._round = lru_cache(maxsize=256)(self._choose)
        self.play = gr.State(Play())
        block(f'<p class="w-lead">{LEAD if self.examples else with_code(NONE)}</p>')
        self.game = pickable(self.html(Play()), elem_id="guess", script=FOCUS + ANNOUNCE)
        self.game.select(self._click, self.play, [self.play, self.game], **AT_ONCE)

    def _choose(self, number: int) -> tuple[Example, Round]:
        """Round `number`: the examples in turn, other drawings each time round."""
        example = self.examples[number % len(self.examples)]
        first, *further = example.attributions
        alike = [answer for answer in further if answer.kind == "similarity"]
        return example, choose(first, number, alike[::-1])

    def _click(self, play: Play, event: gr.EventData) -> tuple[Play, str]:
        play = self.after(play, picked_id(event))
        return play, self.html(play)

    def after(self, play: Play, clicked: str) -> Play:
        """The game after a click on a drawing or on Next; only the first guess counts."""
        _, game = self._round(play.number)
        if clicked == NEXT and play.guess:
            return play.next()
        if play.guess or clicked not in game.ids:
            return play
        return play.guessed(clicked, clicked == game.truth)

    def html(self, play: Play) -> str:
        """The round as it stands."""
        if not self.examples:
            return ""
        example, game = self._round(play.number)
        said = verdicts(game, example.attributions) if play.guess else []
        records = self.gallery.records(game.ids)
        cards = "".join(
            self._card(LETTERS[i], record, play, game) for i, record in enumerate(records)
        )
        query = example.query
        return (
            f'<div class="w-guess"><figure><img src="{data_uri(query.image)}" alt="The picture to '
            f'explain"><figcaption>“{text(query.prompt)}”</figcaption></figure>'
            f'<div><ol class="w-grid w-six" aria-label="Six training pictures">{cards}</ol>'
            f"{self._result(play, game, example.attributions, said)}</div></div>"
        )

    def _card(self, letter: str, record: Record, play: Play, game: Round) -> str:
        """Before the guess only a letter is written under a drawing; its caption, which may give it
        away, is for those who cannot see it.
        """
        marks = []
        if play.guess:
            marks += ["★ the answer"] if record.id == game.truth else []
            marks += ["◆ your guess"] if record.id == play.guess else []
        caption = record.captions[0] if record.captions else name_of(record)
        name = f"<br>{text(name_of(record))}" if play.guess else ""
        kind = " w-won" if marks[:1] == ["★ the answer"] else ""
        state = ' aria-disabled="true"' if play.guess else ""
        label = " · ".join((f"Drawing {letter}", caption, *marks))
        said = f'<span class="w-said">{" · ".join(marks)}</span>' if marks else ""
        return (
            f'<li><button type="button" class="w-card{kind}" data-id="{text(record.id)}"{state} '
            f'aria-label="{text(label)}">'
            f'<span class="w-thumb">{thumbnail(record, self.gallery.engine.index_hash)}</span>'
            f'<span class="w-label"><b>{letter}</b> {said}{name}</span></button></li>'
        )

    def _result(
        self, play: Play, game: Round, answers: Sequence[Attribution], said: Sequence[Verdict]
    ) -> str:
        score = f"{play.right} of {play.played} right so far." if play.played else ""
        if not play.guess:
            return f'<p class="w-value">{self._place(play.number)} {score}</p>'
        words = self._words(play, game, said[0])
        table = self._table(game, {a.method: a for a in answers}, said)
        return (
            f'<div class="w-verdict" data-announce="{text(words)} {score}"><p><strong>{text(words)}'
            f"</strong></p><p>{MEANING}</p>{table}"
            f'<p class="w-buttons"><button type="button" class="w-ghost" data-id="{NEXT}" '
            f'data-focus>Next picture</button> <span class="w-value">{score}</span></p></div>'
        )

    def _place(self, number: int) -> str:
        total = len(self.examples)
        if number < total:
            return f"Round {number + 1} of {total}."
        return f"Round {number + 1}: a picture from before, with other drawings."

    def _words(self, play: Play, game: Round, first: Verdict) -> str:
        title = self.titles.get(game.method, game.method)
        answer = LETTERS[game.ids.index(game.truth)]
        if play.guess == game.truth:
            return f"Right. Of all training pictures, {title} puts drawing {answer} first."
        yours = LETTERS[game.ids.index(play.guess)]
        rank = first.ranks[play.guess]
        return f"{title} puts drawing {answer} first of all; {yours}, your guess, is number {rank}."

    def _table(
        self, game: Round, answers: Mapping[str, Attribution], said: Sequence[Verdict]
    ) -> str:
        """A row per method: its pick of the six, and the rank it gives each."""
        head = "".join(f'<th scope="col">{letter}</th>' for letter in LETTERS)
        rows = "".join(
            f'<tr><th scope="row">{text(self.titles.get(v.method, v.method))}</th>'
            f"<td>{label_of(answers[v.method].kind)}</td><td>{_pick(v, game)}</td>"
            f"{''.join(_rank(v, record_id) for record_id in game.ids)}</tr>"
            for v in said
        )
        return (
            '<div class="w-scroll" tabindex="0" role="region" aria-label="The answer under each '
            'method"><table class="w-table w-ranks"><thead><tr><th scope="col">Method</th>'
            f'<th scope="col">Kind</th><th scope="col">Picks</th>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )


MEANING = (
    "That is what the method says, not the truth: nobody has trained the model again without that "
    "drawing. Each number is a rank among all training pictures; a dash means too far down to be "
    "kept with the example."
)


def _pick(verdict: Verdict, game: Round) -> str:
    return "–" if verdict.pick is None else f"<b>{LETTERS[game.ids.index(verdict.pick)]}</b>"


def _rank(verdict: Verdict, record_id: str) -> str:
    rank = verdict.ranks[record_id]
    if rank is None:
        return "<td>–</td>"
    return f"<td><b>#{rank}</b></td>" if record_id == verdict.pick else f"<td>#{rank:,}</td>"
