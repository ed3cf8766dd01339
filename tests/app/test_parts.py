"""The parts of the page that need no browser: numbers, heat maps, plots, jobs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from app import heatmap
from app.jobs import OUR_FAULT, Ended, Jobs
from app.markup import Unit, chips, name_of
from app.panels.answer import scope_line
from app.panels.forget import percent
from app.panels.gallery import Gallery
from app.panels.plots import artists_plot, spread_plot
from app.panels.record import RecordView
from app.session import Session
from app.spaces_gpu import gpu
from app.status import Step, left, never_nothing, progress_line
from attribution.defaults import Recall
from attribution.types import ArtistShare, Attribution, Cancelled, Progress, Query, UserError
from tests.attribution.answers import record
from tests.tiny import tiny_images


def _nothing(*_: object) -> Iterator[object]:
    yield from ()


@pytest.fixture
def jobs() -> Jobs:
    parts = ("generate", "attribute", "forget", "detect", "word_maps", "suggest_captions")
    return Jobs(SimpleNamespace(**dict.fromkeys(parts, _nothing)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("top", "score", "shown", "words"),
    [
        (0.0046, 0.0046, "4.60", "×10⁻³"),
        (0.046, -0.0046, "−4.6", "×10⁻³"),
        (0.5, 0.25, "0.25", ""),
        (812.0, 3.14159, "3.14", ""),
        (4.6e-8, 1e-9, "1.0", "×10⁻⁹"),
        (0.0, 0.0, "0", ""),
    ],
)
def test_scores_read_well(top: float, score: float, shown: str, words: str) -> None:
    unit = Unit.of(np.array([top, score, np.nan], dtype=np.float64))
    assert unit.words == words
    assert unit.show(score, 3 if top != 0.046 and top != 4.6e-8 else 2) == shown
    assert unit.show(float("nan")) == "–"


def test_heat_maps_lie_where_the_change_is() -> None:
    change = np.zeros((16, 16), dtype=np.float32)
    change[1:4, 12:15] = 0.02
    change[12:14, 2:4] = -0.01
    pixels = np.asarray(heatmap.overlay(change))
    assert pixels.shape == (256, 256, 4)
    assert tuple(pixels[40, 216, :3]) == heatmap.WORSE and pixels[40, 216, 3] > 150
    assert tuple(pixels[208, 48, :3]) == heatmap.BETTER and pixels[208, 48, 3] > 60
    assert pixels[128, 128, 3] == 0
    assert heatmap.in_words(change) == "Most in the upper right: 100 % of the worsening."
    assert "nowhere" in heatmap.in_words(-np.ones((4, 4), dtype=np.float32))


def test_heat_maps_survive_nan_and_zeros() -> None:
    change = np.full((8, 8), np.nan, dtype=np.float32)
    assert np.asarray(heatmap.overlay(change))[..., 3].max() == 0


def answer(scores: np.ndarray, **more: object) -> Attribution:
    count = len(scores)
    return Attribution(
        method="abu",
        kind="unlearning",
        ids=tuple(str(i) for i in range(count)),
        rows=np.arange(count),
        scores=np.sort(scores)[::-1].astype(np.float32),
        standard_error=np.zeros(count, dtype=np.float32),
        flip=np.zeros(count, dtype=np.int8),
        **more,  # type: ignore[arg-type]
    )


def test_the_spread_says_what_it_draws() -> None:
    scores = np.linspace(-0.001, 0.01, 100)
    cells = np.zeros((100, 1, 2, 4), dtype=np.float32)
    plot = spread_plot(
        answer(scores, cells=cells, noise_floor=0.001, timesteps=(50, 350, 650, 950)), top_k=10
    )
    assert "100 pictures scored" in plot and "w-noise" in plot and "the 10 shown" in plot


@pytest.mark.parametrize("scores", [np.zeros(5), np.array([0.3]), np.array([]), np.full(4, -1e-9)])
def test_the_spread_of_odd_answers(scores: np.ndarray) -> None:
    assert "nan" not in spread_plot(answer(scores), top_k=3)


def told(recall: Recall | None = None, **more: object) -> str:
    """The scope line of an answer over 5 of 90 training pictures, at two timesteps."""
    cells = np.zeros((5, 1, 2, 2), dtype=np.float32)
    how = {"timesteps": (50, 550), "candidates": 5, "candidate_source": "shortlist", **more}
    found = answer(np.ones(5), cells=cells, **how)
    query = Query("<a> star", tiny_images(1)[0])
    return scope_line(Session(query=query).answered(found, 3), 90, recall)


def test_the_scope_says_what_was_scored() -> None:
    assert (
        "All 90" not in told() and "A shortlist of 5 of 90 training pictures was scored;" in told()
    )
    assert "All 90 training pictures were scored." in told(candidates=90)
    race = {"waves": [{"timesteps": [550], "survivors": 3}], "finalists": 3}
    raced = told(params={"racing": race}, candidate_source="shortlist, racing")
    assert "at up to 1 of 2 timesteps, the best 3 at all of them; one that is not on it" in raced
    assert "&lt;a&gt;" in raced and "test pictures" not in raced
    assert "On 20 test pictures such answers held 97%" in told(Recall(0.968, 20, "a"))


def test_a_shift_of_the_output_is_not_called_worse() -> None:
    found = replace(
        answer(np.array([1.0])), ids=("r/1",), heatmaps={"r/1": np.ones((8, 8), dtype=np.float32)}
    )
    engine = SimpleNamespace(index_hash="0" * 64, record=lambda _: record(1))
    for tracks, worse in (("loss", True), ("shift", False)):
        session = Session(query=Query("a star", tiny_images(1)[0]))
        session = session.answered(replace(found, params={"tracks": tracks}), 1)
        sheet = RecordView(engine).show(session, None)  # type: ignore[arg-type]
        assert ("worse here" in sheet, "worsening" in sheet) == (worse, worse)
        assert ("guess moved" in sheet, "movement" in sheet) == (not worse, not worse)
        assert ("worse" in scope_line(session, 1)) is worse


def test_the_control_has_scores_of_its_own() -> None:
    gallery = Gallery(SimpleNamespace(index_hash="0" * 64, record=_nothing))  # type: ignore[arg-type]
    pictures = [record(1), record(2), record(3)]
    found = replace(answer(np.array([3.0, 2.0])), ids=("r/1", "r/9"))
    beside = replace(answer(np.array([1.0])), ids=("r/2",))
    strip = gallery.strip(pictures, replace(found, control=beside))
    cards = strip.split("<li>")[1:]
    assert "<b>#1</b> · 3.00" in cards[0]
    assert "<b>1.00</b>" in cards[1] and "#" not in cards[1].split("w-label")[1]
    assert "not on the shortlist" in cards[2]


def test_artists_are_escaped_and_counted() -> None:
    shares = [ArtistShare(f"<b>{i}", 0.1, ("a",)) for i in range(10)]
    plot = artists_plot(shares)
    assert "<b>" not in plot and "2 more artists" in plot
    assert "noise" in artists_plot([])


def test_words_of_waiting() -> None:
    assert left(None) == "" and left(0.2) == "a moment left"
    assert left(12.3) == "about 13 s left" and left(200) == "about 4 min left"
    line = progress_line(Progress("scoring", 3, 12, 1.0, 3.0))
    assert "Scoring" in line and "3 of 12" in line and 'aria-valuenow="25"' in line
    assert percent(0.5) == "50 %" and percent(0.004) == "0.4 %" and percent(0.00004) == "0.00 %"
    assert "&lt;i&gt;" in chips([("1", "<i>")], "Try") and chips([], "Try") == ""


class Work:
    """A generator that records whether it was closed."""

    def __init__(self, steps: int, error: Exception | None = None) -> None:
        self.steps, self.error, self.closed = steps, error, False

    def __call__(self) -> Iterator[Progress | str]:
        try:
            for i in range(self.steps):
                yield Progress("counting", i + 1, self.steps)
            if self.error is not None:
                raise self.error
            yield "result"
        finally:
            self.closed = True


def test_a_job_ends_with_its_result(jobs: Jobs) -> None:
    work = Work(3)
    jobs.enqueue("me", "step")
    *progress, last = jobs.follow("me", "step", work)
    assert last == "result" and progress and work.closed


@pytest.mark.parametrize(
    ("error", "how", "words"),
    [
        (UserError("the prompt is empty"), "refused", "The prompt is empty."),
        (Cancelled(), "stopped", "Stopped. The model is as it was."),
        (RuntimeError("secret path"), "failed", OUR_FAULT),
    ],
)
def test_errors_become_words(jobs: Jobs, error: Exception, how: str, words: str) -> None:
    *_, last = jobs.follow("me", "step", Work(1, error))
    assert last == Ended(how, words)  # type: ignore[arg-type]


def test_stop_ends_a_running_job_and_closes_its_work(jobs: Jobs) -> None:
    work = Work(1000)
    jobs.enqueue("me", "step")
    assert jobs.running("me", "step") is False
    running = jobs.follow("me", "step", work)
    next(running)
    assert jobs.running("me", "step") is True and jobs.running("you", "step") is None
    assert jobs.stop("me", "step") is True
    assert isinstance(next(running), Ended)
    assert work.closed and list(running) == []
    assert jobs.running("me", "step") is None


def test_the_word_that_it_is_stopping_is_shown_before_anything_stops(jobs: Jobs) -> None:
    """The job's own last word would else come first, and be written over for good."""
    with gr.Blocks() as page:
        step = Step("step", "Run", jobs)
    said, done = sorted(page.fns.values(), key=lambda event: event._id)
    assert (said.fn, done.fn) == (step._stopping, step._stop)
    assert done.trigger_after == said._id
    me: Any = SimpleNamespace(session_hash="me")
    assert "It had ended already" in step._stop(me)[step.line]
    jobs.enqueue("me", "step")
    assert step._stopping(me) == {step.line: gr.skip()}
    assert "Cancelled before it began" in step._stop(me)[step.line]
    work = Work(1000)
    jobs.enqueue("me", "step")
    running = jobs.follow("me", "step", work)
    first = next(running)
    assert isinstance(first, Ended)  # the click that was cancelled
    running = jobs.follow("me", "step", work)
    next(running)
    assert "Stopping" in step._stopping(me)[step.line] and not work.closed
    assert step._stop(me) == {step.line: gr.skip()}
    assert isinstance(next(running), Ended) and work.closed


