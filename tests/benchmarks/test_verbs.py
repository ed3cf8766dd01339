"""The benchmarks end to end on a tiny index: the engine and the page as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import VERBS
from benchmarks.crowded import FIXED, PACED
from evaluation.results import read_lines
from evaluation.verbs import main


def measure(verb: str, index: Path, place: Path, *more: str) -> int:
    """The command itself, in this process; results and cache below `place`."""
    options = ("--results", str(place / "results"), "--cache", str(place / "cache"))
    return main("benchmarks", VERBS, [verb, "--index", str(index), *options, *more])


def test_a_warm_query_is_broken_down_by_stage(tiny_index, tmp_path, capsys):
    assert measure("speed", tiny_index, tmp_path, "--queries", "1", "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert "share of scoring inside UNet forwards" in out and "| unlearn |" in out
    _, line = read_lines(tmp_path / "results" / "speed.jsonl")
    assert 0 < line["unet"]["scoring"] < line["stages"]["score"] < line["attribute"]
    assert line["samples"]["scoring"] >= line["evaluated_cells"] > 0
    assert line["peak_mib"] > 100


def test_a_crowded_machine_is_set_against_itself(tiny_index, tmp_path, capsys):
    assert measure("crowded", tiny_index, tmp_path, "--rounds", "1", "--pictures", "1") == 0
    assert "a forward of 64 samples, as many as help" in capsys.readouterr().out
    _, line = read_lines(tmp_path / "results" / "crowded.jsonl")
    for state in ("alone", "crowded"):
        assert set(line[state]) == {FIXED, PACED}
        for taken in line[state].values():
            assert set(taken) == {"picture", "batch"} and min(taken.values()) > 0


@pytest.mark.slow
def test_the_page_boots_and_answers(tiny_index, tmp_path, capsys):
    assert measure("boot", tiny_index, tmp_path, "--cpu-threads", "1", "--top-k", "4") == 0
    assert "boot to the first answer" in capsys.readouterr().out
    _, line = read_lines(tmp_path / "results" / "boot.jsonl")
    assert 0 < line["page"] < line["picture"] < line["answer"]
    assert line["shown"] > 0


def test_an_index_that_is_not_there_is_refused_in_a_line(tmp_path, capsys):
    assert measure("speed", tmp_path / "none", tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1
