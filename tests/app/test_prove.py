"""Prove it: real trainings in processes of their own, Stop, and what a proof says in words."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from app.panels import proof_view
from app.panels.proof_view import chance, curves_html, proof_html, verdict
from app.panels.prove import Prove, absent, done
from app.proving import NOT_YET, REMEMBERED, Begun, Proving
from app.trainings import ROOT, STAGE, Curves, progress_of
from attribution.engine import Engine
from attribution.methods.registry import METHODS
from attribution.proofs import Control, Proof, save_control, save_proof
from attribution.types import Progress, Query, UserError
from evaluation import results
from evaluation.counterfactual.lines import fullest
from evaluation.counterfactual.verdicts import random_gaps
from precompute import retrain
from precompute.__main__ import main as precompute
from precompute.recipes.model.retrain import recipe_of
from tests.precompute.proof_world import proof_index
from tests.proofs import made_up_proof

ME: Any = SimpleNamespace(session_hash="me")


def data_uri_of(shown: str) -> str:
    """The first picture."""
    found = re.search(r'<img src="([^"]+)"', shown)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = proof_index(tmp_path_factory.mktemp("world"))
    return Path(shutil.copytree(made, tmp_path_factory.mktemp("assets") / "proof"))


@pytest.fixture(scope="module")
def engine(world: Path) -> Engine:
    return Engine(world, "cpu")


@pytest.fixture
def prove(engine: Engine) -> Prove:
    with gr.Blocks():
        return Prove(engine, gr.BrowserState([]))


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_seed_that_is_not_whole_is_refused_not_rounded(prove: Prove) -> None:
    seed = prove.seed.preprocess(1.5)
    (*_, last) = prove.prove("bn by 3", seed, "pixel", 3, [], ME)
    assert "The seed has to be a whole number" in last[prove.step.line]
    assert "not 1.5." in last[prove.step.line]


def test_from_prompt_to_proof(prove: Prove, engine: Engine) -> None:
    updates = list(prove.prove("bn by 3", 5, "pixel", 3, [], ME))
    last = {component: value for update in updates for component, value in update.items()}
    shown = last[prove.result]
    assert "without the 3 that Pixels found" in shown and "without 3 random ones" in shown
    assert shown.count('class="w-removed"') == 2 and shown.count("<li><img") == 6
    assert "Drawn by" in shown and engine.index_hash[:12] in shown
    # before the training: the picture and what is taken out
    first = next(update[prove.begun] for update in updates if prove.begun in update)
    assert first.count('class="w-frame"') == 2 and first.count("<li><img") == 6
    assert data_uri_of(first) == data_uri_of(shown)
    # it opens again, as the saved ones do
    (slug,) = own = last[prove.own]
    assert slug in prove._listed(own)["value"]
    again = prove._open(own, SimpleNamespace(id=slug))  # type: ignore[arg-type]
    assert again[prove.result] == shown and again[prove.k] == 3
    assert "polyline" in shown and last[prove.curve] == last[prove.begun] == ""
    assert "Done: trained without 3" in last[prove.step.line]
    lines = [u[prove.step.line] for u in updates if prove.step.line in u]
    assert any("Train without the 3 that Pixels found: “bn by 3”" in line for line in lines)
    # the model without the random ones is there now: the next proof trains once
    (kept,) = prove.proving._kept.values()
    assert (kept.unet / "config.json").is_file() and kept.curve and kept.seconds > 0
    *_, again = prove.proving.prove("bn by 3", 5, "clip", 3)
    assert isinstance(again, Proof) and again.control.curve == kept.curve
    assert again.control.seconds == 0 and "random was there already" in done(again)
    assert verdict(again, "Pixels").rpartition("random ones, ")[2].split(".")[0] in shown


def test_a_browser_is_shown_its_own_proofs_alone(prove: Prove, engine: Engine) -> None:
    """Whatever it kept: names of another run of the page, nothing at all, what is no list."""
    ids, (mine, other) = engine.index.ids(engine.index.train_rows[:4]), ("mine-x", "other-x")
    proof = made_up_proof(ids[:2], ids[2:])
    for slug in (mine, other):
        prove.proving.remember(slug, proof)
    assert list(prove.proving.remembered([mine, "of last week"])) == [mine]
    shown = prove._listed([mine, 3, None])["value"]
    assert mine in shown and other not in shown
    for kept in ([], None, {"a": 1}, mine, ["of last week"]):
        assert not prove._listed(kept)["visible"] and mine not in prove._listed(kept)["value"]
    # one that is gone is told, and what stands there stays
    gone = prove._open(["of last week"], SimpleNamespace(id="of last week"))  # type: ignore[arg-type]
    assert gone == {prove.result: gr.skip()}
    for n in range(REMEMBERED):
        prove.proving.remember(f"later-{n}", proof)
    assert len(prove.proving._made) == REMEMBERED and not prove.proving.remembered([mine])


def test_methods_that_the_small_world_cannot_serve_are_named(prove: Prove) -> None:
    offered = {name for _, name in prove.method.choices}
    lacking = {"dino", "dinov2", "clip-abc", "dino-abc", "abu-ekfac-full"}
    assert {"abu-ekfac", "abu", "pixel"} <= offered and not offered & {*lacking, "random"}
    line = prove.method.info
    assert all(METHODS[name].title in line for name in lacking) and "kept small" in line
    titles = set(line.partition(": ")[2].removesuffix(".").split("; "))
    assert titles == {m.title for m in METHODS.values() if m.name not in (*offered, "random")}
    assert absent([{"title": "AbU", "available": True}]) == ""


def test_closing_ends_the_trainings_at_once(prove: Prove) -> None:
    proving = Proving(prove.proving.path)
    started: list[Any] = []
    import app.proving as module

    class Watched(module.Training):
        def __post_init__(self) -> None:
            super().__post_init__()
            started.append(self.process.pid)

    original, module.Training = module.Training, Watched
    try:
        job = proving.prove("bn by 3", 5, "pixel", 3)
        while len(started) < 2:
            next(job)
        began = time.monotonic()
        job.close()
        assert time.monotonic() - began < 5
    finally:
        module.Training = original
    assert len(started) == 2 and all(gone(pid) for pid in started) and not proving._kept


def test_the_control_that_comes_with_the_index_is_not_trained(prove: Prove, tmp_path) -> None:
    world = Path(shutil.copytree(prove.proving.path, tmp_path / "proof"))
    proving = Proving(world)
    ids = _control(proving, 3)
    folder = world / "controls" / "3"
    file = tmp_path / "ids.json"
    file.write_text(json.dumps(ids))
    asked = ("--index", str(world), "--without", str(file), "--prompt", "a", "--seed", "1")
    assert precompute(["retrain", *asked, "--out", str(folder), "--keep"]) == 0
    curve = ((1, 0.5), (2, 0.25))
    save_control(Control(ids, folder / "unet", curve, 1.0), proving.index.index_hash)
    *steps, made = proving.prove("bn by 3", 5, "clip", 3)
    assert isinstance(made, Proof) and made.control.curve == curve and made.found.curve
    shown = [step for step in steps if isinstance(step, Curves)]
    assert shown and all(step.control == curve and step.found for step in shown)
    assert made.control.without == ids and made.control.loss != made.loss
    # of other records, or for another K, it is trained as ever
    assert proving._control((*ids[:-1], "r00")) is None and proving._control(ids[:2]) is None


def test_stop_is_heard_while_it_trains(prove: Prove) -> None:
    prove.jobs.enqueue("me", "prove")
    updates = []
    for update in prove.prove("bn by 3", 5, "pixel", 2, [], ME):
        updates.append(update)
        if "Train without" in update.get(prove.step.line, ""):
            prove.jobs.stop("me", "prove")
    assert "Stopped" in updates[-1][prove.step.line] and updates[-1][prove.curve] == ""
    shown = [update[prove.begun] for update in updates if prove.begun in update]
    assert "w-frame" in shown[0] and shown[1:] == [""]
    assert not any(prove.result in update for update in updates)  # what was opened meanwhile stays
    (own,) = (update[prove.own] for update in updates if prove.own in update)
    assert not prove.proving.going(own)
    *_, last = prove.prove("bn by 3", 5, "pixel", 2, own, ME)  # its turn comes: nothing is held
    assert "Done" in last[prove.step.line] and prove.list in last


def test_a_proof_goes_on_when_its_visitor_leaves(prove: Prove) -> None:
    """A reload: the page that was watching is closed, and another one finds what goes on."""
    assert list(prove.resume([], ME)) == [] == list(prove.resume(None, ME))
    watching = prove.prove("bn by 3", 5, "pixel", 3, [], ME)
    own = next(update[prove.own] for update in watching if prove.own in update)
    watching.close()
    after: Any = SimpleNamespace(session_hash="me, after a reload")
    first, *updates = prove.resume(own, after)
    assert [first[f] for f in (prove.prompt, prove.seed, prove.method, prove.k)] == [
        *("bn by 3", 5, "pixel", 3)
    ]
    assert any(prove.begun in update for update in updates)
    last = updates[-1]
    assert "Done: trained without 3" in last[prove.step.line]
    assert own[0] in last[prove.list]["value"] and "w-verdict" in last[prove.result]
    assert list(prove.proving.remembered(own)) == own and not prove.proving.going(own)
    assert list(prove.resume(own, after)) == []  # it is finished: there is nothing to watch


def test_a_double_click_trains_once_and_two_visitors_take_turns(prove: Prove) -> None:
    proving = Proving(prove.proving.path)
    asked = ("bn by 3", 5, "pixel", 2)
    first = proving.begin("me", *asked)
    assert proving.begin("me", *asked) is first
    second = proving.begin("you", *asked)
    assert second.slug != first.slug
    told = next(second.work.follow())
    assert told is NOT_YET  # the first one's turn comes first
    with ThreadPoolExecutor(2) as visitors:  # who does not look gives way
        both = [visitors.submit(list, going.work.follow()) for going in (first, second)]
    assert all(isinstance(one.result()[-1], Proof) for one in both)
    assert [*proving.remembered([first.slug, second.slug])] == [first.slug, second.slug]
    assert proving.begin("me", *asked).slug != first.slug  # asked again, it is another proof


def test_what_the_training_says_against_reaches_the_visitor(prove: Prove, tmp_path) -> None:
    proving = Proving(prove.proving.path)
    ids = _control(proving, 2)
    unet = tmp_path / "unet"
    unet.mkdir()
    proving._kept[ids] = Control(ids, unet, (), 1.0)
    assert proving._control(ids) is None  # tidied away by someone: it is trained anew
    (unet / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot open the UNet"):
        list(proving.prove("bn by 3", 5, "pixel", 2))


def test_both_trainings_count_from_the_start(prove: Prove) -> None:
    """The total is that of both, also before the second has said a word."""
    items = list(Proving(prove.proving.path).prove("bn by 3", 5, "pixel", 1))
    totals = {i.total for i in items if isinstance(i, Progress) and i.stage == STAGE and i.total}
    assert totals == {2 * recipe_of(prove.proving.path).steps}
    (begun,) = [item for item in items if isinstance(item, Begun)]
    made = items[-1]
    assert isinstance(made, Proof)
    assert (begun.found, begun.control) == (made.found.without, made.control.without)


def test_a_training_ends_with_the_program_that_began_it(prove: Prove, tmp_path: Path) -> None:
    """Killed, not asked to stop: nothing is left that trains on."""
    file = tmp_path / "ids.json"
    file.write_text("[]")
    query = Query("a", Image.new("RGB", (16, 16)), seed=3)
    query.image.save(tmp_path / "query.png")
    command = prove.proving._command(query, file, tmp_path / "out")
    began = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert began.stdin is not None
    began.stdin.close()
    assert began.wait(60) == 1 and not (tmp_path / "out" / "retraining.json").exists()


def test_time_left_counts_from_the_first_step_heard_of() -> None:
    """Not from when the process began: it reads its data first."""
    opening = progress_of(0, 0, 30.0, None, 1030.0)
    assert (opening.done, opening.total, opening.remaining) == (0, 0, None)
    assert progress_of(5, 100, 31.0, (5, 1031.0), 1031.0).remaining is None
    assert progress_of(15, 100, 33.0, (5, 1031.0), 1033.0).remaining == pytest.approx(0.2 * 85)


def _control(proving: Proving, k: int) -> tuple[str, ...]:
    return proving.engine.control_ids(k)


@pytest.mark.parametrize("prompt", ["-5 degrees", "--out x", "a = b", "plain"])
def test_any_prompt_reaches_the_training(prove: Prove, tmp_path: Path, prompt: str) -> None:
    query = Query(prompt, Image.new("RGB", (8, 8)), seed=3)
    files = tmp_path / "ids.json", tmp_path / "out"
    command = prove.proving._command(query, *files, ["--keep"])
    parser = argparse.ArgumentParser()
    retrain.add_arguments(parser)
    args = parser.parse_args(command[command.index("retrain") + 1 :])
    assert (args.prompt, args.seed, args.without, args.out) == (prompt, "3", *files)


def test_bad_input_is_told_and_trains_nothing(prove: Prove) -> None:
    most = prove.k.maximum
    for asked, words in (
        (("", 5, "pixel", 2), "The prompt is empty"),
        (("a", 5, "pixel", 99), f"Pictures to take out has to be a whole number from 1 to {most}"),
        (("a", -1, "pixel", 2), "the seed has to be"),
        (("a", 5, "dino", 2), "dino"),
    ):
        *_, last = prove.prove(*asked, [], ME)
        assert words.lower() in last[prove.step.line].lower()
        assert prove.result not in last  # what was proved before stays


def test_saved_proofs_open_at_once_and_those_of_another_index_do_not(engine: Engine) -> None:
    ids = engine.index.ids(engine.index.train_rows[:4])
    folder = engine.index.path / "proofs"
    save_proof(folder / "mine", made_up_proof(ids[:2], ids[2:]), engine.index_hash)
    save_proof(folder / "foreign", made_up_proof(ids[:2], ids[2:]), "0" * 64)
    try:
        with gr.Blocks():
            prove = Prove(engine, gr.BrowserState([]))
        assert list(prove.saved) == ["mine"] and prove.list.visible
        updates = prove._open([], SimpleNamespace(id="mine"))  # type: ignore[arg-type]
        assert updates[prove.k] == 2 and updates[prove.prompt] == "a <red> card"
        assert "What AbU found mattered more" in updates[prove.result]
        assert "a &lt;red&gt; card" in updates[prove.result]
        assert "<red>" not in updates[prove.result]
    finally:
        shutil.rmtree(folder)


def test_without_a_proof_world_the_panel_says_how_to_make_one(engine: Engine, tmp_path) -> None:
    elsewhere = SimpleNamespace(
        **dict.fromkeys(("detect", "word_maps", "suggest_captions")),
        generate=None, attribute=None, forget=None,
        index=SimpleNamespace(path=tmp_path / "openclipart"),
    )  # fmt: skip
    with gr.Blocks() as page:
        prove = Prove(elsewhere, gr.BrowserState([]))  # type: ignore[arg-type]
    assert "precompute assets" in prove.proving.missing and not hasattr(prove, "step")
    assert any("no proof world" in str(getattr(c, "value", "")) for c in page.blocks.values())


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ((0.6, 0.525), "20 % worse at this picture; without 2 random ones, 5 % worse."),
        ((0.6, 0.525), "What AbU found mattered more, beyond chance"),
        ((0.51, 0.6), "Here the random ones mattered more"),
        ((0.55, 0.525), "That proves nothing: two random removals of 5 differ by up to 6 points"),
        ((0.49, 0.4925), "2 % better"),
        ((0.501, 0.6), "the model is as good as before at this picture"),
    ],
)
def test_a_verdict_says_whoever_hurt_more(losses: tuple[float, float], words: str) -> None:
    assert words in verdict(made_up_proof(["a", "b"], ["c", "d"], losses), "AbU")


def test_where_the_drawing_changes_as_much_anyway_that_is_said() -> None:
    proof = made_up_proof(["a", "b"], ["c", "d"])
    assert "changed as much" not in verdict(proof, "AbU")
    alike = replace(proof, control=replace(proof.control, change=0.3))
    assert "The drawing itself changed as much without the random ones" in verdict(alike, "AbU")


def test_what_chance_does_is_what_was_measured() -> None:
    """The page's figures against the committed lines of leave-k-out and of seed-consistency."""
    lines = fullest(ROOT / results.FOLDER)
    assert lines is not None
    for k, value in proof_view.CHANCE.items():
        measured = float(np.quantile(random_gaps(lines, k), 0.9))
        assert value == pytest.approx(measured, abs=0.0006), k
    assert (chance(1), chance(100)) == ((5, proof_view.CHANCE[5]), (69, proof_view.CHANCE[69]))
    _, units = results.latest(ROOT / results.FOLDER, "seed-consistency")
    for kind, value in (("prompt", proof_view.OTHER_PROMPT), ("seed", proof_view.OTHER_SEED)):
        assert value == pytest.approx(np.mean([unit["mse"][kind] for unit in units]), abs=0.0006)


def test_curves_need_two_points() -> None:
    assert curves_html(Curves(((1, 0.5),), ()), "AbU") == ""
    drawn = curves_html(Curves(((10, 0.5), (20, 0.25)), ()), "<b>")
    assert drawn.count("<polyline") == 1 and "&lt;b&gt;" in drawn
    assert 'points="300.0,14.0 548.0,166.0"' in drawn


def test_a_proof_of_records_the_index_lost_is_shown_without_them(engine: Engine) -> None:
    proof = made_up_proof(["gone", "r00"], ["r01", "r02"])
    shown = proof_html(proof, {"abu": "AbU"}, engine.index)
    assert shown.count("<li><img") == 3
