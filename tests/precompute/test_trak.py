"""The verbs of TRAK's and D-TRAK's rows: what they write, resume, refuse and keep."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from attribution import layout
from attribution.denoiser import Denoiser
from attribution.gradients import per_sample_gradients
from attribution.index import Index
from attribution.projection import BlockProjection
from attribution.weights import parameter_names
from precompute import extras
from precompute.__main__ import main
from precompute.build import Build
from precompute.record_gradients import chunk_rows
from precompute.records import ShardRecords
from precompute.shards import existing, shard
from tests.precompute.worlds import image_folder, make_index, tree
from tests.tiny import tiny_pipeline

DIM = ("--dim", "48")


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model):
    """8 records in two shards, the last two held out."""
    folder = tmp_path_factory.mktemp("trak")
    data = image_folder(folder / "data", 8, captions=2)
    return make_index(folder / "index", tiny_model, data, "--timestep-stride", "500")


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    """The same with rows of both verbs."""
    out = shutil.copytree(made, tmp_path_factory.mktemp("whole") / "index")
    for verb in ("trak", "dtrak"):
        assert main([verb, "--out", str(out), *DIM]) == 0
    return out


@pytest.fixture
def world(made, tmp_path):
    return shutil.copytree(made, tmp_path / "index")


def rows_of(out, name="trak"):
    return [
        (work.folder / layout.ROWS / layout.rows_name(name)).read_bytes() for work in existing(out)
    ]


def test_rows_are_there_for_every_record_and_leave_the_hash_alone(made, whole):
    index = Index.open(whole, "full")
    assert index.index_hash == Index.open(made).index_hash
    for name in ("trak", "dtrak"):
        assert index.has_rows(name) and index.rows(name).dtype == np.float16
        assert index.rows(name).shape == (8, 2, 48)
        settings = index.extra(name)
        assert settings["timesteps"] == list(index.timesteps) and settings["dim"] == 48
    layers = [block["parameters"] for block in index.extra("trak")["blocks"]]
    assert all(len(names) == 1 for names in layers)
    assert len(index.extra("dtrak")["blocks"]) == 1
    denoiser = Denoiser.load(index.model_path, device="cpu")
    assert tuple(n for (n,) in layers) == parameter_names(denoiser.unet, "kv")


def test_numbers_lie_well_within_half_precision(whole):
    index = Index.open(whole)
    for name in ("trak", "dtrak"):
        rows = np.abs(index.rows(name).astype(np.float32))
        assert 0.1 < np.sqrt(np.square(rows).mean()) < 10
        assert rows.max() < 1000 and (rows < 6e-5).mean() < 0.02


@pytest.mark.parametrize("objective", ["loss", "eps2"])
def test_means_over_timesteps_do_not_depend_on_the_batch(whole, objective):
    """Small batches put a mean together from projected parts."""
    index = Index.open(whole)
    denoiser = Denoiser.load(index.model_path, device="cpu").with_objective(objective)
    names = parameter_names(denoiser.unet, "kv")
    shapes = {name: tuple(denoiser.unet.get_parameter(name).shape) for name in names}
    projection = BlockProjection.from_settings(shapes, index.extra("trak"))
    records = ShardRecords.read(shard(whole, 0))
    steps = [50, 300, 550, 800]
    one, *others = (
        chunk_rows(denoiser, records, range(1, 3), steps, 0, names, projection.apply, size)
        for size in (16, 4, 3, 1)
    )
    assert one.shape == (2, 2, projection.dim)
    for other in others:
        assert np.allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(one).max())


def test_a_batch_never_exceeds_its_size(whole, monkeypatch):
    sizes = []

    def counted(denoiser, latents, *rest, **more):
        sizes.append(len(latents))
        return per_sample_gradients(denoiser, latents, *rest, **more)

    monkeypatch.setattr("precompute.record_gradients.per_sample_gradients", counted)
    index = Index.open(whole)
    denoiser = Denoiser.load(index.model_path, device="cpu")
    names = parameter_names(denoiser.unet, "kv")
    records = ShardRecords.read(shard(whole, 0))

    def first(gradients):
        return gradients[names[0]].flatten(1)

    chunk_rows(denoiser, records, range(2), [50, 300, 550, 800], 0, names, first, 3)
    assert set(sizes) == {2} and sum(sizes) == 16


def test_a_stopped_run_resumes_to_the_same_bytes(world, whole, monkeypatch):
    from precompute import projected

    write = projected.write_npy

    def stopping(path, array):
        if "00001" in str(path):
            raise KeyboardInterrupt
        write(path, array)

    monkeypatch.setattr(projected, "write_npy", stopping)
    assert main(["trak", "--out", str(world), *DIM]) == 130
    assert not Index.open(world, "full").has_rows("trak")
    monkeypatch.setattr(projected, "write_npy", write)
    first = shard(world, 0).file("rows/trak.npy")
    kept = first.stat().st_mtime_ns
    assert main(["trak", "--out", str(world)]) == 0
    assert first.stat().st_mtime_ns == kept
    assert rows_of(world) == rows_of(whole)
    assert Index.open(world, "full").extra("trak") == Index.open(whole).extra("trak")


def test_a_second_run_computes_nothing(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.npy")}
    assert main(["trak", "--out", str(whole)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*.npy")}


def test_a_damaged_row_is_remade(whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "index")
    path = shard(out, 1).file("rows/dtrak.npy")
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert main(["dtrak", "--out", str(out)]) == 0
    assert rows_of(out, "dtrak") == rows_of(whole, "dtrak")


def test_other_settings_are_refused_in_one_line_or_remade(whole, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "index")
    assert main(["dtrak", "--out", str(out), "--dim", "32"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "dim: begun with 48, now 32" in line and "--rebuild" in line and len(line) < 300
    assert main(["dtrak", "--out", str(out), "--dim", "32", "--rebuild"]) == 0
    index = Index.open(out, "full")
    assert index.rows("dtrak").shape == (8, 2, 32) and index.rows("trak").shape == (8, 2, 48)


@pytest.mark.parametrize("verb", [("trak",), ("dtrak",), ("features", "--encoder", "pixel")])
@pytest.mark.parametrize("more", [("--seed", "5"), ("--timestep-stride", "100"), ("--shard-size",
                         "2"), ("--gradient-dim", "8")])  # fmt: skip
def test_a_step_beside_the_index_never_unmakes_it(world, capsys, verb, more):
    """--rebuild is about the step; a core that is wanted otherwise is another index."""
    before = tree(world)
    assert main([*verb, "--out", str(world), *more, "--rebuild"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "begun with other settings" in line and "remake the index first" in line
    assert tree(world) == before and Index.open(world, "full")


def test_rows_can_be_made_on_another_device_than_the_index(world):
    path = world / layout.MANIFEST
    note = json.loads(path.read_text())
    note["environment"]["device"] = "cuda"
    path.write_text(json.dumps(note))
    manifest = path.read_bytes()
    assert main(["dtrak", "--out", str(world), *DIM, "--device", "cpu"]) == 0
    assert path.read_bytes() == manifest
    assert Index.open(world, "full").rows("dtrak").shape == (8, 2, 48)


def test_a_damaged_index_takes_no_rows(world, capsys):
    path = shard(world, 1).file(layout.DONE)
    path.write_text(path.read_text().replace("latents", "latent5", 1))
    assert main(["dtrak", "--out", str(world), *DIM]) == 2
    assert "index --out" in capsys.readouterr().err.strip().splitlines()[-1]
    assert path.exists() and not (world / layout.EXTRAS).exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--dim", "0"), "at least 1"),
        (("--dim", "3"), "one for each layer"),
        (("--row-timesteps", "50,1000"), "from 0 to 999"),
        (("--models", "nowhere"), "no model at nowhere"),
    ],
)
def test_bad_settings_are_refused(world, capsys, more, says):
    assert main(["trak", "--out", str(world), *more]) == 2
    assert says in capsys.readouterr().err
    assert not (world / layout.EXTRAS).exists()


def test_a_model_with_another_autoencoder_is_refused(world, tmp_path, capsys):
    tiny_pipeline("v_prediction", seed=5).save_pretrained(tmp_path / "other")
    assert main(["trak", "--out", str(world), "--models", str(tmp_path / "other")]) == 2
    assert "another VAE" in capsys.readouterr().err
    assert not (world / layout.ENCODERS).exists()


def test_a_unet_of_another_shape_is_refused_before_anything_is_noted(
    world, tiny_model, tmp_path, capsys
):
    other = other_unet(tiny_model, tmp_path / "other", 1)
    path = other / "unet" / "config.json"
    wider = json.loads(path.read_text())
    wider["block_out_channels"] = [2 * n for n in wider["block_out_channels"]]
    path.write_text(json.dumps(wider))
    before = tree(world)
    assert main(["trak", "--out", str(world), *DIM, "--models", str(other)]) == 2
    assert "of another shape" in capsys.readouterr().err.strip().splitlines()[-1]
    path.write_text("{")
    assert main(["trak", "--out", str(world), *DIM, "--models", str(other)]) == 2
    assert "cannot open the UNet" in capsys.readouterr().err.strip().splitlines()[-1]
    assert tree(world) == before


def test_models_changed_by_a_killed_run_leave_no_rows_of_others(
    world, tiny_model, tmp_path, monkeypatch, capsys
):
    others = [other_unet(tiny_model, tmp_path / name, seed) for name, seed in (("a", 1), ("b", 2))]
    verb = ["trak", "--out", str(world), *DIM]
    assert main([*verb, "--models", str(others[0])]) == 0
    old = rows_of(world, "trak-1")

    def killed(*_):
        raise KeyboardInterrupt

    again = [*verb, "--rebuild", "--models", str(others[1])]
    with monkeypatch.context() as patch:
        patch.setattr(extras, "install_encoder", killed)
        assert main(again) == 130
    assert not Index.open(world, "full").has_rows("trak")
    assert main(verb) == 2  # the model they are begun with is not there
    assert "encoders/trak-1 is not the model" in capsys.readouterr().err
    assert main(again) == 0
    assert Index.open(world, "full").has_rows("trak") and rows_of(world, "trak-1") != old
    monkeypatch.setattr(Build, "extra", killed)
    before = tree(world)
    assert main([*verb, "--rebuild", "--models", str(others[0])]) == 130
    assert tree(world) == before


def other_unet(model, folder, seed):
    """The pipeline with another UNet."""
    shutil.copytree(model, folder)
    tiny_pipeline("v_prediction", seed=seed).unet.save_pretrained(folder / "unet")
    return folder


def test_an_unfinished_index_takes_no_rows(world, capsys):
    note = json.loads((world / layout.MANIFEST).read_text())
    (world / layout.MANIFEST).write_text(json.dumps(note | {"complete": False}))
    assert main(["trak", "--out", str(world)]) == 2
    assert "not finished" in capsys.readouterr().err


def test_other_timesteps_and_weights_on_request(world):
    more = ("--row-timesteps", "100,900", "--weight-set", "cross-attn", "--dim", "64")
    assert main(["trak", "--out", str(world), *more]) == 0
    index = Index.open(world)
    settings = index.extra("trak")
    assert settings["timesteps"] == [100, 900] and settings["weights"] == "cross-attn"
    assert index.rows("trak").shape[2] == sum(block["dim"] for block in settings["blocks"])
    assert torch.isfinite(torch.from_numpy(index.rows("trak").astype(np.float32))).all()
