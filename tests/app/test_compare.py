"""Compare, Guess and Learn without a browser, on the real tiny engine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.jobs import Jobs
from app.markup import KINDS, by_kind, with_code
from app.panels.agreement import ALONE, agreement, matrix
from app.panels.choice import default_choice, lacking_html
from app.panels.compare import Compare
from app.panels.gallery import Gallery
from app.panels.guess import LETTERS, NEXT, Guess, Play
from app.panels.learn import lesson
from app.panels.run import choices
from app.panels.strips import EMPTY, NONE_PICKED, Strips, seconds, size
from app.session import Comparison, Session
from attribution import defaults
from attribution.guess import choose
from attribution.types import Example
from tests.app.conftest import PatientEngine

ME: Any = SimpleNamespace(session_hash="me")


@pytest.fixture(scope="module")
def example(engine: PatientEngine) -> Example:
    """A saved example of AbU, CLIP, pixels and the control."""
    return engine.example("mine")


@pytest.fixture(scope="module")
def titles(engine: PatientEngine) -> dict[str, str]:
    return {m["name"]: m["title"] for m in engine.methods()}


@pytest.fixture
def compare(engine: PatientEngine) -> Compare:
    with gr.Blocks():
        return Compare(engine, Jobs(engine))


def whole(example: Example) -> Comparison:
    comparison = Comparison()
    for answer in example.attributions:
        comparison = comparison.answered(answer)
    return comparison


def ended(updates: list[dict[Any, Any]], compare: Compare) -> tuple[Comparison, dict[Any, Any]]:
    """The comparison, and every component's last value, after a run."""
    last = {component: value for update in updates for component, value in update.items()}
    return last[compare.state], last


def test_a_comparison_keeps_one_answer_a_method(example: Example) -> None:
    comparison = whole(example)
    assert comparison.chosen == ("abu", "clip", "pixel", "random")
    assert all(a.cells is None and not a.heatmaps for a in comparison.answers)
    again = comparison.failing("abu", "no").answered(example.attributions[0])
    assert len(again.answers) == 4 and again.failed == {}
    fewer = comparison.choose(["clip", "abu-sgd"])
    assert list(fewer.shown) == ["clip"] and fewer.missing == ["abu-sgd"]
    assert comparison.fresh() == Comparison(comparison.chosen)
    known = Comparison(correlations=example.correlations).answered(example.attributions[0])
    assert {name for pair in known.correlations for name in pair} == {"clip", "pixel", "random"}


def test_methods_run_in_turn_and_those_at_hand_are_not_run_again(
    compare: Compare, engine: PatientEngine, example: Example
) -> None:
    clip, asked = example.attributions[1], []
    start = Comparison().answered(clip).choose(["clip", "pixel", "random"])
    run = compare.jobs.attribute
    compare.jobs.attribute = lambda query, names, k: (asked.extend(names), run(query, names, k))[1]
    updates = list(compare.compare(Session(query=example.query), start, 5, ME))
    comparison, last = ended(updates, compare)
    assert asked == ["pixel", "random"] and list(comparison.shown) == ["clip", "pixel", "random"]
    assert comparison.shown["clip"].scores is clip.scores
    assert last[compare.strips].count("w-strip-head") == 3 and "Done: 3" in last[compare.step.line]
    assert last[compare.strips].count('class="w-card"') == 15
    waiting = [
        u[compare.strips] for u in updates if "waits for its turn" in u.get(compare.strips, "")
    ]
    assert len(waiting) == 1 and "at work" in waiting[0]
    assert last[compare.k]["interactive"] is True


class Faulty(PatientEngine):
    """Fails in one method, as a bug would."""

    def attribute(self, query: Any, methods: Any = ("abu",), *args: Any, **more: Any) -> Iterator:
        if "pixel" in methods:
            raise RuntimeError("secret")
        yield from super().attribute(query, methods, *args, **more)


