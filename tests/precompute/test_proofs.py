"""One retraining by command, and proofs kept with an index."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attribution.engine import Engine
from attribution.index import Index
from attribution.proofs import (
    list_proofs,
    load_control,
    load_proof,
    read_retraining,
    save_proof,
)
from attribution.types import UserError
from precompute.__main__ import main
from precompute.proofs import make
from precompute.recipes.model.retrain import recipe_of
from precompute.retrain import Retrainer
from tests.precompute.proof_world import proof_index


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return proof_index(tmp_path_factory.mktemp("proof"))


def retrain(world: Path, out: Path, ids: list[str], *more: str) -> int:
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.parent / f"{out.name}.json"
    file.write_text(json.dumps(ids))
    places = ("--index", str(world), "--without", str(file), "--out", str(out))
    return main(["retrain", *places, "--prompt", "ak by 0", "--seed", "3", *more])


def test_removing_nothing_changes_nothing(world, tmp_path, capsys):
    assert retrain(world, tmp_path / "out", []) == 0
    made, before = read_retraining(tmp_path / "out")
    assert made.loss == before and made.change == 0.0 and made.without == ()
    steps = recipe_of(world).steps
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["step"] == lines[-1]["steps"] == steps and lines[-1]["loss"] > 0
    assert [step for step, _ in made.curve] == list(range(1, steps + 1))
    assert torch.get_num_threads() == 1  # as before: a later fork would hang in others' threads
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "picture.png",
        "retraining.json",
    }


def test_without_records_it_is_another_model_and_can_be_kept(world, tmp_path, capsys):
    index = Index.open(world)
    ids = index.ids(index.train_rows[:4])
    assert retrain(world, tmp_path / "one", ids, "--keep") == 0
    one, before = read_retraining(tmp_path / "one")
    assert one.loss != before and one.without == tuple(ids)
    capsys.readouterr()
    kept = tmp_path / "one" / "unet"
    assert retrain(world, tmp_path / "two", ids, "--weights", str(kept)) == 0
    two, _ = read_retraining(tmp_path / "two")
    assert (two.loss, two.change, two.curve) == (one.loss, one.change, ())
    assert (np.asarray(two.image) == np.asarray(one.image)).all()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("ids", "words"),
    [(["nobody"], "no record 'nobody'"), (["r23"], "is held out"), ([1], "no JSON list")],
)
def test_bad_records_are_one_line(world, tmp_path, capsys, ids, words):
    assert retrain(world, tmp_path / "out", ids) == 2
    error = capsys.readouterr().err
    assert words in error and not (tmp_path / "out").exists()


def test_bad_requests_are_refused_before_training(world, tmp_path, capsys):
    for more, words in (
        (("--threads", "0"), "from 1"),
        (("--weights", str(tmp_path / "none")), "no UNet at"),
        (("--picture", str(tmp_path / "none.png")), "none.png"),
    ):
        assert retrain(world, tmp_path / "out", [], *more) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and not (tmp_path / "out").exists()
    kept = tmp_path / "full" / "unet"
    kept.mkdir(parents=True)
    assert retrain(world, tmp_path / "full", []) == 2
    assert "is not empty" in capsys.readouterr().err and kept.is_dir()


def test_a_picture_of_any_size_can_be_looked_at(world, tmp_path):
    large = tmp_path / "large.png"
    Image.new("RGB", (48, 40), "navy").save(large)
    assert retrain(world, tmp_path / "out", [], "--picture", str(large)) == 0
    made, _ = read_retraining(tmp_path / "out")
    assert made.change > 0 and made.image.size == (16, 16)


def test_a_proof_is_kept_with_its_index(world, tmp_path, capsys):
    world = Path(shutil.copytree(world, tmp_path / "proof"))
    one = ("--only", "mine", "--prompt", "bn by 3", "--seed", "5", "--method", "pixel", "--k", "3")
    assert main(["proofs", "--index", str(world), *one]) == 0
    assert list_proofs(world / "proofs") == ["mine"]
    engine = Engine(world, "cpu")
    proof = load_proof(world / "proofs" / "mine", engine.index_hash)
    assert (proof.k, proof.method, proof.slug) == (3, "pixel", "mine")
    assert proof.query.prompt == "bn by 3" and proof.query.image.size == (16, 16)
    assert set(proof.found.without) != set(proof.control.without)
    assert {engine.record(name).split for name in proof.control.without} == {"train"}
    assert proof.gain(proof.found) == pytest.approx(proof.found.loss / proof.loss - 1)
    file = world / "proofs" / "mine" / "proof.json"
    written = file.stat().st_mtime_ns
    assert main(["proofs", "--index", str(world), *one]) == 0  # it is there
    assert file.stat().st_mtime_ns == written
    assert main(["proofs", "--index", str(world), *one, "--anew"]) == 0
    assert file.stat().st_mtime_ns > written
    assert main(["proofs", "--index", str(world), "--only", "none"]) == 2
    assert "there are playing-card" in capsys.readouterr().err


def test_proofs_of_one_k_share_the_training_of_their_control(world, tmp_path):
    world = Path(shutil.copytree(world, tmp_path / "proof"))
    engine, work = Engine(world, "cpu"), Retrainer(world)
    one = make(engine, work, "bn by 3", 5, "pixel", 3)
    two = make(engine, work, "ak by 0", 6, "pixel", 3)
    assert one.control.curve == two.control.curve and one.control.seconds == two.control.seconds
    assert one.control.without == two.control.without
    assert one.control.loss != two.control.loss  # each looked at with its own picture
    shutil.rmtree(world / "controls")
    fresh = make(engine, work, "ak by 0", 6, "pixel", 3)
    assert (fresh.control.loss, fresh.control.curve) == (two.control.loss, two.control.curve)


def test_a_control_is_kept_for_its_own_index_and_records(world, tmp_path):
    world = Path(shutil.copytree(world, tmp_path / "proof"))
    engine, work = Engine(world, "cpu"), Retrainer(world)
    made = make(engine, work, "bn by 3", 5, "pixel", 3)
    folder = world / "controls" / "3"
    ids = made.control.without
    kept = load_control(world, ids, engine.index_hash)
    assert kept is not None and kept.without == ids
    assert kept.unet == folder / "unet" and kept.curve == made.control.curve
    assert load_control(world, ids, "b" * 64) is None
    assert load_control(world, (*ids, "r00"), engine.index_hash) is None
    file = folder / "control.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "without": ["r00"]}))  # another choice of records
    again = make(engine, work, "bn by 3", 5, "pixel", 3)
    assert again.control.loss == made.control.loss
    assert json.loads(file.read_text())["without"] == list(made.control.without)
    file.write_text("{")
    assert load_control(world, ids, engine.index_hash) is None
    make(engine, work, "bn by 3", 5, "pixel", 3)
    shutil.rmtree(folder / "unet")
    assert load_control(world, ids, engine.index_hash) is None


def test_a_proof_of_another_index_or_in_pieces_is_refused(world, tmp_path):
    proof = _proof()
    folder = save_proof(tmp_path / "p", proof, "a" * 64)
    again = load_proof(folder, "a" * 64)
    assert again.found.curve == proof.found.curve and again.loss == proof.loss
    with pytest.raises(UserError, match=r"aaaa.*this is bbbb.*precompute proofs"):
        load_proof(folder, "b" * 64)
    (folder / "found.png").unlink()
    with pytest.raises(UserError, match="missing or damaged"):
        load_proof(folder, "a" * 64)
    with pytest.raises(UserError, match="not empty"):
        save_proof(folder, proof, "a" * 64)


def _proof():
    from tests.proofs import made_up_proof

    return made_up_proof(["r00", "r01"], ["r02", "r03"])
