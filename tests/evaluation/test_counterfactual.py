"""What the lines of leave-K-out say, against sums by hand."""

from __future__ import annotations

import csv
import itertools
import math
import shutil

import numpy as np
import pytest
from PIL import Image

from attribution.types import UserError
from evaluation.counterfactual import compare, curves, foretold, frozen, tables, verdicts
from evaluation.counterfactual.arms import Arm, read, resolved
from evaluation.counterfactual.ledger import packed, unpacked, write_pictures
from evaluation.counterfactual.lines import Lines
from evaluation.counterfactual.strips import sheet
from evaluation.counterfactual.tasks import (
    TUNED,
    TUNING,
    middle_first,
    random_order,
    random_sizes,
    training,
)
from evaluation.statistics import bootstrap
from evaluation.tables import write_others
from precompute.recipes.model.config import UnetConfig

RECIPE = UnetConfig(steps=7)
QUERIES = [f"q{n}" for n in range(TUNING + 3)]
HEAD = {
    "run": "r", "command": "c", "machine": {"processor": "p"},
    "settings": {
        "recipe": {**vars(RECIPE), "channels": list(RECIPE.channels)},
        "steps": 2, "guidance": 1.0, "stride": 5, "measured": len(QUERIES),
    },
}  # fmt: skip
BASE = {
    "unit": "base",
    "gallery": [
        {"id": q, "prompt": f"{q}, by Ann", "seed": 1, "category": "ab"[n % 2]}
        for n, q in enumerate(QUERIES)
    ],
    "losses": [0.5] * len(QUERIES),
    "related": [[(n + 2) % len(QUERIES)] for n in range(len(QUERIES))],
}


def trained(removed, losses, seed=0, **more):
    """A training's line; losses: by query, what is not named stays."""
    key = training(removed, RECIPE, seed).key
    places = [0.5 + losses.get(q, 0.0) for q in QUERIES]
    line = {"removed": sorted(removed), "seed": seed, "losses": places, "seconds": [10.0, 1.0],
            "threads": 1, "device": "cpu", "mse": [2 * (x - 0.5) for x in places],
            "clip": [1 - (x - 0.5) for x in places]}  # fmt: skip
    return {"unit": f"training {key}", **line, **more}


def answer(query, arm, rows):
    return {"unit": f"answer {query} {arm}", "query": query, "arm": arm, "rows": rows}


def lines_of(gains, k=2, extra=()):
    """gains: arm → ΔL of each of the three reported queries; each removal is its own."""
    units = [BASE, {"unit": "arms", "labels": {arm: arm for arm in gains}}]
    number = itertools.count(0, k)
    for arm, values in gains.items():
        for query, value in zip(QUERIES[TUNING:], values, strict=True):
            first = next(number)
            rows = list(range(first, first + k))
            units.append(answer(query, arm, [*rows, *range(1000, 1020)]))
            if value is not None:
                units.append(trained(rows, {query: value}))
    return Lines(HEAD, [*units, *extra])


def test_the_bootstrap_interval_by_hand():
    """The mean of eight values, one of them 1 and the rest 0, redrawn: Binomial(8, 1/8) / 8."""
    chances = [math.comb(8, k) * (1 / 8) ** k * (7 / 8) ** (8 - k) for k in range(9)]
    below = np.cumsum(chances)
    low, high = int(np.argmax(below >= 0.025)) / 8, int(np.argmax(below >= 0.975)) / 8
    assert (low, high) == (0.0, 3 / 8)
    rows = np.array([1.0, *[0.0] * 7])
    assert bootstrap(lambda x: float(x.mean()), rows, draws=20000) == (low, high)


