"""The verbs on answers, end to end on a tiny index: they run, resume and report."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch

from attribution.precision import NAMES
from attribution.scoring import reduce_cells
from evaluation import candidates, exhaustive, forgetting, precision, self_influence, shortlist
from evaluation.answers import Answers
from evaluation.queries import fixed_prompts
from evaluation.results import read_lines
from evaluation.schedules import Stored
from evaluation.world import World
from precompute.counterfactual import squared_errors
from tests.evaluation.tiny_world import evaluate

SHORT = ("--steps", "2", "--guidance", "1", "--queries", "2")


@pytest.mark.parametrize(
    ("verb", "more", "says"),
    [
        ("exhaustive", SHORT, "2 queries"),
        ("self-influence", ("--records", "2", "--others", "5", "--timesteps", "125,375"), "of 2"),
        ("forgetting", (*SHORT, "--others", "3", "--shares", "0.02"), "at equal forgetting (2%)"),
    ],
)
def test_a_verb_runs_and_its_second_run_computes_nothing(
    tiny_index, tmp_path, capsys, verb, more, says
):
    assert evaluate(verb, tiny_index, tmp_path, *more) == 0
    assert says in capsys.readouterr().out
    lines = read_lines(tmp_path / "results" / f"{verb}.jsonl")
    assert lines[0]["index_hash"] and lines[0]["command"]
    assert evaluate(verb, tiny_index, tmp_path, *more) == 0
    assert read_lines(tmp_path / "results" / f"{verb}.jsonl") == lines


def test_exhaustive_answers_grow_by_timestep_and_match_the_scores(tiny_index, tmp_path):
    one = (*SHORT[:-1], "1")
    assert evaluate("exhaustive", tiny_index, tmp_path, *one, "--timesteps", "125") == 0
    assert evaluate("exhaustive", tiny_index, tmp_path, *one) == 0
    answers = Answers(World(tiny_index, "cpu"))
    args = argparse.Namespace(
        index=tiny_index, results=tmp_path / "results", cache=tmp_path / "cache", queries=1,
        steps=2, guidance=1.0, batch_size=16, timesteps=None, module="evaluation.exhaustive",
    )  # fmt: skip
    results, asked = exhaustive.begin(args, answers)
    units = list(results.units.values())
    assert [unit["timestep"] for unit in units] == list(answers.index.timesteps)
    cells = exhaustive.load_cells(args.results, results.run, units, answers.index.timesteps)
    delta, _ = exhaustive.delta_of(args, answers, results, asked[0])
    direct = answers.score(answers.index.train_rows, delta).cells
    assert cells.shape == direct.shape
    assert np.abs(cells - direct).max() <= 2e-3 * np.abs(direct).max()
    assert np.corrcoef(reduce_cells(cells)[0], reduce_cells(direct)[0])[0, 1] > 0.999


def test_parts_of_the_queries_join_to_the_whole(tiny_index, tmp_path, capsys):
    path = tmp_path / "results" / "exhaustive.jsonl"
    first = ("exhaustive", tiny_index, tmp_path, *SHORT, "--timesteps", "125")
    assert evaluate(*first, "--part", "2/2") == 0
    (second,) = [line for line in read_lines(path) if "unit" in line]
    assert evaluate(*first, "--part", "1/2") == 0
    assert evaluate(*first) == 0
    units = [line for line in read_lines(path) if "unit" in line]
    assert len({line["query"] for line in units}) == len(units) == 2 and units[0] == second
    for wrong in ("0/2", "3/2", "2"):
        assert evaluate(*first, "--part", wrong) == 2
        assert "I/N" in capsys.readouterr().err


def test_weights_are_as_they_were_after_regenerating(tiny_index):
    answers = Answers(World(tiny_index, "cpu"))
    before = {n: p.clone() for n, p in answers.denoiser.unet.named_parameters()}
    found = answers.unlearn(answers.index.latents([0]), "a", answers.config("abu-sgd"))
    sampling = forgetting.Sampling(2, 1.0)
    changed = forgetting.regenerate(answers, found.delta.scaled(50.0), [("a", 1)], sampling)
    same = forgetting.regenerate(answers, found.delta.scaled(0.0), [("a", 1)], sampling)
    assert squared_errors(changed, same)[0] > 0
    after = dict(answers.denoiser.unet.named_parameters())
    assert all((before[name] == after[name]).all() for name in before)


def test_queries_take_turns_among_the_kinds():
    chosen = fixed_prompts(8)
    assert [kind for kind, _ in chosen[:4]] == ["seen", "new", "style", "two objects"]
    assert len({prompt for _, prompt in chosen}) == 8


def test_another_timestep_than_the_indexs_is_refused(tiny_index, tmp_path, capsys):
    assert evaluate("self-influence", tiny_index, tmp_path, "--timesteps", "77") == 2
    assert "77" in capsys.readouterr().err


def test_without_an_index_the_verb_says_so(tiny_world, tmp_path, capsys):
    assert evaluate("exhaustive", tiny_world, tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_shortlist_reuses_exhaustive_answers_and_says_which_is_smallest(
    tiny_index, tmp_path, capsys
):
    assert evaluate("shortlist", tiny_index, tmp_path, *SHORT) == 2
    assert "exhaustive first" in capsys.readouterr().err
    assert evaluate("exhaustive", tiny_index, tmp_path, *SHORT) == 0
    capsys.readouterr()
    assert evaluate("shortlist", tiny_index, tmp_path, *SHORT) == 0
    # 128 candidates are everyone here, and too few for a race to save anything
    said = capsys.readouterr().out
    assert "128 candidates from gradient, recall 1.000" in said
    assert "no race: recall 1.000" in said and "16 dimensions" in said
    lines = read_lines(tmp_path / "results" / "shortlist.jsonl")[1:]
    assert len(lines) == 2
    for line in lines:
        assert line["races"]["no race"]["all"]["all"] == [1.0, 16 * 2 * 4]
        assert line["dimensions"]["16"] == line["recall"]["gradient"]


def test_recall_and_the_smallest_by_hand():
    found = candidates.recalls(np.array([11, 13]), {"gradient": np.array([11, 12])}, (1, 128))
    assert found == {"gradient": {"1": 0.5, "128": 0.5}}
    full = {str(size): 1.0 for size in shortlist.SIZES}
    none = {str(size): 0.0 for size in shortlist.SIZES}
    assert shortlist.smallest({"gradient": none, "clip": full | {"128": 0.9}}) == (256, "clip")
    assert shortlist.smallest({"gradient": none}) is None
    means = {
        ("no race", "join", "all"): (1.0, 1000.0),
        ("a", "join", "256"): (0.96, 100.0),
        ("b", "clip", "256"): (0.97, 100.0),
        ("b", "clip", "128"): (0.94, 10.0),
    }
    assert shortlist.cheapest(means) == ("b", "clip", "256")
    assert shortlist.cheapest({("a", "join", "256"): (0.9, 1.0)}) is None
    # lines of schedules that are tried no more can still be read
    old = {"races": {"0 → 9": {"join": {"all": [1.0, 5]}}}}
    assert shortlist.race_means([old]) == {("0 → 9", "join", "all"): (1.0, 5.0)}


def stored(n=60, k=5):
    rng = np.random.default_rng(0)
    late = np.linspace(0.2, 2.0, 4)
    truth = np.linspace(2.0, 0.0, n)[:, None, None, None]
    cells = (late * (truth + 0.2 * rng.normal(size=(n, 1, 2, 4)))).astype(np.float32)
    base = late * rng.normal(1, 0.3, size=(n, 1, 2, 1))
    return Stored(cells, np.arange(100, 100 + n), (50, 350, 650, 950), base, k)


def test_a_schedule_is_replayed_on_stored_cells():
    answer = stored()
    best = answer.truth
    assert set(best) <= set(range(100, 112)) and len(best) == 5
    everyone = answer.rows
    assert answer.raced(everyone, ()) == (1.0, 60 * 2 * 4)
    recall, forwards = answer.raced(everyone, ((1, 30), (1, 15)))
    assert recall == 1.0 and 60 * 2 + 30 * 2 + 5 * 4 <= forwards <= 60 * 2 + 30 * 2 + 15 * 4
    # a shortlist that lacks one of the five cannot find it, in whatever order it comes
    without = np.setdiff1d(everyone, best[:1])[::-1]
    assert answer.raced(without, ((1, 30), (1, 15)))[0] == 0.8
    assert answer.raced(without, ())[0] == 0.8


def test_fewer_dimensions_are_parts_of_the_stored_ones():
    rng = np.random.default_rng(1)
    rows, query = rng.normal(size=(30, 2, 16)).astype(np.float16), rng.normal(size=16)
    products = candidates.block_products(rows, query)
    whole = (rows.astype(np.float64) @ query).max(axis=1)
    assert np.allclose(products.sum(axis=-1).max(axis=1), whole, atol=1e-3)
    ids = np.arange(200, 230)
    truth = ids[np.argsort(-whole)[:4]]
    found = candidates.recalls_by_dimension(products, 16, ids, truth, (4, 30))
    assert list(found) == ["2", "4", "8", "16"]
    assert found["16"] == {"4": 1.0, "30": 1.0} and found["2"]["30"] == 1.0
    halves = [
        (rows[..., h].astype(np.float64) @ query[h]).max(axis=1) for h in (np.s_[:8], np.s_[8:])
    ]
    by_hand = np.mean([np.isin(truth, ids[np.argsort(-h)[:4]]).mean() for h in halves])
    assert found["8"]["4"] == pytest.approx(by_hand)
    assert candidates.block_products(rows[..., :15], query[:15]).shape == (30, 2, 1)


def test_low_precision_is_compared_with_float32(tiny_index, tmp_path, capsys):
    more = (*SHORT[:-1], "1", "--records", "8", "--timesteps", "375")
    assert evaluate("precision", tiny_index, tmp_path, *more) == 0
    said = capsys.readouterr().out
    assert "bfloat16 autocast" in said and "probe chooses here" in said
    *lines, probe = read_lines(tmp_path / "results" / "precision.jsonl")[1:]
    assert [line["variant"] for line in lines] == ["bfloat16 autocast", "bfloat16 weights"]
    assert all(-1 <= line["fresh"] <= 1 and line["speed"] > 0 for line in lines)
    assert {line["judged_records"] for line in lines} == {8} and probe["name"] in NAMES


def test_float32_agrees_with_itself(tiny_index):
    answers = Answers(World(tiny_index, "cpu"))
    rows = answers.index.train_rows[:6]
    delta = answers.unlearn(answers.index.latents([0]), "a", answers.config("abu")).delta
    found = precision.scored(answers, precision.Variant("float32"), rows, delta, [0])
    assert np.corrcoef(found["fresh"], found["cached"])[0, 1] > 0.99


def test_the_report_gathers_every_verbs_figures(tiny_index, tmp_path, capsys):
    assert evaluate("vae", tiny_index, tmp_path) == 0
    assert evaluate("self-influence", tiny_index, tmp_path, "--records", "1", "--others", "3",
                    "--timesteps", "125") == 0  # fmt: skip
    assert evaluate("report", tiny_index, tmp_path) == 0
    page = (tmp_path / "results" / "README.md").read_text()
    assert "## vae" in page and "## self-influence" in page
    assert f"cores); torch {torch.__version__}; index" in page


def test_fewer_than_a_hundred_records_are_no_verdict():
    head = {"settings": {"method": "abu", "others": 5, "timesteps": [125]}}
    line = {"rank": 1, "seconds": 1.0}
    for n, passed in ((99, None), (100, True)):
        found = self_influence.summarise(head, [{**line, "unit": str(i)} for i in range(n)])
        assert found.figures[0].passed is passed