def test_stop_before_the_turn_means_the_work_never_starts(jobs: Jobs) -> None:
    work = Work(3)
    jobs.enqueue("me", "step")
    assert jobs.stop("me", "step") is False
    jobs.enqueue("me", "step")  # a second click, after the cancelled first
    (first,) = jobs.follow("me", "step", work)
    assert isinstance(first, Ended) and first.how == "stopped" and not work.closed
    *_, second = jobs.follow("me", "step", work)
    assert second == "result"


def test_a_click_whose_work_never_begins_shifts_no_other(jobs: Jobs) -> None:
    """Gradio may refuse what is filled in after the click has taken its ticket."""
    with gr.Blocks():
        step = Step("step", "Run", jobs)
    me: Any = SimpleNamespace(session_hash="me")
    jobs.enqueue("me", "step")
    jobs.stop("me", "step")
    said = step.lost(me)
    assert "That did not begin" in said[step.line] and said[step.run]["interactive"]
    jobs.enqueue("me", "step")
    *_, last = jobs.follow("me", "step", Work(1))
    assert last == "result"  # not stopped: the refused click's ticket is gone
    assert OUR_FAULT.split(".")[0] in step.lost(me)[step.line]  # it broke after it had begun


def test_a_visitor_who_leaves_closes_the_work(jobs: Jobs) -> None:
    work = Work(1000)
    running = jobs.follow("me", "step", work)
    next(running)
    running.close()
    assert work.closed