def test_differences_are_paired_and_best_and_second_marked():
    gains = {"abu": [0.03, 0.05, 0.04], "dtrak": [0.02, 0.04, 0.03], "clip": [0.0, 0.09, 0.0]}
    found = compare.block(lines_of(gains), {arm: arm for arm in gains}, 2)
    assert found.queries == tuple(QUERIES[TUNING:])
    assert found.order("delta_loss") == ["abu", "dtrak", "clip"] == found.order("clip")
    paired = found.against_best("abu", "delta_loss")
    # 0.01 for every query: however they are redrawn
    assert (paired.other, paired.better, paired.n) == ("dtrak", 3, 3)
    assert (paired.mean, paired.low, paired.high) == pytest.approx((0.01, 0.01, 0.01))
    # three values redrawn: the least mean is three times the least one
    wide = found.paired("clip", "abu", "delta_loss")
    assert (wide.low, wide.high) == pytest.approx((-0.04, 0.04)) and wide.better == 1
    assert found.paired("abu", "dtrak", "clip").mean == pytest.approx(0.01)  # less like: more lost
    assert compare.cell(found, "abu", "delta_loss") == "**40.00 ± 5.77**"
    assert compare.cell(found, "dtrak", "delta_loss").startswith("*30.00")
    assert not compare.cell(found, "clip", "delta_loss").startswith("*")
    # clip is last, first, last
    ranks = {arm: found.mean_rank(arm, "delta_loss") for arm in gains}
    assert ranks == pytest.approx({"abu": 4 / 3, "dtrak": 7 / 3, "clip": 7 / 3})
    assert found.mean_rank("clip", "clip") == pytest.approx(7 / 3)
    assert compare.difference(paired) == "+10.00 (10.00 to 10.00) against dtrak, 3 of 3"


def test_only_queries_that_all_have_and_none_of_the_tuning_ones(monkeypatch):
    gains = {"abu": [0.03, 0.05, 0.04], "dtrak": [0.02, None, 0.03], "clip": [0.2, None, None]}
    tuned = [answer(QUERIES[0], "abu", [900, 901]), trained([900, 901], {QUERIES[0]: 9.0})]
    lines = lines_of(gains, extra=tuned)
    found = compare.block(lines, {arm: arm for arm in gains}, 2)
    # clip has one query of three: it has only begun
    assert set(found.values) == {"abu", "dtrak"}
    assert found.queries == (QUERIES[TUNING], QUERIES[TUNING + 2])
    assert found.values["abu"]["delta_loss"].tolist() == pytest.approx([0.03, 0.04])
    # where one has enough for a verdict, fewer are a beginning
    monkeypatch.setattr(compare, "ENOUGH", 3)
    found = compare.block(lines, {arm: arm for arm in gains}, 2)
    assert found.begun == {"dtrak": 2, "clip": 1} and len(found.queries) == 3
    own = compare.block(lines, {"abu": "abu"}, 2, among=TUNED)
    assert own.queries == (QUERIES[0],)
    assert compare.block(lines, {"abu": "abu"}, 3) is None


def test_pictures_asked_about_last_stand_alone(monkeypatch, tmp_path):
    """The method is the one that the others chose, whoever is first here."""
    monkeypatch.setattr(verdicts, "SEEN", slice(TUNING, TUNING + 1))
    monkeypatch.setattr(tables, "CHECK", slice(TUNING + 1, None))
    gains = {"abu": [0.05, 0.01, 0.03], "abu-ekfac": [0.04, 0.09, 0.09], "clip": [0.0, 0.04, 0.04]}
    lines = lines_of(gains)
    told = [
        figure for figure in verdicts.summary(HEAD, lines.units).figures if "last" in figure.name
    ]
    assert [f.name.split(": ")[1] for f in told] == ["abu less the best other"]
    assert told[0].value.startswith("-20.00") and told[0].value.endswith("against clip, 0 of 2")
    assert told[0].passed is None
    rows = tables.comparison(lines, tables.asked_last(lines))
    assert [row[1:3] for row in rows[1:]] == [("abu-ekfac", "2"), ("clip", "2"), ("abu", "2")]
    # one method alone, or fewer pictures than half of them, say nothing
    assert tables.asked_last(lines_of({"abu": [0.05, 0.03, 0.0], "clip": [0.0, None, None]})) == []
    monkeypatch.setattr(tables, "CHECK", slice(TUNING, None))
    assert tables.asked_last(lines_of({"abu": [0.05, None, 0.0], "clip": [0.0, 0.1, None]})) == []


