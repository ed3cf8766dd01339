"""The proof set: a deterministic part of another set, at 32 px, be that a file or shards."""

from __future__ import annotations

import io

import pyarrow.parquet as pq
import pytest
from PIL import Image

from precompute.__main__ import main
from precompute.recipes.openclipart import render, write
from precompute.recipes.openclipart.write import Record


def _record(name: str, category: str, split: str = "train", parts: list | None = None) -> Record:
    image = Image.new("RGB", (64, 64), "white")
    image.paste((200, 0, 0), (0, 0, 32, 64))
    return Record(
        id=name,
        image=render.png_bytes(image),
        display=render.webp_bytes(image.resize((192, 192))),
        width=192,
        height=192,
        captions=[f"{name}, by Ann"],
        artists=["Ann"],
        title=name,
        category=category,
        split=split,
        source=f"{name}.svg",
        parts=parts or [],
    )


@pytest.fixture
def source(tmp_path):
    part = {"id": "b", "box": [0.0, 0.0, 8.0, 8.0]}
    records = [
        _record("b", "flag"),
        _record("a", "clock", "held-out"),
        _record("c", "mammal"),
        _record("d", "collage", parts=[part]),
    ]
    folder = tmp_path / "source"
    folder.mkdir()
    write.write_parquet(records, folder / "records.parquet")
    return folder


def _make(source, out):
    assert main(["recipe", "proof", "--source", str(source), "--out", str(out)]) == 0
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_it_keeps_single_drawings_of_its_families_and_their_split(source, tmp_path):
    made = _make(source, tmp_path / "one")
    assert set(made) == {"records.parquet", "artists.csv", "counts.json", "LICENCE.md"}
    rows = pq.read_table(tmp_path / "one/records.parquet").to_pylist()
    assert [(row["id"], row["split"]) for row in rows] == [("a", "held-out"), ("b", "train")]
    image = Image.open(io.BytesIO(rows[0]["image"]))
    assert image.size == (32, 32) and image.getpixel((0, 0)) == (200, 0, 0)
    assert Image.open(io.BytesIO(rows[0]["display"])).size == (128, 128)
    assert (rows[0]["width"], rows[0]["height"]) == (128, 128)
    assert _make(source, tmp_path / "two") == made


def test_shards_of_an_index_serve_as_source(source, tmp_path):
    made = _make(source, tmp_path / "one")
    shard = tmp_path / "index/shards/00000"
    shard.mkdir(parents=True)
    (source / "records.parquet").rename(shard / "records.parquet")
    assert _make(tmp_path / "index", tmp_path / "two") == made


def test_bad_sources(tmp_path, capsys):
    assert main(["recipe", "proof", "--out", str(tmp_path / "out")]) == 2
    assert "--source is needed" in capsys.readouterr().err
    assert main(["recipe", "proof", "--out", "x", "--source", str(tmp_path)]) == 2
    assert "no training set" in capsys.readouterr().err