def test_one_visitor_cannot_stop_another(jobs: Jobs) -> None:
    jobs.enqueue("me", "step")
    running = jobs.follow("me", "step", Work(5))
    next(running)
    stopper = threading.Thread(target=jobs.stop, args=("you", "step"))
    stopper.start()
    stopper.join()
    *_, last = running
    assert last == "result"


def test_gpu_is_nothing_without_spaces() -> None:
    def work() -> int:
        return 7

    assert gpu(60)(work) is work


@pytest.mark.parametrize(
    ("caption", "artists", "title", "name"),
    [
        ("waving smiley, by Nicu Buculei", ("Nicu Buculei",), "Clipart 11", "waving smiley"),
        ("a car and a bus, by Ann and Bo", ("Bo", "Ann"), "", "a car and a bus"),
        ("a bike, by the sea", ("Ann",), "Holiday", "Holiday"),
        ("a bike", (), "", "a bike"),
    ],
)
def test_records_are_named_by_what_they_show(
    caption: str, artists: tuple[str, ...], title: str, name: str
) -> None:
    record = SimpleNamespace(id="1", captions=(caption,), artists=artists, title=title)
    assert name_of(record) == name  # type: ignore[arg-type]


def test_a_dropped_job_empties_nothing(jobs: Jobs) -> None:
    """Gradio sets every output to None where a generator ends without a word."""
    line = object()

    def steps() -> Iterator[dict[Any, Any]]:
        yield from ({line: item} for item in jobs.follow("me", "step", Work(3)))

    jobs.enqueue("me", "step")
    jobs.drop("me")
    (told,) = never_nothing(steps, line)()
    assert told == {line: gr.skip()}
    *_, last = never_nothing(steps, line)()
    assert last == {line: "result"}


def test_what_may_say_nothing_is_closed_with_the_visitor(jobs: Jobs) -> None:
    work = Work(1000)
    running = never_nothing(lambda: jobs.follow("me", "step", work), "line")()  # type: ignore
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert work.closed
