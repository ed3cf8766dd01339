"""The verbs on answers, end to end on a tiny index: they run, resume and report."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from attribution.scoring import reduce_cells
from evaluation import exhaustive, forgetting, precision, self_influence, shortlist
from evaluation.answers import Answers
from evaluation.queries import fixed_prompts
from evaluation.results import read_lines
from evaluation.world import World
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


def test_weights_are_as_they_were_after_regenerating(tiny_index):
    answers = Answers(World(tiny_index, "cpu"))
    before = {n: p.clone() for n, p in answers.denoiser.unet.named_parameters()}
    found = answers.unlearn(answers.index.latents([0]), "a", answers.config("abu-sgd"))
    sampling = forgetting.Sampling(2, 1.0)
    changed = forgetting.regenerate(answers, found.delta.scaled(50.0), [("a", 1)], sampling)
    same = forgetting.regenerate(answers, found.delta.scaled(0.0), [("a", 1)], sampling)
    assert forgetting.errors(changed, same)[0] > 0
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
    # 128 candidates are everyone here
    assert "128 candidates from gradient, recall 1.000" in capsys.readouterr().out


def test_ranking_and_recall_by_hand():
    cells = np.zeros((4, 1, 2, 2), dtype=np.float32)
    cells[:, 0, 0, 0] = [0.0, 3.0, 1.0, 2.0]
    rows = np.array([10, 11, 12, 13])
    assert shortlist.ranked(cells, [0], rows).tolist() == [11, 13, 12, 10]
    found = shortlist.recalls(np.array([11, 13]), {"gradient": np.array([11, 12])})
    assert found["gradient"]["128"] == 0.5
    full = {str(size): 1.0 for size in shortlist.SIZES}
    none = {str(size): 0.0 for size in shortlist.SIZES}
    assert shortlist.smallest({"gradient": none, "clip": full | {"128": 0.9}}) == (256, "clip")
    assert shortlist.smallest({"gradient": none}) is None


def test_low_precision_is_compared_with_float32(tiny_index, tmp_path, capsys):
    more = (*SHORT[:-1], "1", "--records", "8", "--timesteps", "375")
    assert evaluate("precision", tiny_index, tmp_path, *more) == 0
    assert "bfloat16 autocast" in capsys.readouterr().out
    lines = read_lines(tmp_path / "results" / "precision.jsonl")[1:]
    assert all(-1 <= line["fresh"] <= 1 for line in lines)


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
    assert "## vae" in page and "## self-influence" in page and "threads, torch" in page


def test_fewer_than_a_hundred_records_are_no_verdict():
    head = {"settings": {"method": "abu", "others": 5, "timesteps": [125]}}
    line = {"rank": 1, "seconds": 1.0}
    for n, passed in ((99, None), (100, True)):
        found = self_influence.summarise(head, [{**line, "unit": str(i)} for i in range(n)])
        assert found.figures[0].passed is passed
