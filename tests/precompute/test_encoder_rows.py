"""Rows of further encoders beside an index: equal to the features, refused when another's."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attribution.costs import cost
from attribution.encoders import ClassTokenEncoder, encoder_of
from attribution.features import upright_and_mirrored
from attribution.index import Index
from attribution.methods.registry import METHODS, Context, why_not
from attribution.types import Query, UserError
from precompute import models
from precompute.__main__ import main
from tests.precompute.worlds import image_folder, make_index, tiny_clip, tiny_dinov2, tiny_vit
from tests.tiny import tiny_images

COUNT = 7


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("encoder-rows")
    return make_index(folder / "index", tiny_model, image_folder(folder / "data", COUNT))


@pytest.fixture
def world(made, tmp_path):
    return shutil.copytree(made, tmp_path / "index")


def rows_of(world, *more: str) -> int:
    return main(["features", "--out", str(world), *more])


def answer(context, name, picture):
    *_, found = METHODS[name].build(context).run(Query("a", picture))
    return found


@pytest.mark.parametrize(("name", "tiny"), [("dino", tiny_vit), ("dinov2", tiny_dinov2)])
def test_rows_are_the_features_and_serve_the_method(world, tmp_path, denoiser, name, tiny):
    before = Index.open(world)
    why = why_not(METHODS[name], Context(denoiser, before))
    assert why.endswith(f"run `python -m precompute features --out {world} --encoder {name}`")
    folder = tiny(tmp_path / "net")
    assert rows_of(world, "--encoder", name, "--model", str(folder)) == 0
    index = Index.open(world, "full")
    assert index.index_hash == before.index_hash
    encoder = ClassTokenEncoder.load(folder)
    pictures = [index.image(row) for row in range(COUNT)]
    expected = upright_and_mirrored(encoder.images, pictures).numpy()
    assert index.rows(name).dtype == np.float16
    assert np.allclose(index.rows(name), expected, atol=1e-3)
    context = Context(denoiser, index)
    assert why_not(METHODS[name], context) == ""
    found = answer(context, name, pictures[3])
    assert found.rows[0] == 3 and found.scores[0] == pytest.approx(1.0, abs=1e-2)
    assert found.flip[0] == 0 and len(found.rows) == len(index.train_rows)
    assert encoder_of(index, name, "cpu") is encoder_of(Index.open(world), name, "cpu")


def test_without_an_encoder_the_ways_to_one_are_named(world, capsys):
    assert rows_of(world, "--encoder", "dino") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "no dino encoder" in line and "--model" in line and "precompute train dino" in line
    with pytest.raises(UserError, match="has no dino encoder: run"):
        encoder_of(Index.open(world), "dino", "cpu")


def test_a_wrong_model_leaves_the_index_as_it_was(world, tmp_path, capsys):
    assert rows_of(world, "--encoder", "dino", "--model", str(tmp_path / "no where")) == 2
    assert "no model at" in capsys.readouterr().err
    clip = tiny_clip(tmp_path / "clip")
    assert rows_of(world, "--encoder", "dino", "--model", str(clip)) == 2
    assert "it is of type 'clip'" in capsys.readouterr().err
    assert not (world / "encoders").exists() and not (world / "extras.json").exists()
    assert not Index.open(world, "full").has_rows("dino")


def test_pickled_weights_are_taken_from_the_hub_only(tmp_path):
    folder = tiny_vit(tmp_path / "net")
    pictures = tiny_images(2)
    expected = ClassTokenEncoder.load(folder).images(pictures)
    torch.save(load_file(folder / "model.safetensors"), folder / models.PICKLED)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights in"):
        models.entry("dino", folder, "encoders/dino")
    assert models.PICKLED in models.entry("dino", folder, None)["files"]
    assert torch.equal(ClassTokenEncoder.load(folder).images(pictures), expected)


def test_an_encoder_trained_anew_needs_rebuild(world, capsys):
    own = world / "encoders" / "dino"
    tiny_vit(own)  # where the recipe writes it
    assert rows_of(world, "--encoder", "dino") == 0
    first = Index.open(world).rows("dino")
    first_encoder = encoder_of(Index.open(world), "dino", "cpu")
    tiny_vit(own, seed=1)
    assert rows_of(world, "--encoder", "dino") == 2
    assert "sha256: begun with" in capsys.readouterr().err
    assert rows_of(world, "--encoder", "dino", "--rebuild") == 0
    index = Index.open(world, "full")
    assert not np.allclose(index.rows("dino"), first, atol=1e-2)
    assert encoder_of(index, "dino", "cpu") is not first_encoder


def test_pixels_answer_alike_with_and_without_rows(world, denoiser, capsys):
    index = Index.open(world)
    assert not index.has_rows("pixel")
    picture = tiny_images(4)[3]
    bare = answer(Context(denoiser, index), "pixel", picture)
    assert rows_of(world, "--encoder", "pixel", "--model", "x") == 2
    assert "leave out --model" in capsys.readouterr().err
    assert rows_of(world, "--encoder", "pixel") == 0
    index = Index.open(world, "full")
    assert index.rows("pixel").shape == (COUNT, 2, 768)
    assert cost(index, "similarity", METHODS["pixel"].needs).parts == {"pixel rows": 2 * 2 * 768}
    kept = answer(Context(denoiser, index), "pixel", picture)
    assert kept.ids == bare.ids and np.array_equal(kept.scores, bare.scores)
    assert np.array_equal(kept.flip, bare.flip) and len(bare.ids) == len(index.train_rows)
