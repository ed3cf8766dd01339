"""`python -m precompute examples`: saved answers of an index, small, refused by any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from attribution import defaults, layout
from attribution.engine import Engine
from attribution.index import Index
from attribution.saved import load_example
from attribution.types import UserError
from precompute import examples
from precompute.__main__ import main
from tests.precompute.worlds import image_folder, make_index


@pytest.fixture(scope="module")
def index(tmp_path_factory, tiny_model) -> Path:
    folder = tmp_path_factory.mktemp("world")
    model = shutil.copytree(tiny_model, folder / "model")
    (model / layout.GENERATION).write_text('{"steps": 2, "guidance": 1.0}')
    return make_index(folder / "index", model, image_folder(folder / "data", 6))


def test_an_example_is_made_remade_and_read(index) -> None:
    command = ["examples", "--index", str(index), "--device", "cpu", "--only", "one"]
    for seed in ("3", "4"):
        assert main([*command, "--prompt", "ak", "--seed", seed]) == 0
    engine = Engine(index, "cpu")
    assert engine.examples() == ["one"]
    example = engine.example("one")
    assert (example.query.prompt, example.query.seed, example.query.steps) == ("ak", 4, 2)
    assert [a.method for a in example.attributions] == [defaults.METHOD]
    folder = index / layout.EXAMPLES / "one"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000
    Index.open(index, "full")  # examples are no part of what the manifest vouches for
    with pytest.raises(UserError, match="precompute examples"):
        load_example(folder, "0" * 64, engine.index.ids)


def test_an_example_holds_every_method(index) -> None:
    command = ["examples", "--index", str(index), "--device", "cpu", "--only", "every"]
    assert main([*command, "--prompt", "ak", "--method", "all"]) == 0
    engine = Engine(index, "cpu")
    example = engine.example("every")
    there = [m["name"] for m in engine.methods() if m["available"]]
    assert example.attributions[0].method == defaults.METHOD
    assert example.attributions[0].cells is not None
    assert sorted(a.method for a in example.attributions) == sorted(there)
    assert len(example.correlations) == len(there) * (len(there) - 1) / 2
    assert sum(path.stat().st_size for path in (index / layout.EXAMPLES / "every").iterdir()) < 1e5
    shutil.rmtree(index / layout.EXAMPLES / "every")


def test_examples_of_another_index_go_with_a_full_run(index, monkeypatch) -> None:
    folder = index / layout.EXAMPLES
    monkeypatch.setattr(examples, "EXAMPLES", (("two", "bk", 1),))
    assert main(["examples", "--index", str(index), "--device", "cpu"]) == 0
    shutil.copytree(folder / "two", folder / "other")
    result = folder / "other" / "result.json"
    result.write_text(result.read_text().replace(Index.open(index).index_hash, "0" * 64))
    shutil.copytree(folder / "two", folder / "mine")
    assert main(["examples", "--index", str(index), "--device", "cpu"]) == 0
    assert {path.name for path in folder.iterdir()} >= {"two", "mine"}
    assert not (folder / "other").exists()


def test_bad_arguments(index, capsys) -> None:
    for more in (["--only", "nope"], ["--prompt", "a"], ["--prompt", "a", "--only", "../up"]):
        assert main(["examples", "--index", str(index), *more]) == 2
        assert capsys.readouterr().err.count("\n") == 1