def test_answers_of_a_former_configuration_do_not_count():
    """One digest, another, and the first again: what was noted last says which is meant."""
    first, second = [{**answer("q4", "abu", rows), "digest": d} for d, rows in
                     (("one", [1, 2]), ("two", [3, 4]))]  # fmt: skip
    units = [BASE, first, second]
    assert Lines(HEAD, units).answers["abu"]["q4"] == [3, 4]
    for now, rows in (("one", [1, 2]), ("two", [3, 4])):
        noted = {"unit": "digests", "arms": {"abu": now}}
        assert Lines(HEAD, [*units, noted]).answers == {"abu": {"q4": rows}}
    noted = {"unit": "digests", "arms": {"abu": "three"}}
    assert Lines(HEAD, [*units, noted]).answers == {}


def test_a_shared_removal_counts_for_both():
    units = [BASE, answer(QUERIES[4], "abu", [3, 1, 2]), answer(QUERIES[4], "clip", [2, 3, 9])]
    lines = Lines(HEAD, [*units, trained([2, 3], {QUERIES[4]: 0.01}), trained([1, 3], {})])
    (clip,) = lines.outcomes("clip")
    (abu,) = lines.outcomes("abu")
    assert (clip.k, clip.delta_loss) == (2, pytest.approx(0.01)) and abu.delta_loss == 0.0


def test_the_random_curve_is_a_mean_over_draws_and_says_what_a_removal_equals():
    orders = [[500, 501, 502, 503], [600, 601, 602, 603]]
    extra = [{"unit": f"random {n}", "draw": n, "rows": order} for n, order in enumerate(orders)]
    for k, (a, b) in {1: (0.0, 0.02), 2: (0.01, 0.03), 4: (0.05, 0.05)}.items():
        for order, value in zip(orders, (a, b), strict=True):
            extra.append(trained(order[:k], dict.fromkeys(QUERIES, value)))
    lines = lines_of({"abu": [0.03, 0.04, 0.035]}, extra=extra)
    assert lines.random_sizes == [1, 2, 4]
    assert lines.random_outcomes(2, QUERIES[4:5])[0].delta_loss == pytest.approx(0.02)
    found = compare.block(lines, {"abu": "abu"}, 2)
    assert found.mean("random", "delta_loss") == pytest.approx(0.02)
    # 0.035 is half-way from 0.02 at 2 to 0.05 at 4
    assert tables.equals_random(lines, found, "abu") == "3"
    summary = verdicts.summary(HEAD, lines.units)
    assert any("1.75 times, equals removing 3 at random" in f.value for f in summary.figures)


def test_how_far_two_random_removals_lie_apart():
    """Losses of 0.5: draws 0.1 and 0.3 worse for the first picture, alike for the others."""
    extra = [{"unit": f"random {n}", "draw": n, "rows": [n, 10 + n]} for n in range(3)]
    extra += [trained([n, 10 + n], {"q0": 0.05 * (1 + 2 * n)}) for n in range(2)]
    gaps = verdicts.random_gaps(Lines(HEAD, [BASE, *extra]), 2)
    assert sorted(gaps) == pytest.approx([0.0] * (len(QUERIES) - 1) + [0.2])


def test_a_falling_curve_is_made_to_rise_and_its_ends_are_told():
    assert curves.rising([1.0, 3.0, 2.0, 4.0]).tolist() == [1.0, 2.5, 2.5, 4.0]
    assert curves.rising([3.0, 2.0, 1.0]).tolist() == [2.0] * 3
    assert curves.rising([4.0, 1.0, 1.0, 5.0]).tolist() == [2.0, 2.0, 2.0, 5.0]
    ks, curve = [5, 10, 20, 40], [1.0, 3.0, 2.0, 4.0]
    assert curves.equivalent(ks, curve, 1.75) == (7.5, "")
    assert curves.equivalent(ks, curve, 3.25) == (30.0, "")
    assert curves.shown(curves.equivalent(ks, curve, 0.5)) == "< 5"
    assert curves.shown(curves.equivalent(ks, curve, 4.0)) == "> 40"


