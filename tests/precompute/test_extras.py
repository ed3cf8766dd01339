"""Extras of a finished index: present, current and intact, or absent; index_hash never moves."""

from __future__ import annotations

import argparse
import json
import shutil

import numpy as np
import pytest

from attribution import layout
from attribution.index import Index
from attribution.types import UserError
from precompute import extras, options
from precompute.__main__ import main
from precompute.build import Build
from precompute.shards import existing, write_npy
from tests.precompute.worlds import image_folder, make_index, tiny_clip

STEP, FILE = "twos", f"{layout.ROWS}/twos.npy"


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("extras")
    return make_index(folder / "index", tiny_model, image_folder(folder / "data", 8))


@pytest.fixture
def world(made, tmp_path):
    return shutil.copytree(made, tmp_path / "index")


def job(world, *more):
    parser = argparse.ArgumentParser()
    options.add_common(parser)
    options.add_settings(parser)
    return Build.beside(parser.parse_args(["--out", str(world), *more]))


def add(world, value=2.0, *more, until=None):
    """The step `twos`: a row of `value` for each record and flip; until: shards to make."""
    run = job(world, *more)
    run.extra(STEP, {"value": value})

    def make(work, bar):
        if until is not None and work.folder.name >= layout.shard_name(until):
            raise KeyboardInterrupt
        write_npy(work.file(FILE), np.full((work.done()["records"], 2, 3), value, np.float16))
        return [FILE]

    run.over_shards(STEP, lambda work: {"value": value}, make)


def test_rows_of_an_extra_step_are_found_and_leave_the_hash_alone(world):
    before = Index.open(world).index_hash
    assert not Index.open(world).has_rows("twos")
    add(world)
    index = Index.open(world, "full")
    assert index.index_hash == before
    assert index.has_rows("twos") and index.extra(STEP) == {"value": 2.0}
    assert index.rows("twos").shape == (8, 2, 3) and (index.rows("twos") == 2).all()
    assert index.search("twos").nearest(np.ones(3), 3)[1].tolist() == [6.0] * 3


def test_a_killed_step_is_absent_then_resumes(world):
    with pytest.raises(KeyboardInterrupt):
        add(world, until=1)
    assert len(existing(world)) == 2
    index = Index.open(world, "full")
    assert not index.has_rows("twos")
    kept = (world / "shards/00000" / FILE).stat().st_mtime_ns
    add(world)
    assert (world / "shards/00000" / FILE).stat().st_mtime_ns == kept
    assert Index.open(world).has_rows("twos")


def test_other_settings_are_refused_or_remade(world):
    add(world)
    with pytest.raises(UserError, match=r"value: begun with 2.0, now 3.0.*--rebuild"):
        add(world, 3.0)
    add(world, 3.0, "--rebuild")
    assert (Index.open(world).rows("twos") == 3).all()


def test_shards_made_in_two_ways_never_pass_for_one(world):
    add(world)
    with pytest.raises(KeyboardInterrupt):
        add(world, 3.0, "--rebuild", until=1)
    assert not Index.open(world, "full").has_rows("twos")
    add(world, 3.0)
    assert (Index.open(world).rows("twos") == 3).all()


def test_extras_of_another_model_or_records_count_as_absent(world):
    add(world)
    note = json.loads((world / layout.EXTRAS).read_text())
    note["steps"][STEP]["index_hash"] = "0" * 64
    (world / layout.EXTRAS).write_text(json.dumps(note))
    index = Index.open(world)
    assert not index.has_rows("twos") and index.extra(STEP) is None


def test_a_remake_that_is_killed_leaves_no_mixture(world):
    add(world)
    with pytest.raises(KeyboardInterrupt):
        add(world, 3.0, "--rebuild", until=1)
    assert not Index.open(world).has_rows("twos")
    add(world, 3.0)
    assert (Index.open(world).rows("twos") == 3).all()


def test_a_flipped_byte_is_refused_by_name(world):
    add(world)
    path = world / "shards/00001" / FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"00001/rows/twos.npy is corrupt.*precompute twos --out"):
        Index.open(world, "full")


def test_an_unfinished_index_takes_no_extras(world):
    note = json.loads((world / layout.MANIFEST).read_text())
    (world / layout.MANIFEST).write_text(json.dumps(note | {"complete": False}))
    with pytest.raises(UserError, match="not finished"):
        job(world).extra(STEP, {})


def test_encoders_are_copied_and_checked(world, tmp_path):
    source = tiny_clip(tmp_path / "clip")
    before = Index.open(world).index_hash
    place = job(world).install_encoder("mine", source)
    index = Index.open(world, "full")
    assert index.encoder("mine") == place == world / "encoders/mine"
    assert index.encoder("other") is None and index.index_hash == before
    (place / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"encoders/mine/config.json is truncated"):
        Index.open(world)
    with pytest.raises(UserError, match="no model at"):
        job(world).install_encoder("lost", tmp_path / "nowhere")


ENTRY = {"index_hash": "0", "command": "c", "settings": {}, "files": {}}


@pytest.mark.parametrize(
    ("note", "says"),
    [
        ({"steps": []}, "its steps are no object"),
        ({"encoders": [1]}, "its encoders are no object"),
        ({"steps": {"a": []}}, "the step a is no object"),
        ({"steps": {"a": {k: v for k, v in ENTRY.items() if k != "command"}}}, "has no command"),
        ({"steps": {"a": ENTRY | {"settings": [1]}}}, "the settings of the step a"),
        ({"steps": {"a": ENTRY | {"files": {"b": {}}}}}, "the files of the step a"),
        ({"steps": {"a": ENTRY | {"files": {"b": {"bytes": "1", "sha256": "2"}}}}}, "files of the"),
        ({"encoders": {"a": {"sha256": "0"}}}, "neither path nor hub_id"),
        ({"encoders": {"a": {"sha256": "0", "path": 1}}}, "neither path nor hub_id"),
        ({"encoders": {"a": {"path": "a"}}}, "the encoder a has no sha256"),
    ],
)
def test_a_malformed_note_is_refused_in_one_line(world, capsys, note, says):
    (world / layout.EXTRAS).write_text(json.dumps(note))
    with pytest.raises(UserError, match=f"extras.json is malformed: .*{says}") as error:
        Index.open(world)
    assert "\n" not in str(error.value)
    for verb in ("dtrak", "variants"):
        assert main([verb, "--out", str(world)]) == 2
        assert says in capsys.readouterr().err.splitlines()[-1]


def test_a_malformed_note_of_a_shard_has_its_step_made_again(world):
    add(world)
    path = world / "shards/00001" / layout.EXTRAS
    path.write_text(json.dumps({"steps": {STEP: []}}))
    with pytest.raises(UserError, match=r"00001.extras.json is malformed: the step twos"):
        Index.open(world)
    add(world)
    assert Index.open(world, "full").has_rows("twos")


def test_files_of_no_shard(world):
    job(world).extra("whole", {}, "whole --all")
    (world / "extras").mkdir()
    (world / "extras/a.bin").write_bytes(b"1234")
    extras.add_files(world, "whole", ["extras/a.bin"])
    Index.open(world, "full")
    (world / "extras/a.bin").write_bytes(b"123")
    with pytest.raises(UserError, match=r"a.bin is truncated.*precompute whole --all --out"):
        Index.open(world)
