"""AP by hand, heat inside boxes by hand, and both verbs end to end on a tiny set of collages."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from evaluation.attention import figures_of
from evaluation.data import load_records
from evaluation.detector import (
    ABSENT,
    Case,
    asked_for,
    average_precision,
    cases,
    judged,
    of_unseen,
    pointed,
)
from evaluation.results import read_lines
from precompute.extras import install_encoder
from tests.collages import collage_set
from tests.evaluation.tiny_world import evaluate
from tests.tiny_detector import tiny_detector


def unit(true, found):
    return {"true": true, "found": found}


def test_of_unseen_drawings_only_their_own_phrases_count():
    unit = {
        "true": [["cat", 0, 0, 4, 4], ["dog", 6, 6, 9, 9]],
        "unseen": [False, True],
        "found": [["cat", 0.9, 0, 0, 4, 4], ["dog", 0.8, 0, 0, 4, 4], ["dog", 0.3, 6, 6, 9, 9]],
    }
    assert judged(unit) == ([(0.9, True), (0.8, False), (0.3, True)], 2)
    assert judged(of_unseen(unit)) == ([(0.8, False), (0.3, True)], 1)
    assert pointed(of_unseen(unit)) == (0, 1)


def test_average_precision_by_hand():
    """Ranked right, wrong, right of three objects: precision 1 up to recall 1/3, then 2/3."""
    hits = [([(0.9, True), (0.5, True)], 2), ([(0.8, False)], 1)]
    assert average_precision(hits) == pytest.approx(1 / 3 + 1 / 3 * 2 / 3)
    assert average_precision([([], 2)]) == 0 and average_precision([]) == 0
    assert average_precision([([(0.4, True)], 1), ([(0.3, True), (0.1, False)], 1)]) == 1


def test_a_box_is_found_once_by_its_own_phrase():
    true = [["dog", 0, 0, 10, 10], ["cat", 20, 0, 30, 10]]
    found = [
        ["dog", 0.9, 0, 0, 10, 9],
        ["dog", 0.8, 0, 0, 10, 10],  # the same dog again
        ["cat", 0.7, 0, 0, 10, 10],  # a dog
        ["cat", 0.6, 20, 0, 30, 6],
        ["cat", 0.5, 20, 0, 24, 10],  # too little of it
    ]
    hits, objects = judged(unit(true, found))
    assert hits == [(0.9, True), (0.8, False), (0.7, False), (0.6, True), (0.5, False)]
    assert objects == 2 and pointed(unit(true, found)) == (1, 2)
    alone, _ = judged(unit(true, found), named=False)
    assert [hit for _, hit in alone] == [True, False, False, True, False]


def test_other_names_share_no_word():
    case = Case("x", None, (), ("red ball", "box"), (True, False))
    asked = asked_for(case, ["blue ball", "box", "dog", "cat", "red house", "tree", "cow"])
    assert asked[:2] == ("red ball", "box") and len(asked) == 5
    assert set(asked[2:]) <= {"dog", "cat", "tree", "cow"}
    assert asked_for(case, ()) == ("red ball", "box")


def test_heat_inside_a_box_by_hand():
    heat = np.zeros((8, 8), dtype=np.float32)
    heat[2:4, 2:4], heat[7, 7] = 1.0, 0.5
    found = figures_of(heat, "dog", (2.0, 2.0, 4.0, 4.0))
    assert found == {"mass": round(4 / 4.5, 5), "area": 4 / 64, "peak": True, "iou": 1.0}
    assert figures_of(heat * 0, "dog", (0.0, 0.0, 4.0, 4.0))["mass"] == 0


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model):
    folder = collage_set(tmp_path_factory.mktemp("collages"))
    shutil.copytree(tiny_model, folder / "model")
    return folder


def test_cases_are_what_the_records_say(world):
    table = cases(load_records(world), world, None)
    (held_out,) = table["held-out collages"]
    assert held_out.phrases == ("blue ball", "brown box")
    assert held_out.boxes == ((1.0, 5.0, 15.0, 19.0), (17.0, 9.0, 30.0, 22.0))
    assert len(table["training collages"]) == 1  # as many as held-out ones
    assert [case.phrases for case in table["held-out drawings"]] == [
        ("brown box",),
        ("purple ring",),
    ]


def test_detector_runs_resumes_and_reports(world, tmp_path, capsys):
    assert evaluate("detector", world, tmp_path) == 2
    assert "precompute train detector" in capsys.readouterr().err
    install_encoder(world, "detector", tiny_detector(tmp_path / "model"))
    assert evaluate("detector", world, tmp_path) == 0
    first = capsys.readouterr().out
    assert "AP50, held-out collages" in first and "with three others" in first
    lines = read_lines(tmp_path / "results" / "detector.jsonl")
    absent = [line for line in lines if "absent" in line]
    assert len([line for line in lines if "unit" in line]) == 3 * 4 + len(absent)
    assert absent and {line["prompt"] for line in absent} == set(ABSENT)
    for line in absent:
        own = {word for phrase, *_ in line["true"] for word in phrase.split()}
        assert not own & set(line["absent"].split()) and line["asked"][0][0] == line["absent"]
        assert (len(line["asked"][0]) > 1) == (line["prompt"] == ABSENT[1])
    assert "detector finds what is not there, own phrases along" in first
    assert evaluate("detector", world, tmp_path) == 0
    assert read_lines(tmp_path / "results" / "detector.jsonl") == lines
    assert capsys.readouterr().out == first


def test_attention_runs_resumes_and_reports(world, tmp_path, capsys):
    assert evaluate("attention", world, tmp_path) == 0
    first = capsys.readouterr().out
    assert "heat inside the box, training collages" in first
    lines = read_lines(tmp_path / "results" / "attention.jsonl")
    assert evaluate("attention", world, tmp_path) == 0
    assert read_lines(tmp_path / "results" / "attention.jsonl") == lines