def test_what_else_is_forgotten(tmp_path):
    """Table 4: the target, its nearest prompt, and other families."""
    target = QUERIES[4]  # of family a, its nearest is q6; of family b are q1, q3, q5
    losses = {target: 0.2, QUERIES[6]: 0.1, "q1": 0.01, "q3": 0.02, "q5": 0.03, "q0": 5.0}
    units = [BASE, {"unit": "arms", "labels": {"abu": "abu"}}, answer(target, "abu", [1, 2])]
    heads, row = tables.others(Lines(HEAD, [*units, trained([1, 2], losses)]))
    shown = dict(zip(heads, row, strict=True))
    assert shown["K"] == "2" and shown["target MSE ↑"].startswith("0.4000")
    assert shown["related MSE ↓"].startswith("0.2000")
    assert shown["other MSE ↓"].startswith("0.0400")
    assert shown["other CLIP ↑"].startswith("0.9800")
    assert (shown["without"], shown["pictures"]) == ("abu", "1")
    # the same pictures without two at random
    order = {"unit": "random 0", "draw": 0, "rows": [7, 8, 9]}
    more = [order, trained([7, 8], {target: 0.02, QUERIES[6]: 0.03})]
    _, row, anyway = tables.others(Lines(HEAD, [*units, trained([1, 2], losses), *more]))
    shown = dict(zip(heads, anyway, strict=True))
    assert (shown["K"], shown["without"], shown["pictures"]) == ("2", "random", "1")
    assert shown["target MSE ↑"].startswith("0.0400")
    assert shown["related MSE ↓"].startswith("0.0600")
    write_others(Lines(HEAD, [*units, trained([1, 2], losses), *more]), tmp_path / "others.csv")
    own, random = csv.DictReader((tmp_path / "others.csv").open())
    assert own["query"] == random["query"] == target and own["K"] == random["K"] == "2"
    assert (own["without"], random["without"]) == ("abu", "random")
    spread = [float(own[f"{name}_mse"]) for name in ("target", "related", "other")]
    assert spread == [0.4, 0.2, 0.04]
    assert (float(random["target_mse"]), float(own["other_clip"])) == (0.04, 0.98)


def test_whoever_wins_is_said():
    gains = {"abu": [0.03, 0.05, 0.04], "dtrak": [0.04, 0.06, 0.05], "dino": [0.01, 0.0, 0.0]}
    lines = lines_of(gains)
    figures = verdicts.summary(HEAD, lines.units).figures
    first = next(f for f in figures if "less the best other" in f.name)
    assert "-10.00" in first.value and "dtrak" in first.value
    assert first.passed is None  # three queries are no verdict
    near = next(f for f in figures if "not told apart" in f.name)
    # the bootstrap of three is above zero, Student's interval is not: (20, 50, 40) ± 4.303 · 8.8
    assert near.value == "+36.67 (20.00 to 50.00; t -1.28 to 74.61) against dino, 3 of 3"
    _, *rows = tables.comparison(lines, tables.table_1(lines))
    assert [row[1] for row in rows] == ["dtrak", "abu", "dino"]
    seeds = [trained([], {}, weights_differ_by=0.0), trained([], {"q4": 0.7}, seed=1)]
    told = verdicts.summary(HEAD, [*lines.units, *seeds]).figures
    assert any(f.name.startswith("nothing removed, another seed") for f in told)
    assert any("10 s (median" in f.value for f in told)


def test_the_papers_two_are_judged_beside_those_tried_later():
    gains = {"abu": [0.03, 0.05, 0.04], "abu-ekfac-full": [0.05, 0.07, 0.06]}
    figures = verdicts.summary(HEAD, lines_of({**gains, "clip": [0.04, 0.06, 0.05]}).units).figures
    first, second = (f for f in figures if "less the best other" in f.name)
    assert " abu less" in first.name and first.value.startswith("-10.00 ")
    assert " abu-ekfac-full less" in second.name and second.value.startswith("+10.00 ")
    alone = verdicts.summary(HEAD, lines_of({"abu": [0.1, 0.1, 0.1], "clip": [0.0] * 3}).units)
    assert sum("less the best other" in f.name for f in alone.figures) == 1


def test_a_verdict_needs_both_intervals_and_enough_queries(monkeypatch):
    monkeypatch.setattr(verdicts, "ENOUGH", 3)
    for dtrak, verdict in (([0.02, 0.041, 0.03], True), ([0.0, 0.045, 0.035], False)):
        lines = lines_of({"abu": [0.03, 0.05, 0.04], "dtrak": dtrak})
        first = next(
            f for f in verdicts.summary(HEAD, lines.units).figures if "best other" in f.name
        )
        assert first.passed is verdict, first.value