def test_a_method_that_fails_leaves_the_others(tiny_index: Any, example: Example) -> None:
    engine = Faulty(tiny_index, device="cpu")
    with gr.Blocks():
        compare = Compare(engine, Jobs(engine))
    start = Comparison(("pixel", "no-such", "random"))
    compare.titles["no-such"] = "No such"
    comparison, last = ended(
        list(compare.compare(Session(query=example.query), start, 5, ME)), compare
    )
    assert list(comparison.shown) == ["random"] and set(comparison.failed) == {"pixel", "no-such"}
    assert "Unknown method" in comparison.failed["no-such"]
    assert "secret" not in last[compare.strips] and "No answer" in last[compare.strips]
    assert "2 gave no answer" in last[compare.step.line]


def test_stop_keeps_what_is_finished(compare: Compare, example: Example) -> None:
    compare.jobs.enqueue("me", "compare")
    run = compare.compare(
        Session(query=example.query), Comparison(("random", "pixel", "clip")), 5, ME
    )
    updates = []
    for update in run:
        updates.append(update)
        if update.get(compare.state, Comparison()).answers:
            compare.jobs.stop("me", "compare")
    comparison, last = ended(updates, compare)
    assert list(comparison.shown) == ["random"]
    assert "Stopped" in last[compare.step.line] and "waits" not in last[compare.strips]
    assert last[compare.k]["interactive"] is True


def test_a_run_for_another_picture_ends_without_a_word(compare: Compare, example: Example) -> None:
    run = compare.compare(Session(query=example.query), Comparison(("random", "pixel")), 5, ME)
    next(run)
    compare.jobs.drop("me")
    assert list(run) == []


@pytest.mark.parametrize(
    ("session", "chosen", "words"),
    [(Session(), ("random",), "Make a picture first"), (None, (), "Choose at least one method")],
)
def test_what_is_missing_is_told(
    compare: Compare, example: Example, session: Session | None, chosen: Any, words: str
) -> None:
    asked = session or Session(query=example.query)
    _, last = ended(list(compare.compare(asked, Comparison(chosen), 5, ME)), compare)
    assert words in last[compare.step.line]


def test_a_saved_example_shows_all_its_methods(compare: Compare, example: Example) -> None:
    updates = compare.saved(Comparison(("abu-sgd",)), example, 5)
    assert updates[compare.state].chosen == ("abu", "clip", "pixel", "random")
    assert updates[compare.strips].count("w-strip-head") == 4
    ticked = [u["value"] for box, u in updates.items() if box in compare.choice.boxes]
    assert sorted(name for names in ticked for name in names) == ["abu", "clip", "pixel", "random"]
    alone = Example("one", example.query, example.attributions[:1])
    assert compare.saved(Comparison(("clip",)), alone, 5)[compare.state].chosen == ("clip", "abu")


def test_the_answer_of_the_page_joins_once(compare: Compare, example: Example) -> None:
    session = Session().asked(example.query).answered(example.attributions[0], 24)
    first = compare.joined(session, Comparison(("clip",)), 5, "")
    assert first[compare.state].chosen == ("clip", "abu")
    assert set(compare.joined(session, first[compare.state], 5, "")) == {compare.state}
    assert set(compare.joined(Session(), Comparison(), 5, "")) == {compare.state}


def test_the_rank_of_one_record_under_every_method(
    engine: PatientEngine, example: Example, titles: dict[str, str]
) -> None:
    draw, comparison = Strips(Gallery(engine), titles), whole(example)
    record_id = example.attributions[1].ids[2]
    shown = draw.ranks(comparison, record_id, 3)
    assert "<b>#3</b> of 36" in shown
    assert shown.count('<th scope="row">') == 4
    assert draw.ranks(comparison, "", 3) == NONE_PICKED
    assert draw.strips(Comparison(("abu",)), 3) == EMPTY
    costs = draw.costs(comparison, {n: engine.cost(n) for n in comparison.shown})
    assert "latents" in costs and "nan" not in costs
    rows = {row.split("</th>")[0]: row for row in costs.split('<tr><th scope="row">')[1:]}
    assert "<td>nothing</td>" in rows["Random"]
    assert "6.1 kB in memory" in rows["Pixels"] and "<td>nothing</td>" not in rows["Pixels"]


