"""What an index tells without its model: asked of a Reader that has none."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attribution import defaults, layout
from attribution.engine import Engine
from attribution.index import Index
from attribution.reader import Reader
from attribution.saved import save_example
from attribution.types import Region, UserError
from tests.attribution.answers import check_result


@pytest.fixture
def reader(engine) -> Reader:
    return Reader(Index.open(engine.index.path), "cpu")


def test_an_engine_is_a_reader_with_a_model(engine, reader) -> None:
    assert isinstance(engine, Engine) and not hasattr(reader, "denoiser")
    assert reader.index_hash == engine.index_hash and reader.n_train == engine.n_train
    assert reader.suggest_prompts(3) == engine.suggest_prompts(3)


def test_as_many_are_shown_as_there_are(reader, monkeypatch) -> None:
    assert reader.n_train < defaults.TOP_K
    assert reader.top_k() == reader.top_k(None) == reader.n_train
    assert reader.top_k("3") == reader.top_k(3) == 3
    for bad in (0, reader.n_train + 1, "many"):
        with pytest.raises(UserError, match=f"from 1 to {reader.n_train}"):
            reader.top_k(bad)
    monkeypatch.setattr(reader, "n_train", 1000)
    assert reader.top_k() == defaults.TOP_K


def test_costs_are_read_off_the_index(reader) -> None:
    clip, abu, control = (reader.cost(name) for name in ("clip", "abu", "random"))
    assert clip.parts == {"clip rows": reader.index.rows("clip")[0].nbytes}
    assert abu.parts["base losses"] == reader.index.base_loss[0].nbytes
    assert abu.parts["latents"] == np.load(next(reader.index.path.rglob("latents.npy")))[0].nbytes
    assert abu.bytes_per_record == sum(abu.parts.values()) > clip.bytes_per_record
    assert set(abu.seconds) == {"features", "latents", "losses", "fisher"}
    assert 0 < clip.seconds_per_record < abu.seconds_per_record  # the run that made it noted them
    assert control.parts == {} and control.seconds_per_record == 0 and control.memory == 0


def test_artists_and_controls(reader, answer) -> None:
    shares = reader.artists(answer)
    assert sum(share.share for share in shares) == pytest.approx(1.0)
    assert {share.artist for share in shares} <= {"artist 0", "artist 1", "artist 2"}
    strip = reader.random_records(4, 1, exclude=answer.ids[:4])
    assert [r.id for r in strip] == [r.id for r in reader.random_records(4, 1, answer.ids[:4])]
    assert not {r.id for r in strip} & set(answer.ids[:4]) and len(strip) == 4
    assert all(record.split == "train" for record in strip)


def test_export_and_link(reader, query, answer, tmp_path) -> None:
    path = reader.export(query, [answer], tmp_path / "a.zip", top_k=3)
    with zipfile.ZipFile(path) as archive:
        check_result(json.loads(archive.read("result.json")), 3)
    link = reader.link(query, "abu", 4)
    assert link == {"prompt": query.prompt, "seed": "7", "method": "abu", "k": "4"}
    boxes = (Region((0.0, 1.5, 4.0, 8.0)), Region((9.0, 9.0, 16.0, 10.1)))
    part = reader.link(replace(query, regions=boxes), "abu", 4)
    assert part == {**link, "region": "0,1.5,4,8;9,9,16,10.1"}
    named = reader.link(replace(query, regions=boxes[:1], called="a stop sign"), "abu", 4)
    assert named == {**link, "region": "0,1.5,4,8", "called": "a stop sign"}
    free = Region((0, 0, 16, 16), Image.new("L", (16, 16), 200))
    with pytest.raises(UserError, match="free form"):
        reader.link(replace(query, regions=(free,)), "abu", 4)


def test_saved_example_of_this_index(reader, query, answer, tmp_path, monkeypatch) -> None:
    result = reader.result(query, [answer], 3)
    monkeypatch.setattr(reader.index, "path", Path(tmp_path))
    assert reader.examples() == []
    folder = tmp_path / layout.EXAMPLES
    save_example(folder / "one", query, [answer], result, reader.index_hash)
    save_example(folder / "other", query, [answer], result, "0" * 64)
    assert reader.examples() == ["one", "other"]
    example = reader.example("one")
    assert example.attributions[0].ids == answer.ids
    view = reader.rerank(example.attributions[0], None)
    assert view.ids[:3] == answer.ids[:3]
    with pytest.raises(UserError, match="made with index"):
        reader.example("other")