def test_abu_shift_is_no_rival_of_abu():
    gains = {"abu": [0.03, 0.05, 0.04], "abu-shift": [0.9, 0.9, 0.9], "clip": [0.0, 0.01, 0.0]}
    figures = verdicts.summary(HEAD, lines_of(gains).units).figures
    assert all("abu-shift" not in f.name + f.value for f in figures if "less" in f.name)


def test_what_has_only_begun_is_named():
    gains = {"abu": [0.03, 0.05, 0.04], "dtrak": [0.02, 0.04, 0.03], "clip": [0.0, None, None]}
    lines = lines_of(gains)
    assert "clip" not in [row[1] for row in tables.comparison(lines, tables.table_1(lines))]
    assert tables.left_out(lines) == "Left out: only begun, clip at K = 2 (1 queries)."
    assert tables.left_out(lines_of({"abu": [0.1, 0.1, 0.1]})) == ""


def test_what_has_not_begun_at_the_middle_k_is_named(monkeypatch):
    monkeypatch.setattr(tables, "REMOVED", (1, 2, 4))
    every = {label: [0.1, 0.1, 0.1] for label in (*tables.TABLE_1, *tables.ABLATIONS)}
    for missing in ("dinov2", "abu-full"):  # of Table 1, of the ablations
        gains = {label: some for label, some in every.items() if label != missing}
        assert tables.left_out(lines_of(gains)) == f"Left out: not begun, {missing}."


def test_a_method_on_other_rows_is_a_rival_too():
    gains = {"abu": [0.03, 0.05, 0.04], "dtrak": [0.0, 0.0, 0.0], "dtrak@wide": [0.02, 0.02, 0.02]}
    lines = lines_of(gains)
    figures = verdicts.summary(HEAD, lines.units).figures
    first = next(f for f in figures if "best other" in f.name)
    assert "against dtrak@wide" in first.value
    assert "dtrak@wide" in [row[1] for row in tables.comparison(lines, tables.table_1(lines))]


def test_settings_are_told_in_full_where_they_were_noted():
    """Those of other answers than the ones that count are not."""
    digests = {"unit": "digests", "arms": {"abu": "new", "dtrak": "b", "clip": "c"}}
    noted = {
        "abu": {"digest": "old", "configuration": {"steps": 1}},
        "dtrak": {"digest": "b", "configuration": {"draws": 4, "damping": 1.0}},
    }
    units = [{"unit": "arms", "labels": {arm: arm for arm in (*noted, "clip")}}, digests]
    lines = Lines(HEAD, [BASE, *units, {"unit": "configurations", "arms": noted}])
    _, *rows = tables.settings(lines)
    assert rows == [
        ("abu", "`abu`", "not noted; digest `new`"),
        ("dtrak", "`dtrak`", "damping 1.0, draws 4"),
        ("clip", "`clip`", "not noted; digest `c`"),
    ]


def test_the_first_two_are_compared_on_all_that_they_share():
    gains = {"abu": [0.03, 0.05, 0.04], "dtrak": [0.02, 0.04, 0.0], "clip": [0.0, 0.01, None]}
    lines = lines_of(gains)
    _, *rows = tables.comparison(lines, tables.table_1(lines))
    assert [row[1:3] for row in rows] == [("abu", "2"), ("dtrak", "2"), ("clip", "2")]
    first = next(f for f in verdicts.summary(HEAD, lines.units).figures if "less the" in f.name)
    assert first.value.startswith("+20.00 ") and first.value.endswith("against dtrak, 3 of 3")


def test_the_best_other_is_the_best_on_the_queries_of_the_verdict():
    """Clip forgets more of what all methods were asked about, dtrak more of all that two were."""
    three = {"abu": [0.03, 0.05, 0.04], "dtrak": [0.02, 0.04, 0.03], "clip": [0.03, 0.04, 0.0]}
    gains = {**three, "pixel": [0.0, 0.01, None]}
    lines = lines_of(gains)
    found = next(iter(tables.table_1(lines)))
    assert len(found.queries) == 2 and found.order("delta_loss")[1] == "clip"
    first = next(f for f in verdicts.summary(HEAD, lines.units).figures if "less the" in f.name)
    assert first.value.startswith("+10.00 ") and first.value.endswith("against dtrak, 3 of 3")


