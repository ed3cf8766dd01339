"""Forgetting: the statistics by hand, and a tiny run with every kind of point."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from evaluation import selectivity
from evaluation.results import read_lines
from evaluation.selectivity import Paired, grouped, ratio, summary
from tests.evaluation.tiny_world import evaluate

SETTINGS = {"config": {"relative_increase": 0.1}, "others": 2, "steps": 20}
SHORT = ("--steps", "2", "--guidance", "1", "--queries", "2", "--others", "3")


def unit(query, method, target, others, **more):
    line = {"query": str(query), "method": method, "target": target, "others": others}
    return line | {"reached": 0.1} | more


def lines(ratios, method, **more):
    """A line a query: the others' error is 1e-3."""
    return [unit(n, method, r * 1e-3, [5e-4, 15e-4], **more) for n, r in enumerate(ratios)]


def figure(found, words):
    (one,) = [f for f in found.figures if words in f.name]
    return one


def test_a_ratio_is_the_targets_error_over_the_others_mean():
    assert ratio(unit(0, "abu", 0.06, [0.01, 0.03])) == pytest.approx(3.0)
    # errors that 8 bits cannot show count as what rounding does
    assert ratio(unit(0, "abu", 0.0, [0.0])) == 1.0
    assert ratio(unit(0, "abu", selectivity.ROUNDING * 5, [0.0, 0.0])) == pytest.approx(5.0)


def test_pairs_are_compared_by_their_logarithms():
    ours, theirs = lines([2.0, 8.0, 3.0, 1.0], "abu"), lines([1.0, 2.0, 3.0, 9.0][:3], "abu-sgd")
    found = Paired.of(
        *(grouped(rows)["loss"][m] for rows, m in ((ours, "abu"), (theirs, "abu-sgd")))
    )
    logs = np.log([2.0, 4.0, 1.0])
    assert found.n == 3 and found.wins == 2 and found.p == 0.5
    assert found.mean == pytest.approx(logs.mean())
    assert found.error == pytest.approx(logs.std(ddof=1) / math.sqrt(3))
    assert found.plain == pytest.approx((1.0 + 6.0 + 0.0) / 3)
    assert found.factor.startswith("×2.00 (")


def test_one_heavy_query_hides_a_difference_from_the_plain_mean_only():
    theirs = [2.0, 3.0, 4.0, 2.5, 3.5, 900.0]
    units = lines([1.5 * r for r in theirs[:5]] + [800.0], "abu") + lines(theirs, "abu-sgd")
    found = summary(units, SETTINGS)
    assert figure(found, "paired ln").passed is True
    assert figure(found, "paired ratios").passed is False
    assert "better in 5 of 6" in figure(found, "paired ln").value


def test_points_and_methods_are_kept_apart_and_failures_left_out():
    units = [
        *lines([4.0, 5.0], "abu"),
        *lines([2.0, 2.5], "abu-sgd"),
        *lines([9.0, 9.0, 9.0], "abu-ekfac"),
        *lines([9.0, 9.0], "abu:steps=2"),
        *lines([4.0, 4.0], "abu", point="share 0.25", clip=[0.7, 0.9]),
        *lines([1.0], "abu-sgd", point="share 0.25"),
        unit(1, "abu-sgd", 1.0, [1.0], point="share 0.25", found=False),
    ]
    found = summary(units, SETTINGS)
    names = [row[:3] for row in found.table[1:]]
    loss, share = "target loss (+10%)", "forgetting (25%)"
    assert names == [(loss, "abu", "2"), (loss, "abu-sgd", "2"), (loss, "abu-ekfac", "3"),
                     (loss, "abu:steps=2", "2"),
                     (share, "abu", "2"), (share, "abu-sgd", "1")]  # fmt: skip
    assert "better in 1 of 1" in figure(found, f"{share}, abu against").value
    assert figure(found, f"{share}, abu against").passed is None  # one pair is no verdict
    assert figure(found, f"{loss}, abu-ekfac against").passed is True  # the default
    assert figure(found, f"{loss}, abu:steps=2 against").passed is None  # nothing was promised
    assert figure(found, f"{loss}, abu against").passed is True
    assert found.table[5][-1] == "0.700, others 0.900" and "1 of 13" in found.notes[1]


def test_several_steps_are_held_against_as_many_of_gradient_ascent():
    one, five = lines([2.0, 3.0], "abu-sgd"), lines([4.0, 6.0], "abu-sgd:steps=5")
    ours = lines([8.0, 12.0], "abu:damping=1:steps=5") + lines([8.0, 12.0], "abu:steps=2")
    found = summary(one + five + ours, SETTINGS)
    assert "×2.00" in figure(found, "abu:damping=1:steps=5 against abu-sgd:steps=5,").value
    assert "×4.00" in figure(found, "abu:steps=2 against abu-sgd,").value  # two were not run
    assert "×2.00" in figure(found, "abu-sgd:steps=5 against abu-sgd,").value
    assert not any(
        f", abu-sgd {word}" in f.name for f in found.figures for word in ("against", "minus")
    )


def test_one_query_is_no_figure():
    found = summary(lines([4.0], "abu") + lines([2.0], "abu-sgd"), SETTINGS)
    assert all(f.passed is None for f in found.figures)


def test_shares_are_reached_and_methods_join_a_run(tiny_index, tmp_path, capsys):
    path = tmp_path / "results" / "forgetting.jsonl"
    some = ("--methods", "abu-sgd:draws=2", "--shares", "0.02")
    assert evaluate("forgetting", tiny_index, tmp_path, *SHORT, *some) == 0
    first = [line for line in read_lines(path) if "unit" in line]
    assert [line["point"] for line in first] == ["loss", "share 0.02"] * 2
    for line in first:
        assert len(line["others"]) == 3 and len(line["clip"]) == 2
        if line.get("found"):
            assert line["target"] == pytest.approx(line["wanted"], rel=0.26)
            assert line["scale"] != 1.0
    assert any(line.get("found") for line in first)
    with (tmp_path / "results" / "forgetting.csv").open() as file:
        rows = {(row["query"], row["at equal"]): row for row in csv.DictReader(file)}
    found = [line for line in first if line.get("found", True)]
    assert len(rows) == len(found)
    for line in found:
        row = rows[line["query"], line["point"]]
        assert float(row["target_mse"]) == line["target"] and row["method"] == line["method"]
        assert float(row["others_mse"]) == pytest.approx(np.mean(line["others"]), rel=1e-5)
        assert [float(row["target_clip"]), float(row["others_clip"])] == line["clip"]
    more = ("--methods", "abu-sgd:draws=2,abu:damping=1", "--shares", "0.02")
    assert evaluate("forgetting", tiny_index, tmp_path, *SHORT, *more) == 0
    both = [line for line in read_lines(path) if "unit" in line]
    assert both[: len(first)] == first and len(both) == 2 * len(first)
    assert {line["run"] for line in both} == {first[0]["run"]}
    assert "abu:damping=1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--methods", "abu:sped=2"), "the options are weight_set"),
        (("--methods", "abu:steps=0"), "1 to 1000 steps"),
        (("--methods", "clip"), "no method 'clip'"),
        (("--methods", "abu-full"), "variants --out"),
    ],
)
def test_bad_methods_are_refused(tiny_index, tmp_path, capsys, arguments, words):
    assert evaluate("forgetting", tiny_index, tmp_path, *SHORT, *arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
