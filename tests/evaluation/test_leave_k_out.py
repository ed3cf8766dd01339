"""Leave-K-out end to end on a tiny trained world: order, pairing, sharing, resuming."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from attribution.index import Index
from evaluation.counterfactual import tasks
from evaluation.counterfactual.ledger import Ledger, read_pictures, unpacked, write_pictures
from evaluation.counterfactual.tasks import WorkList
from evaluation.results import Results, read_lines
from precompute.recipes.model.config import UnetConfig
from tests.evaluation.tiny_world import evaluate

SMALL = (
    *("--workers", "0", "--queries", "2", "--stride", "500", "--steps", "1", "--guidance", "1"),
    *("--k", "1,2,3", "--seeds", "2", "--draws", "1", "--methods", "clip,pixel"),
)


@pytest.fixture(scope="module", autouse=True)
def few_random_sizes():
    patch = pytest.MonkeyPatch()
    patch.setattr(tasks, "SHARES", (0.5,))
    yield
    patch.undo()


def leave(proof: Path, place: Path, *more: str) -> list[dict]:
    assert evaluate("leave-k-out", proof, place, *SMALL, *more) == 0
    return read_lines(place / "results" / "leave-k-out.jsonl")


@pytest.fixture(scope="module")
def done(proof, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("done")
    leave(proof, place)
    return place


def units(place: Path) -> list[dict]:
    lines = read_lines(place / "results" / "leave-k-out.jsonl")
    return [line for line in lines if "unit" in line]


def trainings(place: Path) -> list[dict]:
    return [u for u in units(place) if u["unit"].startswith("training")]


def test_work_goes_in_order_of_need(done):
    sizes = [len(unit["removed"]) for unit in trainings(done)]
    # two seeds, a random curve of 1, 2, 3 and half, then the middle K before the others
    assert sizes[:6] == [0, 0, 1, 2, 3, 8]
    rest = sizes[6:]
    assert rest and rest == sorted(rest, key=[2, 1, 3].index)
    assert [u["seed"] for u in trainings(done)[:3]] == [0, 1, 0]


def test_removing_nothing_changes_nothing(done):
    base = units(done)[0]
    same, other, *_ = trainings(done)
    assert base["unit"] == "base" and same["weights_differ_by"] == 0.0
    assert same["losses"] == base["losses"] and set(same["mse"]) == {0.0}
    assert np.allclose(same["clip"], 1.0, atol=1e-5)
    assert other["seed"] == 1 and other["losses"] != base["losses"]
    assert "weights_differ_by" not in other


def test_what_a_method_found_is_what_is_removed(done, proof):
    index = Index.open(proof)
    removed = {tuple(unit["removed"]) for unit in trainings(done)}
    answers = [u for u in units(done) if u["unit"].startswith("answer")]
    assert {(u["arm"]) for u in answers} == {"clip", "pixel"} and len(answers) == 4
    for unit in answers:
        assert sorted(unit["rows"]) == index.train_rows.tolist()
        for k in (1, 2, 3):
            assert tuple(sorted(unit["rows"][:k])) in removed
    order = next(u for u in units(done) if u["unit"] == "random 0")["rows"]
    assert tuple(sorted(order[:8])) in removed and sorted(order) == index.train_rows.tolist()


def test_the_work_list_says_for_whom(done):
    (path,) = (done / "cache" / "leave-k-out").glob("*/work-list.jsonl")
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert all(line["done"] for line in lines) and len(lines) == len(trainings(done))
    assert lines[0]["for"] == [["", "seed", 0]] and lines[2]["for"][0][1] == "random"
    assert {wanted[1] for line in lines for wanted in line["for"]} == {
        *("seed", "random", "clip", "pixel")
    }


def test_a_second_run_computes_nothing(done, proof):
    before = read_lines(done / "results" / "leave-k-out.jsonl")
    assert leave(proof, done) == before


def test_a_killed_run_loses_one_training(done, proof, tmp_path):
    """Half a line is what a kill leaves; the rest is made again, to the same numbers."""
    place = Path(shutil.copytree(done, tmp_path / "place"))
    path = place / "results" / "leave-k-out.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-2]) + lines[-2][:100])
    leave(proof, place)
    kept = [
        {name: value for name, value in unit.items() if name not in ("seconds",)}
        for unit in trainings(place)
    ]
    whole = [{n: v for n, v in unit.items() if n != "seconds"} for unit in trainings(done)]
    assert kept == whole


def test_lost_models_and_pictures_of_seeds_are_made_again(done, proof, tmp_path):
    place = Path(shutil.copytree(done, tmp_path / "place"))
    (models,) = (place / "cache" / "leave-k-out").glob("*/models")
    assert sorted(path.name for path in models.iterdir()) == ["seed-0", "seed-1"]
    assert (models / "seed-1" / "model_index.json").is_file()
    shutil.rmtree(models / "seed-1")
    before = len(trainings(place))
    leave(proof, place)  # needs the lines only
    assert not (models / "seed-1").exists() and len(trainings(place)) == before
    same = ("--workers", "0", "--stride", "500", "--steps", "1", "--guidance", "1", "--seeds", "2")
    assert evaluate("seed-consistency", proof, place, *same) == 0
    assert (models / "seed-1" / "unet").is_dir() and len(trainings(place)) == before + 1


def test_scores_join_the_lines_once(done, proof, tmp_path, capsys):
    place = Path(shutil.copytree(done, tmp_path / "place"))
    same = ("--workers", "0", "--stride", "500", "--steps", "1", "--guidance", "1")
    assert evaluate("lds", proof, place, *same, "--methods", "clip,pixel") == 0
    index = Index.open(proof)
    scores = [unit for unit in units(place) if unit["unit"].startswith("scores")]
    measured = len(units(place)[0]["losses"])
    assert len(scores) == 2 * measured and {unit["arm"] for unit in scores} == {"clip", "pixel"}
    for unit in scores:
        values = unpacked(unit)
        assert np.flatnonzero(np.isfinite(values)).tolist() == index.train_rows.tolist()
        asked = [u for u in units(place) if u["unit"].startswith("answer")
                 and (u["query"], u["arm"]) == (unit["query"], unit["arm"])]  # fmt: skip
        for other in asked:  # the same order, but for what half precision cannot tell apart
            assert (np.diff(values[other["rows"]]) <= 2e-3 * unit["scale"]).all()
    assert len(trainings(place)) == len(trainings(done))
    before = (place / "results" / "leave-k-out.jsonl").read_bytes()
    assert evaluate("lds", proof, place, *same, "--methods", "clip,pixel") == 0
    assert (place / "results" / "leave-k-out.jsonl").read_bytes() == before
    capsys.readouterr()


def test_tables_and_figures_follow_from_the_lines(done, proof, capsys):
    capsys.readouterr()
    assert evaluate("tables", proof, done) == 0
    names = {Path(line).name for line in capsys.readouterr().out.split()}
    kinds = ("delta-loss", "mse", "clip", "strips")
    assert names >= {"leave-k-out.md", "leave-k-out.csv"}
    assert names >= {f"leave-k-out-{kind}.png" for kind in kinds}
    page = (done / "results" / "leave-k-out.md").read_text()
    assert "## Table 1" in page and "| `pixel` |" in page and "one retraining" in page
    with (done / "results" / "leave-k-out.csv").open() as file:
        rows = list(csv.DictReader(file))
    base = units(done)[0]
    place = {entry["id"]: n for n, entry in enumerate(base["gallery"])}
    by_key = {u["unit"].removeprefix("training "): u for u in trainings(done)}
    for row in rows:
        if row["method"] != "random":
            line, n = by_key[row["training"]], place[row["query"]]
            assert len(line["removed"]) == int(row["K"])
            expected = line["losses"][n] - base["losses"][n]
            assert float(row["delta_loss"]) == pytest.approx(expected, abs=1e-9)
    assert sum(row["method"] == "clip" for row in rows) == 6
    assert evaluate("report", proof, done) == 0


def test_strips_need_no_pictures_but_those_kept_with_the_lines(done, proof, tmp_path):
    """In a clone the cache has none, or those of the trainings since."""
    place = Path(shutil.copytree(done, tmp_path / "place"))
    assert evaluate("tables", proof, place) == 0
    sheet = place / "results" / "leave-k-out-strips.png"
    before = sheet.read_bytes()
    pictures = sorted((place / "cache").rglob("*.png"))
    for path in pictures[1:]:
        path.unlink()
    assert evaluate("tables", proof, place) == 0
    assert sheet.read_bytes() == before


def test_recorded_answers_need_no_rows(done, proof, tmp_path, capsys):
    """Another machine, without the index's richer copy, trains for the answers that were made
    there."""
    place = Path(shutil.copytree(done, tmp_path / "place"))
    path = place / "results" / "leave-k-out.jsonl"
    arms = ("--k", "4", "--draws", "0", "--methods", "clip@rich,pixel")
    copy = shutil.copytree(proof, tmp_path / "rich")
    leave(proof, place, *arms, "--place", f"rich={copy}", "--plan")
    shutil.rmtree(copy)
    assert evaluate("leave-k-out", proof, place, *SMALL, *arms) == 2
    answers = [one for one in units(place) if one["unit"].startswith("answer")]
    before = len(trainings(place))
    leave(proof, place, *arms, "--recorded")
    assert [one for one in units(place) if one["unit"].startswith("answer")] == answers
    new = {tuple(line["removed"]) for line in trainings(place)[before:]}
    asked = [one for one in answers if one["arm"] in ("clip@rich", "pixel")]
    assert new == {tuple(sorted(answer["rows"][:4])) for answer in asked}
    # what the lines do not hold is said in one, and nothing is trained
    text = path.read_text()
    capsys.readouterr()
    lacking = {
        ("--methods", "clip@rich,datainf"): "no answers of datainf",
        ("--queries", "3"): "and 2 in all",
        ("--anew",): "not allowed with",
    }
    for more, words in lacking.items():
        assert evaluate("leave-k-out", proof, place, *SMALL, *arms, "--recorded", *more) == 2
        assert words in capsys.readouterr().err
        assert path.read_text() == text


def test_two_labels_of_one_arm_are_answered_once(proof, tmp_path, capsys):
    frozen = tmp_path / "frozen.json"
    frozen.write_text(json.dumps({"settings": {"abu": "abu:damping=1.0"}}))
    more = ("--methods", "abu,abu:damping=1.0,pixel", "--frozen", str(frozen), "--k", "2")
    assert evaluate("leave-k-out", proof, tmp_path, *SMALL, *more, "--plan") == 0
    lines = units(tmp_path)
    answers = [unit["arm"] for unit in lines if unit["unit"].startswith("answer")]
    assert sorted(answers) == ["abu:damping=1.0"] * 2 + ["pixel"] * 2  # two queries each
    (arms,) = (unit["labels"] for unit in lines if unit["unit"] == "arms")
    assert arms["abu"] == arms["abu:damping=1.0"] == "abu:damping=1.0"
    (digests,) = (unit["arms"] for unit in lines if unit["unit"] == "digests")
    assert set(digests) == {"abu:damping=1.0", "pixel"}


def test_the_plan_alone_trains_nothing(proof, tmp_path, capsys):
    lines = leave(proof, tmp_path, "--plan", "--k", "2")
    assert not [line for line in lines if str(line.get("unit")).startswith("training")]
    assert "work-list.jsonl" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--methods", "abu:sped=1"), "no option 'sped'"),
        (("--methods", "trak@far"), "--place far=DIR"),
        (("--k", "16"), "16 training records"),
        (("--queries", "9"), "the world has 4 besides"),
        (("--queries", "-1"), "from 1, not -1"),
        (("--k", "2,x"), "a whole number, not 'x'"),
        (("--k", ","), "whole numbers from 1"),
        (("--methods", ""), "nothing is named"),
        (("--methods", "clip:flips=mean"), "only methods with cells"),
        (("--stride", "0"), "from 1, not 0"),
        (("--steps", "-2"), "from 1, not -2"),
        (("--seeds", "-1"), "from 0, not -1"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(proof, tmp_path, capsys, more, words):
    assert evaluate("leave-k-out", proof, tmp_path, *SMALL, *more) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and words in error[0]
    assert not list(tmp_path.iterdir())


def test_answers_from_other_rows_do_not_take_over_unasked(done, proof, tmp_path, capsys):
    """Another copy of the index, or other defaults: what was trained for goes on to count."""
    place = Path(shutil.copytree(done, tmp_path / "place"))
    path = place / "results" / "leave-k-out.jsonl"
    noted = [line for line in read_lines(path) if line.get("unit") == "digests"][-1]["arms"]
    # answers and all: as if they had been made on another copy
    text = path.read_text().replace(noted["pixel"], "of other rows")
    path.write_text(text)
    for plan in ((), ("--plan",)):
        assert evaluate("leave-k-out", proof, place, *SMALL, *plan) == 2
        assert "pixel: there are trainings for answers from other rows" in capsys.readouterr().err
        assert path.read_text() == text
    before = len(trainings(place))
    leave(proof, place, "--anew")
    again = [line for line in read_lines(path) if line.get("unit") == "digests"][-1]
    assert again["arms"] == noted
    assert len(trainings(place)) == before  # the same sets were found: nothing is trained


def test_one_command_at_a_time_trains(done, proof, tmp_path, capsys):
    place = Path(shutil.copytree(done, tmp_path / "place"))
    with FileLock(place / "results" / "leave-k-out.lock"):
        assert evaluate("leave-k-out", proof, place, *SMALL, "--k", "4") == 2
        assert "another command trains" in capsys.readouterr().err
    assert len(trainings(place)) == len(trainings(done))


def test_a_gallery_that_is_another_one_is_refused(done, proof, tmp_path, capsys):
    """Trainings were measured on pictures; beside others their losses mean nothing."""
    place = Path(shutil.copytree(done, tmp_path / "place"))
    (path,) = (place / "results" / "leave-k-out").glob("*-base.png")
    pictures = read_pictures(path, len(units(place)[0]["gallery"]))
    before = units(place)
    path.unlink()
    for _ in range(2):  # nothing is drawn in its place, or a second call would take that
        assert evaluate("leave-k-out", proof, place, *SMALL) == 2
        assert "is not what the trainings" in capsys.readouterr().err
    write_pictures(path, 255 - pictures)
    assert evaluate("leave-k-out", proof, place, *SMALL) == 2
    write_pictures(path, pictures)
    assert evaluate("leave-k-out", proof, place, *SMALL) == 0 and units(place) == before


def test_two_commands_that_note_something_lose_nothing(done, tmp_path):
    place = Path(shutil.copytree(done, tmp_path / "place"))
    said = read_lines(place / "results" / "leave-k-out.jsonl")[0]
    one, two = (
        Ledger(Results.open(place / "results", "leave-k-out", said["subject"], said["settings"]),
               tmp_path) for _ in range(2)
    )  # fmt: skip
    assert one.results.units and one.results.run == said["run"]
    one.note_arms({"new": "pixel"})
    two.note_arms({"other": "clip"})
    labels = [u for u in units(place) if u["unit"] == "arms"][-1]["labels"]
    assert {"new", "other", "pixel", "clip"} <= set(labels)


def test_tables_are_of_the_run_with_most_trainings(done, proof, tmp_path, capsys):
    place = Path(shutil.copytree(done, tmp_path / "place"))
    other = ("--stride", "250", "--seeds", "1", "--draws", "0", "--methods", "pixel", "--k", "1")
    assert evaluate("leave-k-out", proof, place, *SMALL, *other) == 0
    runs = {u["run"] for u in trainings(place)}
    assert len(runs) == 2
    assert evaluate("tables", proof, place) == 0
    page = (place / "results" / "leave-k-out.md").read_text()
    assert f"run `{units(done)[0]['run']}`" in page and "losses at stride 500" in page
    capsys.readouterr()
    shutil.rmtree(place / "results")
    assert evaluate("leave-k-out", proof, place, *SMALL, "--plan") == 0
    assert evaluate("tables", proof, place) == 2
    assert "no training is finished yet" in capsys.readouterr().err


def test_more_than_the_kept_ranks_is_refused_before_any_work(proof, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("evaluation.leave_k_out.TOP", 2)
    assert evaluate("leave-k-out", proof, tmp_path, *SMALL, "--k", "3") == 2
    assert "down to rank 2" in capsys.readouterr().err
    assert not (tmp_path / "results" / "leave-k-out.jsonl").exists()


def test_a_world_that_cannot_be_retrained_says_so(tiny_index, tmp_path, capsys):
    assert evaluate("leave-k-out", tiny_index, tmp_path, *SMALL) == 2
    assert "unet_training.json is missing" in capsys.readouterr().err


def test_methods_the_index_cannot_serve_are_left_out(proof, tmp_path, capsys):
    lines = leave(proof, tmp_path, "--plan", "--methods", "dino,pixel", "--k", "1")
    assert "left out: dino" in capsys.readouterr().err
    assert {u["arm"] for u in lines if str(u.get("unit")).startswith("answer")} == {"pixel"}


def test_identical_removals_are_one_training():
    work = WorkList(UnetConfig())
    work.add([4, 2, 9], "q", "abu", 3)
    work.add([9, 4, 2], "q", "dtrak", 3)
    work.add([9, 4], "q", "dtrak", 2)
    work.add([9, 4, 2], "q", "abu", 3, seed=1)
    work.add((), "", "seed", 0, panels=True)
    first, *rest = work.jobs.values()
    assert first.task.removed == (2, 4, 9) and len(rest) == 3
    assert first.wanted == [("q", "abu", 3), ("q", "dtrak", 3)]
    work.add((), "q", "abu", 0, keep=True)
    assert list(work.jobs.values())[-1].task.panels and list(work.jobs.values())[-1].task.keep
    other = WorkList(UnetConfig(steps=5))
    other.add([4, 2, 9], "q", "abu", 3)
    assert not set(other.jobs) & set(work.jobs)


def test_pictures_survive_their_sheet(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (11, 6, 6, 3), dtype=np.uint8)
    write_pictures(tmp_path / "x.png", pictures)
    assert (read_pictures(tmp_path / "x.png", 11) == pictures).all()
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]


@pytest.mark.slow
def test_workers_find_what_one_process_finds(done, proof, tmp_path):
    """In processes of their own, one thread each: the same numbers to the last bit."""
    one = ("--workers", "2", "--queries", "1", "--methods", "pixel", "--k", "2", "--seeds", "1")
    leave(proof, tmp_path, *one)

    def bare(place):
        found = [{n: v for n, v in u.items() if n not in ("seconds", "run")} for u in units(place)]
        return {
            unit["unit"]: unit
            for unit in found
            if unit["unit"] not in ("arms", "digests", "configurations")
        }

    here, there = bare(tmp_path), bare(done)
    assert len(here) == 1 + 1 + 1 + 4  # gallery, answer, random order; seed, two random, pixel
    assert all(unit == there[name] for name, unit in here.items())
