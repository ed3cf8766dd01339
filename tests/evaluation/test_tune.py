"""Tuning: candidates, who wins, and a tiny round that freezes what it found."""

from __future__ import annotations

import numpy as np
import pytest

from attribution import defaults
from attribution.index import Index
from attribution.methods import projected
from evaluation import tune
from evaluation.counterfactual import arms, frozen
from evaluation.counterfactual.arms import Arm
from evaluation.counterfactual.tasks import TUNING
from evaluation.results import read_lines
from tests.evaluation.tiny_world import evaluate

SMALL = ("--workers", "0", "--stride", "500", "--steps", "1", "--guidance", "1", "--k", "2")


def tried(text, places=(), **own):
    return list(tune.candidates(Arm.parse(text), places, own))


def test_each_setting_is_changed_by_itself_around_the_centre():
    own = {"damping": 0.1, "draws": 4}
    texts = [arm.text for arm in tried("dtrak", **own)]
    assert texts[0] == "dtrak" and len(texts) == len(set(texts)) == 1 + 4 + 1
    moved = [arm.text for arm in tried("dtrak:damping=1.0", ("wide",), **own)]
    assert moved[0] == "dtrak:damping=1.0" and "dtrak" in moved
    assert "dtrak:damping=1.0:draws=16" in moved and "dtrak@wide:damping=1.0" in moved
    assert [arm.text for arm in tried("clip")] == ["clip"]
    # a default that is in no grid: what others had by default is tried by name
    other = [arm.text for arm in tried("dtrak", damping=3.0, draws=16)]
    assert "dtrak:damping=0.1" in other and "dtrak:draws=4" in other and len(other) == 1 + 5 + 1


def test_the_defaults_are_the_methods_own(proof):
    index = Index.open(proof)
    assert arms.configuration(Arm("dtrak"), index) == {"damping": 1.0, "draws": 4}
    assert arms.configuration(Arm("trak", options=(("draws", 8),)), index)["draws"] == 8
    own = arms.configuration(Arm("abu-ekfac"), index)
    assert own["relative_increase"] == defaults.RELATIVE_INCREASE and own["curvature"] == "ekfac"
    assert set(tune.GRIDS["abu"]) <= set(own) and set(tune.GRIDS["trak"]) <= {"damping", "draws"}
    assert arms.configuration(Arm("clip"), index) == {}


def test_the_product_runs_with_what_tuning_froze(proof):
    index = Index.open(proof)
    settings = frozen.read(frozen.PATH)
    assert {"abu", "abu-ekfac"} <= set(settings)
    for name, text in settings.items():
        assert arms.configuration(Arm(name), index) == arms.configuration(Arm.parse(text), index)


def test_a_default_that_changes_makes_answers_stale(proof, monkeypatch):
    index = Index.open(proof)
    texts, draws = ("abu", "abu:relative_increase=0.5", "trak", "clip"), defaults.DRAWS
    before = {text: arms.digest(Arm.parse(text), index) for text in texts}
    monkeypatch.setattr(defaults, "RELATIVE_INCREASE", 0.5)
    monkeypatch.setattr(defaults, "DRAWS", 7)
    monkeypatch.setattr(projected, "DRAWS", 7)
    after = {text: arms.digest(Arm.parse(text), index) for text in texts}
    assert [before[t] == after[t] for t in texts] == [False, False, False, True]
    monkeypatch.setattr(defaults, "DRAWS", draws)
    named = "abu:relative_increase=0.5"
    assert arms.digest(Arm.parse(named), index) == before[named]
    assert arms.digest(Arm.parse("abu"), index) != before["abu"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--k", "0"), "from 1, not 0"),
        (("--k", "500"), "the world has 16 training records"),
        (("--only", ","), "nothing is named"),
        (("--wide", "dtrak"), "METHOD=PLACE"),
        (("--wide", "guess=far"), "the methods of this round"),
        (("--only", "trak@far:damping=1.0"), "--place far=DIR"),
    ],
)
def test_bad_rounds_are_refused_before_any_work(proof, tmp_path, capsys, more, words):
    assert evaluate("tune", proof, tmp_path, *SMALL, *more) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and words in error[0]
    assert not list(tmp_path.iterdir())


def test_the_greatest_mean_wins_and_ties_change_nothing():
    assert tune.winner("a", {"a": 1.0, "b": 2.0, "c": 0.0}) == "b"
    assert tune.winner("a", {"b": 2.0, "a": 2.0}) == "a"


def test_a_round_freezes_what_lost_most_on_the_tuning_queries(proof, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tune, "GRIDS", {"abu": {"damping": (0.1, 1000.0)}})
    path = tmp_path / "frozen.json"
    more = (*SMALL, "--methods", "abu,pixel", "--frozen", str(path))
    assert evaluate("tune", proof, tmp_path, *more) == 0
    assert "greatest" in capsys.readouterr().out
    units = {u["unit"]: u for u in read_lines(tmp_path / "results" / "tune.jsonl") if "unit" in u}
    means = units["1 abu"]["means"]
    assert set(means) == {"abu", "abu:damping=1000.0"} and set(units["1 pixel"]["means"]) == {
        "pixel"
    }
    assert {unit["frozen"] for unit in units.values()} == {path.as_posix()}
    assert frozen.read(path) == {"abu": tune.winner("abu", means), "pixel": "pixel"}
    lines = [u for u in read_lines(tmp_path / "results" / "leave-k-out.jsonl") if "unit" in u]
    base = lines[0]
    tuning = [entry["id"] for entry in base["gallery"][:TUNING]]
    answers = {u["query"]: u["rows"] for u in lines if u.get("arm") == "abu"}
    assert set(answers) == set(tuning)
    removed = {tuple(u["removed"]): u for u in lines if u["unit"].startswith("training")}
    gains = [
        removed[tuple(sorted(answers[q][:2]))]["losses"][n] - base["losses"][n]
        for n, q in enumerate(tuning)
    ]
    assert np.isclose(means["abu"], np.mean(gains), rtol=1e-4)
    assert evaluate("tune", proof, tmp_path, *more) == 0  # a second round: trainings are there
    again = [u for u in read_lines(tmp_path / "results" / "leave-k-out.jsonl") if "unit" in u]
    assert [u for u in again if u["unit"].startswith("training")] == list(removed.values())


def test_only_what_is_named_is_tried(proof, tmp_path):
    path, asked = tmp_path / "frozen.json", "pixel,clip,abu:damping=1000.0,abu"
    assert evaluate("tune", proof, tmp_path, *SMALL, "--only", asked, "--frozen", str(path)) == 0
    lines = read_lines(tmp_path / "results" / "tune.jsonl")
    tried = {u["method"]: set(u["means"]) for u in lines if "unit" in u}
    assert tried == {"pixel": {"pixel"}, "clip": {"clip"}, "abu": {"abu", "abu:damping=1000.0"}}
