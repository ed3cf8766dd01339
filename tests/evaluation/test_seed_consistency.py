"""Seed consistency: distances by hand, and the verb on a tiny trained world."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.results import read_lines
from evaluation.seed_consistency import distances, summarise
from evaluation.world import World
from tests.evaluation.tiny_world import evaluate

SMALL = ("--workers", "0", "--stride", "500", "--steps", "1", "--guidance", "1", "--seeds", "2")


def test_distances_by_hand(tmp_path):
    pictures = np.zeros((3, 3, 2, 4, 4, 3), dtype=np.uint8)
    pictures[1, 0, 0] = 51  # a fifth of white: 0.04 from the other two models
    pictures[:, 1, 0] = 255
    pictures[:, 2, 1] = 102
    first, second = (line["mse"] for line in distances(World(tmp_path, "cpu"), pictures))
    assert first["seed"] == pytest.approx(2 * 0.04 / 3, rel=1e-5)
    assert first["noise"] == pytest.approx((1.0 + 0.64 + 1.0) / 3, rel=1e-5)
    assert first["prompt"] == pytest.approx(0.04 / 3, rel=1e-5)
    assert second == pytest.approx({"seed": 0.0, "noise": 0.0, "prompt": 0.16})


def test_the_verdict_is_a_ratio_of_means():
    head = {"settings": {"seeds": 3, "recipe": {"steps": 5, "batch_size": 4}}}
    clip = {"seed": 0.9, "noise": 0.5, "prompt": 0.4}

    def verdicts(*seeds):
        mse = [{"seed": s, "noise": 0.1, "prompt": 0.05} for s in seeds]
        units = [{"unit": str(n), "mse": m, "clip": clip} for n, m in enumerate(mse)]
        found = summarise(head, units)
        return [f.passed for f in found.figures], found.figures[-1].value

    assert verdicts(0.01, 0.03)[0] == [True, True, None]
    assert verdicts(0.02, 0.05) == ([True, False, None], "50% of 2 pictures, by MSE")


@pytest.mark.parametrize("option", ["--anew", "--recorded", "--place=rich=/tmp"])
def test_no_answer_is_asked_for(proof, tmp_path, capsys, option):
    assert evaluate("seed-consistency", proof, tmp_path, *SMALL, option) == 2
    assert f"unrecognized arguments: {option}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_models_are_trained_once_and_kept(proof, tmp_path, capsys):
    assert evaluate("seed-consistency", proof, tmp_path, *SMALL) == 0
    out = capsys.readouterr().out
    assert "another seed" in out and "models/seed-1" in out and "precompute trak" in out
    lines = read_lines(tmp_path / "results" / "seed-consistency.jsonl")
    assert len(lines) == 9 and lines[1]["clip"]["seed"] <= 1.0001  # a head, eight pictures
    assert all(line["mse"]["seed"] > 0 for line in lines[1:])
    trained = read_lines(tmp_path / "results" / "leave-k-out.jsonl")
    assert evaluate("seed-consistency", proof, tmp_path, *SMALL) == 0
    assert read_lines(tmp_path / "results" / "seed-consistency.jsonl") == lines
    assert read_lines(tmp_path / "results" / "leave-k-out.jsonl") == trained
    assert (tmp_path / "results" / "seed-consistency.png").is_file()
    assert evaluate("seed-consistency", proof, tmp_path, *SMALL[:-1], "1") == 2


def test_longer_training_is_another_run(proof, tmp_path, capsys):
    assert evaluate("seed-consistency", proof, tmp_path, *SMALL) == 0
    more = ("--train-steps", "7")
    assert evaluate("seed-consistency", proof, tmp_path, *SMALL, *more) == 0
    assert "2 models, 7 steps" in capsys.readouterr().out
    lines = read_lines(tmp_path / "results" / "leave-k-out.jsonl")
    steps = {line["run"]: line["settings"]["recipe"]["steps"] for line in lines if "head" in line}
    own, longer = ([line for line in lines if line["run"] == run] for run in steps)
    before, after = steps.values()
    assert before != after == 7
    # the model itself was not trained for so long: nothing to be the same as
    assert [sum("weights_differ_by" in line for line in some) for some in (own, longer)] == [1, 0]
    assert evaluate("seed-consistency", proof, tmp_path, *SMALL, "--train-steps", "0") == 2
