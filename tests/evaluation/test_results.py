"""Results are lines that survive a kill, and belong to one run."""

from __future__ import annotations

from pathlib import Path

from evaluation import results
from evaluation.counterfactual.lines import fullest
from evaluation.results import Figure, Results, Summary
from evaluation.tables import write_csv

RESULTS = Path(__file__).parents[2] / results.FOLDER


def test_finished_units_are_found_again(tmp_path):
    first = Results.open(tmp_path, "verb", "index-1", {"steps": 5})
    first.add("a", value=1)
    again = Results.open(tmp_path, "verb", "index-1", {"steps": 5})
    assert again.units["a"]["value"] == 1


def test_another_index_or_setting_is_another_run(tmp_path):
    Results.open(tmp_path, "verb", "index-1", {"steps": 5}).add("a", value=1)
    assert not Results.open(tmp_path, "verb", "index-2", {"steps": 5}).units
    assert not Results.open(tmp_path, "verb", "index-1", {"steps": 6}).units


def test_half_a_line_of_a_killed_run_is_skipped(tmp_path):
    run = Results.open(tmp_path, "verb", "index", {})
    run.add("a", value=1)
    with run.path.open("a") as file:
        file.write('{"unit": "b", "val')
    again = Results.open(tmp_path, "verb", "index", {})
    assert list(again.units) == ["a"]
    again.add("c", value=3)
    assert list(Results.open(tmp_path, "verb", "index", {}).units) == ["a", "c"]


def test_the_latest_run_is_reported_with_machine_and_command(tmp_path):
    Results.open(tmp_path, "verb", "old", {}).add("a", value=1)
    Results.open(tmp_path, "verb", "new", {}).add("a", value=2)
    found = results.latest(tmp_path, "verb")
    assert found is not None
    head, units = found
    assert head["subject"] == "new" and [unit["value"] for unit in units] == [2]
    assert head["machine"]["torch"] and head["command"] and head["date"]


def test_a_run_that_moved_names_every_machine(tmp_path):
    for processor in ("one", "other", "one"):
        run = Results.open(tmp_path, "verb", "index", {})
        run.head["machine"] |= {"processor": processor, "gpu": None, "cores": 2}
        run.add(f"unit {len(run.units)}")
    found = results.latest(tmp_path, "verb")
    assert found is not None
    said = results.where(found[0])
    assert said.startswith("one (2 cores) and other (2 cores); torch ") and "and" not in said[30:]


def test_markdown_says_pass_and_fail():
    figures = (Figure("a", "1", ">= 1", True), Figure("b", "0", ">= 1", False), Figure("c", "2"))
    text = results.markdown(Summary(figures, (("x", "y"), ("1", "2")), ("A note.",)))
    assert "| a | 1 | >= 1 | pass |" in text and "**fail**" in text
    assert "| 1 | 2 |" in text and text.endswith("A note.")


def test_what_is_published_of_leave_k_out_is_what_its_lines_say(tmp_path):
    """`tables` and `report` were run after the last line."""
    lines = fullest(RESULTS)
    assert lines is not None
    write_csv(lines, tmp_path / "leave-k-out.csv")
    published = (RESULTS / "leave-k-out.csv").read_bytes()
    assert (tmp_path / "leave-k-out.csv").read_bytes() == published
    for page in ("leave-k-out.md", "README.md"):
        assert f"(median of {len(lines.trainings)};" in (RESULTS / page).read_text("utf-8"), page