def test_an_ablation_needs_something_to_be_compared_with():
    alone = lines_of({"abu": [0.03, 0.05, 0.04], "dtrak": [0.04, 0.06, 0.05]})

    def shown(lines: Lines, labels: tuple[str, ...], apart: tuple[str, ...]) -> list[str]:
        return [row[1] for row in tables.comparison(lines, tables.blocks(lines, labels, apart))[1:]]

    assert shown(alone, tables.TABLE_1, ()) == ["dtrak", "abu"]
    assert shown(alone, tables.TABLE_2, tables.TABLE_2) == []
    # D-TRAK's loss is another method's, and AbU+ beside AbU is in Table 1
    assert shown(alone, tables.TABLE_5, tables.LOSSES) == []
    two = lines_of({"abu": [0.03, 0.05, 0.04], "abu-ekfac": [0.04, 0.06, 0.05]})
    assert shown(two, tables.TABLE_2, tables.TABLE_2) == []
    both = lines_of({"abu": [0.03, 0.05, 0.04], "abu-full": [0.01, 0.0, 0.0]})
    assert shown(both, tables.TABLE_2, tables.TABLE_2) == ["abu", "abu-full"]
    assert shown(both, tables.TABLE_5, tables.LOSSES) == []
    # what was measured for another reason, on one picture, begins no table
    begun = lines_of({"abu": [0.03, 0.05, 0.04], "abu:flips=mean": [0.01, None, None]})
    assert shown(begun, tables.FLIPS, tables.FLIPS) == []


def test_scores_foretell_what_removals_do_or_do_not():
    """Twelve removals: q4 loses as the sums of its scores say, but for the one made for it."""
    rows, q = np.arange(24), QUERIES[4]
    sets = rows.reshape(12, 2)
    true = np.linspace(1.0, 2.0, 24) ** 2
    gains = true[sets].sum(1)
    gains[3] = 9.0
    extra = [trained([int(r) for r in some], {q: g}) for some, g in zip(sets, gains, strict=True)]
    extra.append(trained([1, 2, 3], {q: 5.0}))  # of another K
    extra.append(trained([], {q: 5.0}, seed=1))
    scores = {"abu": true, "clip": -true}
    units = [
        {"unit": f"scores {q} {arm}", "query": q, "arm": arm, "digest": "d", **packed(values)}
        for arm, values in scores.items()
    ]
    lines = Lines(HEAD, [BASE, {"unit": "arms", "labels": {"abu": "abu", "clip": "clip"}},
                         answer(q, "dino", [int(x) for x in sets[3]]), *extra, *units])  # fmt: skip
    abu, clip = foretold.foretold(lines)
    assert (abu.label, abu.k, abu.removals) == ("abu", 2, 12)
    assert abu.elsewhere == pytest.approx([1.0]) and clip.elsewhere == pytest.approx([-1.0])
    sums = true[sets].sum(1)
    ranked = np.argsort(np.argsort(gains))
    assert abu.rho == pytest.approx([np.corrcoef(np.argsort(np.argsort(sums)), ranked)[0, 1]])
    assert abu.linear == pytest.approx([np.corrcoef(sums, gains)[0, 1]], abs=1e-3)
    assert foretold.table(lines)[1][:4] == ("2", "abu", "1", "12")
    few = Lines(HEAD, [BASE, *extra[:9], *units])
    assert foretold.table(few) == []


def test_scores_are_kept_in_half_precision_with_what_is_missing():
    values = np.array([3e-5, -1e-6, np.nan, 0.0])
    again = unpacked(packed(values))
    assert again == pytest.approx(values, rel=1e-3, nan_ok=True)
    assert unpacked(packed(np.zeros(2))).tolist() == [0.0, 0.0]


