"""Prove it: real trainings in processes of their own, Stop, and what a proof says in words."""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image

from app.panels.proof_view import curves_html, proof_html, verdict
from app.panels.prove import EMPTY, Prove, done
from app.proving import Curves, Proving, _progress
from attribution.engine import Engine
from attribution.proofs import Control, Proof, save_control, save_proof
from attribution.types import Query, UserError
from precompute import retrain
from precompute.__main__ import main as precompute
from tests.precompute.proof_world import proof_index
from tests.proofs import made_up_proof

ME: Any = SimpleNamespace(session_hash="me")


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
        return Prove(engine)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_from_prompt_to_proof(prove: Prove, engine: Engine) -> None:
    updates = list(prove.prove("bn by 3", 5, "pixel", 3, ME))
    last = {component: value for update in updates for component, value in update.items()}
    shown = last[prove.result]
    assert "without the 3 that Pixels found" in shown and "without 3 random ones" in shown
    assert shown.count('class="w-removed"') == 2 and shown.count("<li><img") == 6
    assert "polyline" in shown and last[prove.curve] == ""
    assert "Done: trained without 3" in last[prove.step.line]
    lines = [u[prove.step.line] for u in updates if prove.step.line in u]
    assert any("Train without them" in line for line in lines)
    # the model without the random ones is there now: the next proof trains once
    (kept,) = prove.proving._kept.values()
    assert (kept.unet / "config.json").is_file() and kept.curve and kept.seconds > 0
    *_, again = prove.proving.prove("bn by 3", 5, "clip", 3)
    assert isinstance(again, Proof) and again.control.curve == kept.curve
    assert again.control.seconds == 0 and "random was there already" in done(again)
    assert verdict(again, "Pixels").rpartition("random ones, ")[2].split(".")[0] in shown


def test_closing_ends_the_trainings_at_once(prove: Prove) -> None:
    proving = Proving(prove.proving.path)
    started: list[Any] = []
    import app.proving as module

    class Watched(module._Run):
        def __post_init__(self) -> None:
            super().__post_init__()
            started.append(self.process.pid)

    original, module._Run = module._Run, Watched
    try:
        job = proving.prove("bn by 3", 5, "pixel", 3)
        while len(started) < 2:
            next(job)
        began = time.monotonic()
        job.close()
        assert time.monotonic() - began < 5
    finally:
        module._Run = original
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
    for update in prove.prove("bn by 3", 5, "pixel", 2, ME):
        updates.append(update)
        if "Train without them" in update.get(prove.step.line, ""):
            prove.jobs.stop("me", "prove")
    assert "Stopped" in updates[-1][prove.step.line] and updates[-1][prove.curve] == ""
    shown = [update[prove.result] for update in updates if prove.result in update]
    assert shown == [EMPTY]


def test_what_the_training_says_against_reaches_the_visitor(prove: Prove, tmp_path) -> None:
    proving = Proving(prove.proving.path)
    ids = _control(proving, 2)
    proving._kept[ids] = Control(ids, tmp_path / "gone", (), 1.0)
    with pytest.raises(UserError, match="cannot open the UNet"):
        list(proving.prove("bn by 3", 5, "pixel", 2))


def test_time_left_counts_from_the_first_step_heard_of() -> None:
    """Not from when the process began: it reads its data first."""
    opening = _progress(0, 0, 30.0, None, 1030.0)
    assert (opening.done, opening.total, opening.remaining) == (0, 0, None)
    assert _progress(5, 100, 31.0, (5, 1031.0), 1031.0).remaining is None
    assert _progress(15, 100, 33.0, (5, 1031.0), 1033.0).remaining == pytest.approx(0.2 * 85)


def _control(proving: Proving, k: int) -> tuple[str, ...]:
    return proving.engine.control_ids(k)


@pytest.mark.parametrize("prompt", ["-5 degrees", "--out x", "a = b", "plain"])
def test_any_prompt_reaches_the_training(prove: Prove, tmp_path: Path, prompt: str) -> None:
    query = Query(prompt, Image.new("RGB", (8, 8)), seed=3)
    files = tmp_path / "ids.json", tmp_path / "out"
    command = prove.proving._command(query, *files, 1, ["--keep"])
    parser = argparse.ArgumentParser()
    retrain.add_arguments(parser)
    args = parser.parse_args(command[command.index("retrain") + 1 :])
    assert (args.prompt, args.seed, args.without, args.out) == (prompt, "3", *files)


def test_bad_input_is_told_and_trains_nothing(prove: Prove) -> None:
    for asked, words in (
        (("", 5, "pixel", 2), "The prompt is empty"),
        (("a", 5, "pixel", 99), "top-k has to be"),
        (("a", 5, "dino", 2), "dino"),
    ):
        *_, last = prove.prove(*asked, ME)
        assert words.lower() in last[prove.step.line].lower()


def test_saved_proofs_open_at_once_and_those_of_another_index_do_not(engine: Engine) -> None:
    ids = engine.index.ids(engine.index.train_rows[:4])
    folder = engine.index.path / "proofs"
    save_proof(folder / "mine", made_up_proof(ids[:2], ids[2:]), engine.index_hash)
    save_proof(folder / "foreign", made_up_proof(ids[:2], ids[2:]), "0" * 64)
    try:
        with gr.Blocks():
            prove = Prove(engine)
        assert list(prove.saved) == ["mine"] and prove.list.visible
        updates = prove._open(SimpleNamespace(id="mine"))  # type: ignore[arg-type]
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
        prove = Prove(elsewhere)  # type: ignore[arg-type]
    assert "precompute assets" in prove.proving.missing and not hasattr(prove, "step")
    assert any("no proof world" in str(getattr(c, "value", "")) for c in page.blocks.values())


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        ((0.6, 0.525), "20 % worse at this picture; without 2 random ones, 5 % worse."),
        ((0.51, 0.6), "Here the random ones mattered more"),
        ((0.49, 0.4925), "The two hardly differ"),
        ((0.49, 0.4925), "2 % better"),
        ((0.501, 0.6), "the model is as good as before at this picture"),
    ],
)
def test_a_verdict_says_whoever_hurt_more(losses: tuple[float, float], words: str) -> None:
    assert words in verdict(made_up_proof(["a", "b"], ["c", "d"], losses), "AbU")


def test_curves_need_two_points() -> None:
    assert curves_html(Curves(((1, 0.5),), ()), "AbU") == ""
    drawn = curves_html(Curves(((10, 0.5), (20, 0.25)), ()), "<b>")
    assert drawn.count("<polyline") == 1 and "&lt;b&gt;" in drawn
    assert 'points="300.0,14.0 548.0,166.0"' in drawn


def test_a_proof_of_records_the_index_lost_is_shown_without_them(engine: Engine) -> None:
    proof = made_up_proof(["gone", "r00"], ["r01", "r02"])
    shown = proof_html(proof, {"abu": "AbU"}, engine.index)
    assert shown.count("<li><img") == 3
