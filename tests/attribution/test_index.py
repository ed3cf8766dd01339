"""Opening an index: what is in it, and everything that is wrong with it named in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from attribution import search
from attribution.index import Index
from attribution.search import build_search, cached_search
from attribution.types import UserError
from tests.precompute.worlds import image_folder, make_index, saved_curvature, tiny_clip


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model) -> Path:
    """An index of 12 records in 3 shards, the last two records held out."""
    folder = tmp_path_factory.mktemp("world")
    data, clip = image_folder(folder / "data", 12, captions=2), tiny_clip(folder / "clip")
    return make_index(folder / "index", tiny_model, data, "--clip", str(clip))


@pytest.fixture(scope="module")
def index(made) -> Index:
    return Index.open(made)


def test_records_by_row(index):
    assert index.n_records == 12
    assert index.ids([0, 11, 5]) == ["pictures/00.png", "pictures/11.png", "pictures/05.png"]
    assert index.row_of("pictures/07.png") == 7
    assert [len(captions) for captions in index.captions(range(4))] == [1, 2, 1, 2]
    assert index.record(4)["artists"] == ["artist 1"]
    assert index.image(6).size == index.display(6).size == (24, 22)
    assert index.train_rows.tolist() == list(range(10)) and index.held_out_rows.tolist() == [10, 11]


def test_unknown_record_and_method(index):
    with pytest.raises(UserError, match="no record 'nowhere'"):
        index.row_of("nowhere")
    with pytest.raises(UserError, match="no dino rows"):
        index.rows("dino")
    with pytest.raises(IndexError):
        index.latents([12])


def test_training_records_by_id(index):
    assert index.training_rows(["pictures/07.png", "pictures/02.png"]).tolist() == [7, 2]
    assert index.training_rows([]).dtype == np.int64
    with pytest.raises(UserError, match=r"'pictures/11\.png' is held out: it trained nothing"):
        index.training_rows(["pictures/07.png", "pictures/11.png"])


def test_arrays_follow_the_rows_asked(index):
    rows = [11, 0, 7, 5]
    latents = index.latents(rows, flip=1)
    assert latents.shape == (4, 4, 8, 8) and latents.dtype == torch.float32
    assert torch.equal(latents[2], index.latents([7], flip=1)[0])
    assert not torch.equal(latents, index.latents(rows, flip=0))
    assert np.array_equal(index.rows("clip")[rows], index.rows("clip", rows))
    assert index.base_loss.shape == (12, 2, 2, 4) and index.base_loss_eps2.shape == (12, 2, 2, 4)
    missing = np.isnan(index.base_loss).all(axis=(2, 3))
    assert missing[:, 1].tolist() == [len(captions) < 2 for captions in index.all_captions]
    assert not missing[:, 0].any()


def test_curvature_and_models(index, made):
    assert set(saved_curvature(index, "diagonal")) > {"count"}
    assert (
        int(saved_curvature(index, "ekfac")["count"])
        == int(saved_curvature(index, "diagonal")["count"])
        == 20
    )
    assert index.model_path == made / "model" and index.clip_path == made / "clip"
    assert index.model_revision is None


def test_search_finds_training_records_only(index):
    query = index.rows("clip", [10])[0, 0].astype(np.float32)
    rows, products, flips = index.search("clip").nearest(query, 12)
    assert sorted(rows) == list(range(10))
    both = index.rows("clip").astype(np.float32) @ query
    assert np.allclose(products, both.max(axis=1)[rows], atol=1e-5)
    assert np.array_equal(flips, both.argmax(axis=1)[rows])
    assert (np.diff(products) <= 0).all()


def test_search_takes_the_best_of_several_queries(index):
    queries = index.rows("clip", [2, 3])[:, 0].astype(np.float32)
    rows, products, _ = index.search("clip").nearest(queries, 2)
    assert set(rows) == {2, 3} and np.allclose(products, 1.0, atol=1e-3)


def test_large_search_is_kept_and_a_damaged_cache_rebuilt(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "KEEP_ABOVE_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vectors = np.random.default_rng(0).standard_normal((20, 2, 8)).astype(np.float16)
    path, key, rows = tmp_path / "search" / "m.faiss", {"index": "a"}, np.arange(100, 120)
    first = cached_search(path, key, vectors, rows).nearest(vectors[4, 1], 3)
    kept = path.read_bytes()
    path.write_bytes(kept[:-1])
    again = cached_search(path, key, vectors, rows).nearest(vectors[4, 1], 3)
    plain = build_search(vectors, rows).nearest(vectors[4, 1], 3)
    assert path.read_bytes() == kept and first[0][0] == 104
    for one, other, third in zip(first, again, plain, strict=True):
        assert np.allclose(one, other) and np.allclose(one, third)


def test_a_read_only_index_keeps_its_search_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "KEEP_ABOVE_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "search").write_text(
        "a file where the folder would be: nothing can be written here"
    )
    cached_search(tmp_path / "search" / "m.faiss", {}, np.ones((2, 2, 4), np.float16), np.arange(2))
    assert len(list((tmp_path / "cache").rglob("m.faiss"))) == 1


# ---------------------------------------------------------------------- damage


def _flip(path: Path, position: int = -3) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _manifest(root: Path, **changes: object) -> None:
    path = root / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (
        lambda r: (r / "manifest.json").unlink(),
        r"manifest.json is missing; `python -m precompute",
    ),
    "not JSON": (lambda r: (r / "manifest.json").write_text("{"), r"manifest.json cannot be read"),
    "newer": (
        lambda r: _manifest(r, format_version=9),
        r"format version 9, this program reads version 1: update",
    ),
    "unfinished": (
        lambda r: _manifest(r, complete=False),
        r"not finished; `python -m precompute index",
    ),
    "by hand": (lambda r: _manifest(r, n_records=13), r"manifest.json was changed by hand"),
    "flipped": (
        lambda r: _flip(r / "shards/00001/latents.npy"),
        r"00001/latents.npy is corrupt: sha256",
    ),
    "flipped record": (
        lambda r: _flip(r / "shards/00000/records.parquet", 60),
        r"00000/records.parquet is corrupt",
    ),
    "truncated": (
        lambda r: _cut(r / "shards/00002/base_loss.npy"),
        r"base_loss.npy is truncated: [\d,]+ bytes, the",
    ),
    "missing": (lambda r: (r / "shards/00000/rows/clip.npy").unlink(), r"rows/clip.npy is missing"),
    "done": (lambda r: _flip(r / "shards/00000/done.json"), r"done.json is corrupt"),
    "curvature": (
        lambda r: _cut(r / "curvature/ekfac.safetensors"),
        r"ekfac.safetensors is truncated",
    ),
    "model": (
        lambda r: shutil.rmtree(r / "model"),
        r"model is missing. Restore it, or make it again",
    ),
    "weights": (
        lambda r: _flip(r / "model/unet/diffusion_pytorch_model.safetensors"),
        r"model is not the one",
    ),
    "scheduler": (
        lambda r: _cut(r / "model/scheduler/scheduler_config.json"),
        r"scheduler_config.json is truncated",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_refused_by_name(tmp_path, made, name):
    damage, message = DAMAGE[name]
    root = Path(shutil.copytree(made, tmp_path / "index"))
    damage(root)
    with pytest.raises(UserError, match=message) as error:
        Index.open(root)
    assert "\n" not in str(error.value)


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder; `python -m precompute index --out"):
        Index.open(tmp_path / "nowhere")


def test_quick_opening_sees_sizes_only(tmp_path, made):
    root = Path(shutil.copytree(made, tmp_path / "index"))
    _flip(root / "shards/00001/latents.npy")
    Index.open(root, verify="quick")
    with pytest.raises(UserError, match="is corrupt"):
        Index.open(root, verify="full")


def test_unlisted_files_are_not_part_of_the_model(tmp_path, made):
    root = Path(shutil.copytree(made, tmp_path / "index"))
    (root / "model" / "README.md").write_text("notes")
    (root / "examples").mkdir()
    Index.open(root)
