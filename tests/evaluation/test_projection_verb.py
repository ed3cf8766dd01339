"""What a projection costs, end to end on a tiny index: nothing at full width, 1/√d below."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.projection import overlap
from evaluation.results import read_lines
from tests.evaluation.tiny_world import evaluate

ARGUMENTS = (
    *("--steps", "2", "--guidance", "1", "--queries", "2", "--records", "6"),
    *("--dims", "64,4096"),
)


@pytest.fixture(scope="module")
def place(tiny_index, tmp_path_factory):
    folder = tmp_path_factory.mktemp("projection")
    assert evaluate("projection", tiny_index, folder, *ARGUMENTS) == 0
    return folder


def lines_of(place):
    lines = read_lines(place / "results" / "projection.jsonl")
    return {(line["method"], line["dim"]): line for line in lines if "unit" in line}


def test_full_width_loses_nothing_and_a_narrow_row_what_is_predicted(place):
    units = lines_of(place)
    assert set(units) == {(m, d) for m in ("trak", "dtrak", "datainf") for d in (64, 4096)}
    for (method, dim), unit in units.items():
        if dim == 4096:
            assert unit["spearman"] == 1.0 and unit["overlap"] == 1.0 and unit["error"] < 1e-3
        elif method == "dtrak":  # one projection for all layers
            assert 0.7 < unit["error"] * unit["width"] ** 0.5 < 1.4
        else:  # one for each layer errs by more, for equal widths by √layers at the most
            assert 0.7 < unit["error"] * unit["width"] ** 0.5 < 14**0.5 * 1.4
        assert unit["bytes"] == 2 * 2 * unit["width"]


def test_a_second_run_computes_nothing_and_prints_the_table(tiny_index, place, capsys):
    before = read_lines(place / "results" / "projection.jsonl")
    assert evaluate("projection", tiny_index, place, *ARGUMENTS) == 0
    assert read_lines(place / "results" / "projection.jsonl") == before
    assert "| dtrak | 64 | 256 |" in capsys.readouterr().out


def test_bad_numbers_are_refused(tiny_index, tmp_path, capsys):
    assert evaluate("projection", tiny_index, tmp_path, "--dims", "0") == 2
    assert "at least 1" in capsys.readouterr().err


def test_overlap_counts_the_shared_top():
    one = np.array([5.0, 4.0, 3.0, 2.0])
    assert overlap(one, one, 2) == 1.0
    assert overlap(one, one[::-1], 2) == 0.0
    assert overlap(one, np.array([5.0, 1.0, 4.0, 2.0]), 2) == 0.5
