"""A finished index is of one model and of one set of settings, whichever verb ran last: it opens
with the very bytes that a run from nothing would give, or not at all.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from attribution import layout
from attribution.index import Index
from attribution.integrity import entry_of
from attribution.manifest import index_hash
from attribution.methods import needs
from attribution.types import UserError
from precompute import manifest as manifests
from precompute.__main__ import main
from precompute.shards import existing, write_json
from tests.precompute.worlds import image_folder, make_index, tree
from tests.tiny import tiny_pipeline

REFUSED = r"not finished; `python -m precompute index --out \S+` resumes it"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data"), 12)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """Another model of the same shape."""
    folder = tmp_path_factory.mktemp("other") / "model"
    tiny_pipeline("v_prediction", seed=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory, tiny_model, data) -> Path:
    return make_index(tmp_path_factory.mktemp("old") / "index", tiny_model, data)


@pytest.fixture(scope="module")
def new(tmp_path_factory, other, data) -> Path:
    """What an index of the other model should be."""
    return make_index(tmp_path_factory.mktemp("new") / "index", other, data)


@pytest.fixture
def world(old, tmp_path) -> Path:
    return shutil.copytree(old, tmp_path / "index")


def keys(root: Path, step: str) -> list[str]:
    return [work.step(step)["key"] for work in existing(root)]


def before_eps2(root: Path) -> Path:
    """The index as it would be from before the squared outputs were kept."""
    for work in existing(root):
        note = work.done()
        del note["steps"]["losses"]["files"][layout.BASE_LOSS_EPS2]
        write_json(work.file(layout.DONE), note)
        work.file(layout.BASE_LOSS_EPS2).unlink()
    settings = manifests.draft(root)
    shards = [
        {**entry, "done": entry_of(root / layout.SHARDS / entry["name"] / layout.DONE)}
        for entry in settings["shards"]
    ]
    changed = {**settings, "shards": shards}
    write_json(root / layout.MANIFEST, {**changed, "index_hash": index_hash(changed)})
    return root


def test_a_file_that_an_older_index_lacks_is_made_by_the_command_it_offers(world, old):
    why = needs.lacks(Index.open(before_eps2(world), "full"), "base:eps2")
    (command,) = re.findall("`python -m precompute ([^`]*)`", why)
    assert main(shlex.split(command)) == 0
    index = Index.open(world, "full")
    assert needs.lacks(index, "base:eps2") == ""
    assert np.array_equal(index.base_loss_eps2, Index.open(old).base_loss_eps2)


def test_an_older_index_that_lacks_a_file_stays_as_it_is(world):
    before = tree(before_eps2(world))
    assert main(["fisher", "--out", str(world)]) == 0
    assert tree(world) == before and Index.open(world).base_loss_eps2 is None


@pytest.mark.parametrize("verb", ["losses", "fisher", "gradients", "latents", "features"])
def test_a_verb_alone_does_not_finish_an_index_of_another_model(world, new, other, capsys, verb):
    assert main([verb, "--out", str(world), "--model", str(other), "--rebuild"]) == 0
    assert f"`python -m precompute index --out {world}` makes the rest" in capsys.readouterr().out
    with pytest.raises(UserError, match=REFUSED):
        Index.open(world)
    assert main(["index", "--out", str(world), "--rebuild"]) == 0
    assert tree(world) == tree(new)
    Index.open(world, "full")


def test_what_a_killed_rebuild_left_undone_is_not_finished_by_another_step(
    world, new, other, monkeypatch
):
    from precompute import losses

    def killed(job, work, bar, make=losses._make):
        if work.folder.name == layout.shard_name(1):
            raise KeyboardInterrupt
        return make(job, work, bar)

    with monkeypatch.context() as patch:
        patch.setattr(losses, "_make", killed)
        assert main(["index", "--out", str(world), "--model", str(other), "--rebuild"]) == 130
    for verb in ("gradients", "fisher"):
        assert main([verb, "--out", str(world)]) == 0
        with pytest.raises(UserError, match=REFUSED):
            Index.open(world, "full")
    made = {path: path.stat().st_mtime_ns for path in world.glob("curvature/*.safetensors")}
    first = world / "shards/00000/base_loss.npy"
    made[first] = first.stat().st_mtime_ns
    assert main(["index", "--out", str(world), "--rebuild"]) == 0
    assert tree(world) == tree(new)
    assert made == {path: path.stat().st_mtime_ns for path in made}  # valid: not made again


def test_other_settings_than_a_step_was_made_with_leave_it_undone(world):
    assert main(["latents", "--out", str(world), "--gradient-dim", "8", "--rebuild"]) == 0
    with pytest.raises(UserError, match=REFUSED):
        Index.open(world)
    losses = keys(world, "losses")
    assert main(["index", "--out", str(world)]) == 0
    index = Index.open(world, "full")
    assert index.manifest["gradients"]["dim"] == index.rows("gradients").shape[2] == 8
    assert keys(world, "losses") == losses


def test_settings_taken_back_need_nothing_made_again(world, old):
    assert main(["latents", "--out", str(world), "--gradient-dim", "8", "--rebuild"]) == 0
    assert main(["latents", "--out", str(world), "--gradient-dim", "16", "--rebuild"]) == 0
    assert tree(world) == tree(old)
    Index.open(world, "full")


def test_records_of_other_settings_are_read_again(world, old, data, capsys):
    note = existing(world)[0].done()
    note["steps"]["dataset"]["key"] = "0" * 64
    write_json(world / "shards/00000" / layout.DONE, note)
    finished = manifests.draft(world)
    draft = {name: finished[name] for name in finished.keys() - {"shards", "files", "index_hash"}}
    write_json(world / layout.MANIFEST, draft | {"complete": False})
    assert main(["losses", "--out", str(world)]) == 2
    assert "name their source with --data" in capsys.readouterr().err
    assert main(["losses", "--out", str(world), "--data", str(data)]) == 0
    assert Index.open(world, "full").index_hash == Index.open(old).index_hash


def test_a_mend_that_is_killed_leaves_no_finished_index(world, old, monkeypatch):
    """The manifest vouches for no shard while one is being made again."""
    from precompute import latents

    (world / "shards/00000/latents.npy").unlink()

    def killed(job, work, bar):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(latents, "_make", killed)
        assert main(["latents", "--out", str(world)]) == 130
    with pytest.raises(UserError, match=REFUSED):
        Index.open(world)
    assert main(["index", "--out", str(world)]) == 0
    assert tree(world) == tree(old)


def test_a_finished_manifest_does_not_vouch_for_a_damaged_file(world):
    """Its table comes from what the step noted, never from what lies there now."""
    path = world / layout.CURVATURE / layout.EKFAC
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    assert main(["losses", "--out", str(world)]) == 0
    with pytest.raises(UserError, match=r"ekfac\.safetensors is corrupt"):
        Index.open(world, "full")
    assert main(["index", "--out", str(world)]) == 0
    assert path.read_bytes() == whole