def test_matrices_say_their_numbers(example: Example, titles: dict[str, str]) -> None:
    drawn = agreement(whole(example), titles, 24, 36)
    cells = re.findall(r"<td[^>]+>([^<]+)</td>", drawn)
    assert len(cells) == 32 and cells.count("1.00") >= 8
    assert all(re.fullmatch(r"−?[01]\.\d\d|–", cell) for cell in cells)
    assert "By chance: 0.67" in drawn
    assert agreement(whole(example).choose(["abu"]), titles, 24, 36) == ALONE
    odd = matrix(
        "T", "w", ["<a>", "b"], [[(1.0, ""), (-0.7, "x")], [(float("nan"), ""), (-0.001, "")]]
    )
    assert "&lt;a&gt;" in odd and odd.count("w-minus") == 2 and "−0.70" in odd
    assert ">–<" in odd and ">0.00<" in odd


def test_methods_are_grouped_by_kind(engine: PatientEngine) -> None:
    methods = engine.methods()
    assert [name for group in by_kind(methods).values() for name in (m["name"] for m in group)]
    assert set(by_kind(methods)) == set(KINDS)
    first = default_choice(methods)
    assert {defaults.METHOD, "random"} <= set(first) and len(first) == 3
    fewer = [m for m in methods if m["name"] != defaults.METHOD]
    assert set(default_choice(fewer)) == {"abu", *first} - {defaults.METHOD}
    named = choices(methods)
    assert named[0] == ("AbU · loss change", "abu") and named[-1][1] == "random"
    assert {name for _, name in named} == {m["name"] for m in methods if m["available"]}
    drawn = lacking_html([{"title": "<T>", "why": "it lacks rows: run `make them`"}])
    assert "disabled" in drawn and "&lt;T&gt;" in drawn and "<code>make them</code>" in drawn
    assert with_code("no `a<b` here") == "no <code>a&lt;b</code> here"


def test_a_game_counts_only_first_guesses(
    engine: PatientEngine, example: Example, titles: dict[str, str]
) -> None:
    with gr.Blocks():
        game = Guess(engine, {"mine": example}, titles)
    first = choose(example.attributions[0], 0, example.attributions[1:3][::-1])
    wrong = next(i for i in first.ids if i != first.truth)
    assert "★" not in game.html(Play()) and game.html(Play()).count("data-id") == 6
    play = game.after(Play(), wrong)
    assert (play.right, play.played) == (0, 1)
    assert game.after(play, first.truth) == play  # too late
    shown = game.html(play)
    assert "★ the answer" in shown and "◆ your guess" in shown and "0 of 1 right" in shown
    assert shown.count('<th scope="row">') == 4  # what each method of the example says
    assert f"puts drawing {LETTERS[first.ids.index(first.truth)]} first of all" in shown
    play = game.after(play, NEXT)
    assert (play.number, play.guess) == (1, "") and game.after(play, NEXT) == play
    play = game.after(play, first.truth)
    assert (play.right, play.played) == (1, 2) and "Right." in game.html(play)


def test_without_examples_there_is_nothing_to_guess(engine: PatientEngine) -> None:
    with gr.Blocks():
        assert Guess(engine, {}, {}).html(Play()) == ""


def test_every_method_can_be_learnt(engine: PatientEngine) -> None:
    for method in engine.methods():
        assert method["explanation"] in lesson({**method, "lesson": "", "formula": ""})
        assert "$" not in method["formula"]
        assert method["formula"].count("{") == method["formula"].count("}")


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "none"), (0.0002, "under 1 ms"), (0.25, "250 ms"), (3.14, "3.1 s"), (61.7, "62 s")],
)
def test_durations_and_sizes(value: float, words: str) -> None:
    assert seconds(value) == words
    assert seconds(float("nan")) == "not recorded"
    assert [size(n) for n in (0, 512, 8192, 3_000_000)] == ["nothing", "512 B", "8.2 kB", "3.0 MB"]
