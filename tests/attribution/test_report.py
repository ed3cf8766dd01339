"""Answers on disk: the contract's JSON, whole or not at all; examples come back as they were."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attribution import report, saved_top
from attribution.artists import UNKNOWN, artist_shares, score_floor
from attribution.compare import correlation
from attribution.saved import list_examples, load_example, save_example
from attribution.types import UserError
from tests.attribution import answers

INDEX = {"hash": "a" * 64, "n_records": answers.N_RECORDS}


def result(top_k: int = 4) -> dict:
    both = [answers.attribution(), answers.attribution("clip", 3, seed=1)]
    return report.result_dict(INDEX, answers.query(), both, top_k, answers.lookup)


def ids(rows: np.ndarray) -> list[str]:
    return [f"r/{row}" for row in rows]


def test_result_keeps_the_contract_and_is_plain_json() -> None:
    parsed = json.loads(report.json_text(result()))
    answers.check_result(parsed, top_k=4)
    first, second = parsed["methods"]
    assert first["results"][1]["standard_error"] is None  # NaN
    assert len(second["results"]) == 3
    assert first["params"] == {
        "relative_increase": pytest.approx(0.1),
        "nothing": None,
        "steps": [1, 2],
    }


def test_folder_holds_what_the_result_names(tmp_path: Path) -> None:
    answer, out = result(), tmp_path / "deep" / "answer"
    scores = {"abu": report.full_scores(answers.attribution(), answers.N_RECORDS)}
    with report.new_folder(out) as folder:
        report.write_folder(folder, answer, answers.query(), answers.lookup, scores)
    saved = json.loads((out / "result.json").read_text())
    digest = hashlib.sha256((out / "query.png").read_bytes()).hexdigest()
    assert saved["query"]["image_sha256"] == digest
    for method in saved["methods"]:
        for row in method["results"]:
            assert Image.open(out / row["file"]).size == (16, 16)
    loaded = np.load(out / "scores_abu.npy", allow_pickle=False)
    assert loaded.dtype == np.float32 and loaded.shape == (answers.N_RECORDS,)
    assert np.isnan(loaded).sum() == answers.N_RECORDS - 8
    assert [p.name for p in out.parent.iterdir()] == ["answer"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), report.new_folder(tmp_path / "answer") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_existing_things_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert report.check_new_folder(tmp_path / "empty")
    with report.new_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("x")
    for bad in (tmp_path / "empty", tmp_path / "empty" / "a", tmp_path / "empty" / "a" / "b"):
        with pytest.raises(UserError), report.new_folder(bad):
            pass
    assert (tmp_path / "empty" / "a").read_text() == "x"


def test_an_empty_folder_gives_way_where_none_may_be_renamed_onto(tmp_path, monkeypatch) -> None:
    """As on Windows."""

    def rename(source: Path, target: Path, of=os.rename) -> None:
        if target.exists():
            raise FileExistsError(17, "Cannot create a file when that file already exists")
        of(source, target)

    monkeypatch.setattr(report.os, "rename", rename)
    (tmp_path / "empty").mkdir()
    with report.new_folder(tmp_path / "empty") as folder:
        (folder / "a").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["empty", "a"]


def test_file_names_are_safe_and_distinct() -> None:
    names = ["plain-1", "a/b", "a_b", "../../etc/passwd", "🍦", "..", "", "x" * 300, "x" * 301]
    files = [report.image_file(name) for name in names]
    assert files[0] == "images/plain-1.png"
    assert len(set(files)) == len(files)
    for file in files:
        assert file.count("/") == 1 and file.startswith("images/") and len(file) < 120
        assert not file.removeprefix("images/").startswith(".")


def test_zip_has_tables_images_and_the_result(tmp_path: Path) -> None:
    path = report.write_zip(tmp_path / "a.zip", result(), answers.query(), answers.lookup)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        rows = list(csv.DictReader(io.StringIO(archive.read("abu.csv").decode())))
        saved = json.loads(archive.read("result.json"))
    assert {"query.png", "abu.csv", "clip.csv"} <= names
    assert {row["file"] for m in saved["methods"] for row in m["results"]} <= names
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0]["captions"].endswith("; ein Wörtchen 🍦")
    assert not (tmp_path / "a.zip.part").exists()


def test_example_comes_back(tmp_path: Path) -> None:
    both = [answers.attribution(), answers.attribution("clip", 3, seed=1)]
    folder = save_example(tmp_path / "star", answers.query(), both, result(), "a" * 64)
    assert list_examples(tmp_path) == ["star"]
    example = load_example(folder, "a" * 64, ids)
    assert example.query.prompt == answers.query().prompt and example.query.seed == 3
    assert np.array_equal(np.asarray(example.query.image), np.asarray(answers.query().image))
    for saved, original in zip(example.attributions, both, strict=True):
        assert saved.ids == original.ids and np.array_equal(saved.rows, original.rows)
        assert np.array_equal(saved.scores, original.scores)
        assert np.array_equal(saved.flip, original.flip)
        spread = np.nanmax(np.abs(original.cells))
        assert np.allclose(saved.cells, original.cells, atol=1e-3 * spread, equal_nan=True)
        assert set(saved.heatmaps) == set(original.heatmaps)
        assert saved.timesteps == original.timesteps and saved.params["steps"] == [1, 2]


def test_a_control_comes_back_with_its_example(tmp_path: Path) -> None:
    original = replace(answers.attribution(), control=answers.attribution(seed=3, scored=2))
    both = [original, answers.attribution("clip", 3, seed=1)]
    save_example(tmp_path / "star", answers.query(), both, result(), "a" * 64)
    saved, other = load_example(tmp_path / "star", "a" * 64, ids).attributions
    control = original.control
    assert saved.control.ids == control.ids and np.array_equal(saved.control.rows, control.rows)
    assert np.array_equal(saved.control.scores, control.scores)
    assert np.array_equal(saved.control.cells, control.cells, equal_nan=True)
    assert np.array_equal(saved.control.standard_error, control.standard_error, equal_nan=True)
    assert saved.control.timesteps == original.timesteps and saved.control.control is None
    assert other.control is None


def test_further_methods_keep_their_best_and_how_they_agree(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(saved_top, "BEST", 4)
    first, clip = answers.attribution(), answers.attribution("clip", 3, seed=1)
    pixel = answers.attribution("pixel", answers.N_RECORDS, seed=2)
    told = report.result_dict(INDEX, answers.query(), [first], 4, answers.lookup)
    folder = tmp_path / "star"
    save_example(folder, answers.query(), [first], told, "a" * 64, further=[clip, pixel])
    example = load_example(folder, "a" * 64, ids)
    whole, short, cut = example.attributions
    assert [a.method for a in example.attributions] == ["abu", "clip", "pixel"]
    assert whole.ids == first.ids and short.ids == clip.ids and cut.ids == pixel.ids[:4]
    assert (short.kind, cut.candidates) == (clip.kind, pixel.candidates)
    assert np.allclose(cut.scores, pixel.scores[:4], rtol=2e-3)
    assert np.array_equal(cut.flip, pixel.flip[:4]) and np.isnan(cut.standard_error).all()
    kept, made = example.correlations["abu", "pixel"], correlation(first, pixel)
    assert kept.common == made.common and kept.rho == pytest.approx(made.rho, nan_ok=True)
    (folder / "top.flip.npy").unlink()
    with pytest.raises(UserError, match="damaged"):
        load_example(folder, "a" * 64, ids)


def test_example_of_another_index_or_damaged_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "star"
    save_example(folder, answers.query(), [answers.attribution()], result(), "a" * 64)
    with pytest.raises(UserError, match="made with index aaaaaaaaaaaa, this is bbbbbbbbbbbb"):
        load_example(folder, "b" * 64, ids)
    cells = folder / "abu.cells.npy"
    cells.write_bytes(cells.read_bytes()[:60])
    with pytest.raises(UserError, match="damaged"):
        load_example(folder, "a" * 64, ids)
    np.save(cells, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        load_example(folder, "a" * 64, ids)
    with pytest.raises(UserError, match="damaged"):
        load_example(tmp_path / "absent", "a" * 64, ids)


def test_artists_share_what_rises_above_the_floor() -> None:
    names = [("Ann", "Bob"), ("Ann",), (), ("Cy",)]
    shares = artist_shares(["a", "b", "c", "d"], np.array([5.0, 3.0, 2.0, 0.5]), names, floor=1.0)
    got = {share.artist: share.share for share in shares}
    assert got == pytest.approx({"Ann": 4 / 7, "Bob": 2 / 7, UNKNOWN: 1 / 7})
    assert shares[0].artist == "Ann" and shares[0].records == ("a", "b")
    assert artist_shares(["a"], np.array([0.5]), [("Ann",)], floor=1.0) == []


def test_the_floor_of_a_score_is_that_of_a_mean_of_cells() -> None:
    cells = np.zeros((3, 5, 2, 10), dtype=np.float32)
    cells[1:, 2:] = np.nan  # two captions: fewer cells than the one seen whole
    answer = replace(answers.attribution(), cells=cells, noise_floor=0.5)
    assert score_floor(answer) == pytest.approx(2 * 0.5 / 50**0.5)
    assert score_floor(replace(answer, noise_floor=None)) == 0.0
    assert score_floor(replace(answer, cells=None)) == 0.0
