"""A model of the hub is the one of the revision that the index states, though the hub moves on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from attribution.encoders import ClassTokenEncoder, encoder_of
from attribution.engine import Engine
from attribution.features import ClipEncoder
from attribution.index import Index
from precompute.__main__ import main
from precompute.recipes.abc import features as abc_features
from tests.precompute.worlds import hub, image_folder, make_index, tiny_clip, tiny_vit, tree
from tests.tiny import tiny_images

CLIP, DINO = "someone/clip", "someone/dino"


@pytest.fixture
def publish(monkeypatch, tmp_path):
    return hub(monkeypatch, tmp_path / "hub")


@pytest.fixture
def data(tmp_path) -> Path:
    return image_folder(tmp_path / "data", 4, held_out=0)


def test_clip(tmp_path, tiny_model, data, publish):
    first = publish(CLIP, tiny_clip(tmp_path / "first"))
    out = make_index(tmp_path / "index", tiny_model, data, "--clip", CLIP)
    assert publish(CLIP, tiny_clip(tmp_path / "second", seed=1)) != first
    index, pictures = Index.open(out), tiny_images(2)
    assert (index.clip_path, index.clip_revision) == (CLIP, first)
    expected = ClipEncoder.load(tmp_path / "first").images(pictures)
    assert torch.equal(Engine(out, "cpu").clip.images(pictures), expected)
    assert torch.equal(abc_features.encoder(index, "clip", "cpu")(pictures), expected)
    before = tree(out)
    (out / "shards/00000/rows/clip.npy").unlink()
    assert main(["index", "--out", str(out)]) == 0
    assert tree(out) == before


def test_dino(tmp_path, tiny_model, data, publish):
    out = make_index(tmp_path / "index", tiny_model, data)
    first = publish(DINO, tiny_vit(tmp_path / "first"))
    verb = ["features", "--out", str(out), "--encoder", "dino"]
    assert main([*verb, "--model", DINO]) == 0
    publish(DINO, tiny_vit(tmp_path / "second", seed=1))
    before, noted = tree(out), (out / "extras.json").read_bytes()
    shutil.rmtree(out / "shards/00000/rows", ignore_errors=True)
    assert main(["index", "--out", str(out)]) == 0 and main(verb) == 0
    assert tree(out) == before and (out / "extras.json").read_bytes() == noted
    index = Index.open(out)
    assert index.extras.encoders["dino"]["revision"] == first
    pictures = tiny_images(2)
    expected = ClassTokenEncoder.load(tmp_path / "first").images(pictures)
    assert torch.equal(encoder_of(index, "dino", "cpu").images(pictures), expected)