def test_arms_are_read_and_written_alike():
    arm = Arm.parse("abu:steps=10:damping=0.01:flips=mean")
    assert arm.text == "abu:damping=0.01:flips=mean:steps=10"
    assert arm.asked == {"damping": 0.01, "steps": 10} and arm.reading == {"flips": "mean"}
    assert Arm.parse(arm.text) == arm
    assert Arm.parse("trak@wide:damping=1").place == "wide"
    assert Arm.parse("abu:ewc=true").asked == {"ewc": True}
    for text, words in (
        ("abx", "no method 'abx'"),
        ("abu:steps", "option=value"),
        ("abu:flips=min", "max or mean"),
        ("abu:timesteps=each", "plain or equal"),
        ("clip:damping=1", "no option"),
    ):
        with pytest.raises(UserError, match=words):
            Arm.parse(text)


def test_cells_are_read_as_an_arm_says():
    cells = np.random.default_rng(0).normal(size=(6, 2, 2, 3))
    cells[4:, 1] = np.nan  # these have one caption
    each = [np.nanmean(cells[n], axis=(0, 2)) for n in range(6)]
    assert read(cells) == pytest.approx([flips.max() for flips in each])
    assert read(cells, flips="mean") == pytest.approx([flips.mean() for flips in each])
    loud = cells * [1.0, 100.0, 1.0]  # one timestep changes more than the others
    assert read(loud, timesteps="equal") == pytest.approx(read(cells, timesteps="equal"))
    assert np.argsort(read(loud)).tolist() != np.argsort(read(cells)).tolist()
    still = np.concatenate([cells, np.zeros((6, 2, 2, 1))], axis=3)
    assert np.isfinite(read(still, timesteps="equal")).all()


def test_frozen_settings_serve_their_method_alone(tmp_path):
    path = tmp_path / "frozen.json"
    assert frozen.read(path) == {}
    settings = {"abu": "abu:damping=0.01:steps=5", "trak": "trak@wide:damping=1.0"}
    frozen.write(path, settings, {"abu": {"round": 1}})
    assert frozen.read(path) == settings
    found = resolved(["abu", "abu:steps=10", "abu-full", "trak", "clip"], frozen.read(path))
    assert {label: arm.text for label, arm in found.items()} == {
        "abu": "abu:damping=0.01:steps=5",
        "abu:steps=10": "abu:damping=0.01:steps=10",
        "abu-full": "abu-full",
        "trak": "trak@wide:damping=1.0",
        "clip": "clip",
    }
    path.write_text("{")
    with pytest.raises(UserError, match="no JSON"):
        frozen.read(path)


def test_random_orders_and_sizes():
    rows = np.arange(100, 140)
    assert sorted(random_order(rows, 0)) == rows.tolist()
    assert random_order(rows, 0) == random_order(rows, 0) != random_order(rows, 1)
    sizes = random_sizes(990, (5, 10, 35))
    assert sizes[:3] == [5, 10, 35] and sizes == sorted(sizes) and sizes[-1] < 990
    assert middle_first([35, 5, 10]) == [10, 5, 35] and middle_first([3]) == [3]


def test_strips_show_each_method_and_k(tmp_path):
    gains = {"abu": [0.03, 0.05, 0.04], "clip": [0.02, 0.04, 0.03]}
    lines = lines_of(gains)
    pictures = np.full((len(QUERIES), 8, 8, 3), 10, dtype=np.uint8)
    write_pictures(tmp_path / "base.png", pictures)
    drawn, out = tmp_path / "drawn", tmp_path / "out.png"
    drawn.mkdir()
    paths = (tmp_path / "base.png", drawn, tmp_path / "kept" / "cells.npz", out)
    paths[2].parent.mkdir()
    assert not sheet(lines, *paths) and not out.exists()
    for n, outcome in enumerate([*lines.outcomes("abu"), *lines.outcomes("clip")]):
        write_pictures(drawn / f"{outcome.key}.png", pictures + 20 * (n + 1))
        if n == 2:  # the others are drawn on another machine, which has not those of this one
            assert sheet(lines, *paths)
            shutil.rmtree(drawn)
            drawn.mkdir()
    assert sheet(lines, *paths)
    colours = {c for _, c in Image.open(out).convert("L").getcolors(4096)}
    assert {10, *(10 + 20 * n for n in range(1, 7))} <= colours
    before = paths[2].stat()
    assert sheet(lines, *paths) and paths[2].stat().st_mtime_ns == before.st_mtime_ns
