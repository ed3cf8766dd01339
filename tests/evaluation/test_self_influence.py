"""Self-influence of every method: ranks by hand, one run a method, the lines already kept."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from attribution.features import pixel_features, upright_and_mirrored
from attribution.methods.answers import ranked
from attribution.methods.registry import METHODS, register
from attribution.types import UserError
from evaluation import results, self_influence
from evaluation.answers import Answers
from evaluation.data import load_records
from evaluation.own_ranks import MOST_LISTED
from evaluation.results import Results, read_lines
from evaluation.world import World
from tests.evaluation.tiny_world import evaluate

SHORT = ("--records", "2", "--others", "5", "--timesteps", "125")


def lines_of(place):
    return read_lines(place / "results" / "self-influence.jsonl")


def units_of(place):
    """method → its lines."""
    runs = results.current(place / "results", "self-influence")
    return {head["settings"]["method"]: units for head, units in runs}


@contextmanager
def scoring(score):
    """A method "told": record ids → scores by `score`; may raise."""

    def build(context):
        def run(query, ids=None, k=24, **options):
            rows = context.training_rows(ids)
            values = np.array(score(context.index.ids(rows)), dtype=np.float32)
            yield ranked("told", "control", context.index, rows, values)

        return SimpleNamespace(run=run)

    register([replace(METHODS["random"], name="told", build=build)])
    try:
        yield
    finally:
        del METHODS["told"]


def test_all_methods_one_run_each_and_a_row_each(full_index, tmp_path, capsys):
    more = ("--method", "all", "--records", "1", *SHORT[2:])
    assert evaluate("self-influence", full_index, tmp_path, *more) == 0
    out = capsys.readouterr().out
    found = units_of(tmp_path)
    assert set(found) == set(METHODS) and all(len(units) == 1 for units in found.values())
    table = out[out.index("| method | records |") :].splitlines()
    shown = [row.split(" | ")[0].strip("| ") for row in table[2:]]
    assert sorted(label.partition(" (")[0] for label in shown) == sorted(METHODS)
    for name in ("pixel", "clip", "dino"):  # the picture is its own nearest neighbour
        assert found[name][0]["rank"] == 1 and found[name][0]["score"] > 0.98
    before = lines_of(tmp_path)
    assert evaluate("self-influence", full_index, tmp_path, *more) == 0
    assert lines_of(tmp_path) == before
    assert evaluate("report", full_index, tmp_path) == 0
    page = (tmp_path / "results" / "README.md").read_text(encoding="utf-8")
    assert "## self-influence, all runs" in page and "| random | 1 |" in page


def test_ranks_by_hand(tiny_index, tmp_path):
    assert evaluate("self-influence", tiny_index, tmp_path, "--method", "pixel,random", *SHORT) == 0
    found, records = units_of(tmp_path), load_records(tiny_index)
    train = records.rows("train")
    chosen = np.random.default_rng(self_influence.SEED).permutation(train)[:2]
    assert [unit["unit"] for unit in found["pixel"]] == [records.ids[row] for row in chosen]
    for row, unit in zip(chosen, found["pixel"], strict=True):
        rng = np.random.default_rng([self_influence.SEED, row])
        others = rng.permutation(np.setdiff1d(train, [row]))[:5]
        both = upright_and_mirrored(pixel_features, records.pictures([row, *others])).numpy()
        cosines = (both @ both[0, 0]).max(axis=1)
        assert unit["score"] == pytest.approx(cosines[0], abs=2e-3)
        assert unit["runner_up"] == pytest.approx(cosines[1:].max(), abs=2e-3)
        assert unit["rank"] == 1 + (cosines[1:] >= cosines[0]).sum()


def test_who_ties_counts_as_better_and_the_first_other_is_judged(tiny_index, tmp_path, capsys):
    with scoring(lambda ids: [0.5] * len(ids)):
        assert evaluate("self-influence", tiny_index, tmp_path, "--method", "told", *SHORT) == 0
    for unit in units_of(tmp_path)["told"]:
        assert unit["rank"] == 6 and unit["first"] != unit["unit"] and unit["distance"] > 0
    said = capsys.readouterr().out
    assert "itself or a near-duplicate first | 0 of 2" in said and "asked about" in said


def test_a_record_without_a_score_is_last(tiny_index, tmp_path):
    with scoring(lambda ids: [np.nan, *range(1, len(ids))]):
        assert evaluate("self-influence", tiny_index, tmp_path, "--method", "told", *SHORT) == 0
    assert [unit["rank"] for unit in units_of(tmp_path)["told"]] == [6, 6]


def test_a_method_that_fails_leaves_the_others_and_a_stopped_one_goes_on(
    tiny_index, tmp_path, capsys
):
    asked = []

    def once(ids):
        asked.append(ids)
        if len(asked) == 2:
            raise KeyboardInterrupt
        if len(asked) == 4:
            raise UserError("no luck")
        return range(len(ids), 0, -1)

    more = ("--method", "told,pixel", *SHORT)
    with scoring(once):
        assert evaluate("self-influence", tiny_index, tmp_path, *more) == 130
        assert len(units_of(tmp_path)["told"]) == 1 and "pixel" not in units_of(tmp_path)
        again = ("--method", "told,pixel", "--records", "3", *SHORT[2:])
        assert evaluate("self-influence", tiny_index, tmp_path, *again) == 2
        assert "method told: no luck" in capsys.readouterr().err
        assert {name: len(units) for name, units in units_of(tmp_path).items()} == {
            "told": 2,
            "pixel": 3,
        }
    assert asked[0][0] != asked[1][0] == asked[2][0]  # the first record is not asked again


def test_lines_of_unlearning_methods_kept_so_far_stand(tiny_index, tmp_path):
    answers = Answers(World(tiny_index, "cpu"))
    settings = {"method": "abu", "config": asdict(answers.config("abu"))}
    settings |= {"others": 5, "timesteps": [125]}
    folder, subject = tmp_path / "results", answers.world.index_hash
    train = answers.index.train_rows
    rows = np.random.default_rng(self_influence.SEED).permutation(train)[:2]
    kept = Results.open(folder, "self-influence", subject, settings)
    for name in answers.index.ids(rows):
        kept.add(name, rank=1, score=1.0, runner_up=0.0, reached=0.1, seconds=1.0)
    before = lines_of(tmp_path)
    assert evaluate("self-influence", tiny_index, tmp_path, "--method", "abu", *SHORT) == 0
    assert lines_of(tmp_path) == before


def test_an_unknown_method_and_one_without_its_rows_are_refused(tiny_index, tmp_path, capsys):
    for name, why in (("nobody", "no method 'nobody'"), ("trak", "has no trak rows")):
        assert evaluate("self-influence", tiny_index, tmp_path, "--method", name, *SHORT) == 2
        assert why in capsys.readouterr().err


def test_the_table_by_hand():
    def unit(name, rank, **more):
        late = {"first": "x", "distance": 0.5, "cosine": 0.5, "duplicate": False} | more
        return {"unit": name, "rank": rank, "seconds": 2.0, **(late if rank > 1 else {})}

    others = {"others": 9}
    similar = {"settings": {"method": "clip", "kind": "similarity", "basis": "b", **others}}
    config = {"relative_increase": 0.3, "steps": 1}
    own = {"settings": {"method": "abu", "config": config, "timesteps": [5], **others}}
    ranks = [1, 2, 6, 1]
    units = [unit(str(i), rank, duplicate=rank == 2) for i, rank in enumerate(ranks)]
    table = self_influence.together([(own, units), (similar, units[:2])]).table
    assert [row[0] for row in table[1:]] == ["clip", "abu (+30% in 1 step)"]
    assert table[1] == ("clip", "2", "1", "2", "34% to 100%", "1.5", "1.5", "10", "2.00")
    assert table[2][1:] == ("4", "2", "3", "30% to 95%", "1.5", "2.5", "10", "2.00")
    assert self_influence.summarise(similar, units).figures[0].target == ""
    assert self_influence.summarise(own, units).figures[0].target == ">= 95 of 100"
    many = [unit(str(i), 2) for i in range(MOST_LISTED + 3)]
    said = self_influence.summarise(similar, many)
    assert len(said.table) == 1 + MOST_LISTED and said.notes[-1].startswith("3 more records")
