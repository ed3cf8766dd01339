"""The verbs on the model, end to end on a tiny world: they run, resume and report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from evaluation import generated, recogniser
from evaluation.copies import Pictures, Thresholds, compare, fit, moved, paired
from evaluation.data import load_records
from evaluation.model_sheet import load_prompts, wrapped
from evaluation.recogniser import Training
from evaluation.results import read_lines
from evaluation.world import World
from tests.evaluation.tiny_world import evaluate

SHORT = ("--steps", "2", "--guidance", "1", "--batch-size", "4")


@pytest.mark.parametrize(
    ("verb", "more", "says"),
    [
        ("model-sheet", (*SHORT, "--limit", "10"), "contact_sheet.png"),
        ("classifier", (*SHORT, "--train-steps", "3", "--per-category", "1"), "generated"),
        ("retrieval", (*SHORT, "--captions", "12"), "recall@10"),
        ("vae", (), "held-out drawings"),
        ("near-duplicates", (*SHORT, "--captions", "6"), "held-out captions"),
    ],
)
def test_a_verb_runs_and_its_second_run_computes_nothing(
    tiny_world, tmp_path, capsys, verb, more, says
):
    assert evaluate(verb, tiny_world, tmp_path, *more) == 0
    first = capsys.readouterr().out
    assert says in first
    lines = read_lines(tmp_path / "results" / f"{verb}.jsonl")
    assert lines[0]["command"] and lines[0]["machine"]["cores"]
    if verb != "model-sheet":  # which always writes its sheet anew
        assert evaluate(verb, tiny_world, tmp_path, *more) == 0
        assert read_lines(tmp_path / "results" / f"{verb}.jsonl") == lines
    assert evaluate(verb, tiny_world, tmp_path, "--report") == 0
    assert first.splitlines()[0] in capsys.readouterr().out


def test_pictures_are_drawn_once_and_in_any_batch(tiny_world, tmp_path):
    world = World(tiny_world, "cpu")
    pairs = [("a", 1), ("b", 2), ("a", 3)]
    whole = generated.draw(world, pairs, generated.Sampling(2, 1.0, 3), tmp_path / "x")
    single = generated.draw(world, pairs, generated.Sampling(2, 1.0, 1), tmp_path / "y")
    assert np.abs(whole.astype(int) - single.astype(int)).max() <= 1
    assert len(list((tmp_path / "x").rglob("*.png"))) == 3
    again = generated.draw(world, pairs[::-1], generated.Sampling(2, 1.0, 2), tmp_path / "x")
    assert np.array_equal(again, whole[::-1])


def test_the_classifier_is_the_same_for_the_same_seed_and_learns(tiny_world, tmp_path):
    colours = np.zeros((16, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(16) % 2
    colours[labels == 0, ..., 0] = 255
    colours[labels == 1, ..., 2] = 255
    settings = Training(steps=30, batch_size=16)
    first, second = (recogniser.train(colours, labels, settings) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert (recogniser.predict(first, colours) == labels).all()
    recogniser.save(first, tmp_path / "c.safetensors", "data", settings)
    loaded = recogniser.load(tmp_path / "c.safetensors", "data", settings)
    assert loaded is not None and (recogniser.predict(loaded, colours) == labels).all()
    assert recogniser.load(tmp_path / "c.safetensors", "other data", settings) is None


def test_a_copy_is_near_whichever_way_round_and_others_are_not(tiny_world):
    world = World(tiny_world, "cpu")
    images = world.records.images
    pictures = Pictures.of(images, world.clip)
    distances, cosines = compare(Pictures.of(images[:, :, ::-1], world.clip), pictures)
    assert distances.argmin(1).tolist() == list(range(len(images)))
    assert np.abs(np.diag(distances)).max() < 2e-3 and np.diag(cosines).min() > 0.999
    shifted = Pictures(moved(pictures.ink, 1, -1), pictures.clip)
    inside, _ = paired(pictures, shifted)
    assert inside.max() < 0.5 * np.sqrt(((pictures.ink - shifted.ink) ** 2).sum((1, 2, 3))).max()
    same = paired(pictures, pictures)
    assert np.abs(same[0]).max() < 1e-6
    thresholds = fit(np.array([0.1, 0.2]), np.array([0.9, 0.8]))
    assert thresholds.distance < 0.2 and thresholds.cosine > 0.8
    assert Thresholds(0.3, 0.7).are_copies(np.array([0.2, 0.2]), np.array([0.8, 0.6])).tolist() == [
        True,
        False,
    ]


def test_the_sheets_prompts_are_64_and_fixed():
    prompts = load_prompts()
    assert len(prompts) == len({entry["prompt"] for entry in prompts}) == 64
    kinds = [entry["kind"] for entry in prompts]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "seen": 16,
        "new": 16,
        "style": 16,
        "two objects": 16,
    }
    assert all(entry["seen"] for entry in prompts if entry["kind"] == "seen")
    assert not any(entry["seen"] for entry in prompts if entry["kind"] == "new")


def test_long_captions_are_wrapped_and_cut():
    from PIL import ImageFont

    font = ImageFont.load_default(10)
    lines = wrapped("one two three four five six seven eight", 40, font)
    assert len(lines) == 3 and lines[-1].endswith("…")


def test_records_are_read_from_a_data_set_and_bad_folders_are_refused(tiny_world, tmp_path, capsys):
    records = load_records(tiny_world)
    assert len(records) == 24 and records.images.shape == (24, 16, 16, 3)
    assert len(records.rows("train")) == 16 and len(records.rows("held-out")) == 8
    assert evaluate("vae", tmp_path, tmp_path) == 2
    error = capsys.readouterr().err
    assert (error.count("\n") == 1 and "neither" in error) or "no model" in error


def test_reporting_before_running_is_refused_in_a_line(tiny_world, tmp_path, capsys):
    assert evaluate("vae", tiny_world, tmp_path, "--report") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_sheet_is_a_picture(tiny_world, tmp_path):
    assert evaluate("model-sheet", tiny_world, tmp_path, *SHORT, "--limit", "3") == 0
    with Image.open(tmp_path / "results" / "contact_sheet.png") as sheet:
        assert sheet.size == (8 * 136 + 8, 184)
    line = (tmp_path / "results" / "model-sheet.jsonl").read_text().splitlines()[1]
    assert json.loads(line)["pictures"] == 3
