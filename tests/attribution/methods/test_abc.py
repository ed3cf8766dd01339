"""clip-abc: the rows of the index through a head, and a head of other features refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from attribution.denoiser import Denoiser
from attribution.features import ClipEncoder
from attribution.index import Index
from attribution.methods.registry import METHODS, Context, why_not
from attribution.types import Query, UserError
from tests.attribution.tuned import install_head
from tests.tiny import tiny_images


@pytest.fixture
def opened(tiny_index, denoiser: Denoiser, tmp_path):
    """spread → the tiny index with such a head, as a Context."""

    def build(**head):
        out = shutil.copytree(tiny_index, tmp_path / "index")
        installed = install_head(out, "clip", **head)
        index = Index.open(out, "full")
        return Context(denoiser, index, ClipEncoder.load(index.clip_path)), installed

    return build


def answer(context, name):
    *_, found = METHODS[name].build(context).run(Query("ab", tiny_images(3)[2]))
    return found


def test_the_identity_gives_the_ranking_of_plain_features(opened):
    context, _ = opened(spread=0.0)
    tuned, plain = answer(context, "clip-abc"), answer(context, "clip")
    assert tuned.ids == plain.ids and np.array_equal(tuned.flip, plain.flip)
    # rows are half precision, and so not quite of length 1: the head's are
    np.testing.assert_allclose(tuned.scores, plain.scores, atol=1e-3)
    assert tuned.method == "clip-abc" and tuned.kind == "similarity"


def test_scores_are_cosines_after_the_head(opened):
    context, head = opened()
    found = answer(context, "clip-abc")
    rows = head.apply(torch.from_numpy(context.index.rows("clip", found.rows).astype(np.float32)))
    query = head.apply(context.clip.images([tiny_images(3)[2]]))[0]
    np.testing.assert_allclose(found.scores, (rows @ query).amax(1), atol=1e-6)
    assert found.ids != answer(context, "clip").ids


def test_without_a_head_the_command_is_named(tiny_index, denoiser):
    context = Context(denoiser, Index.open(tiny_index))
    assert f"precompute abc --out {tiny_index}" in why_not(METHODS["clip-abc"], context)
    assert "precompute features --out" in why_not(METHODS["dino-abc"], context)


def test_a_head_of_another_encoder_is_refused(opened):
    with pytest.raises(UserError, match="another clip encoder"):
        opened(encoder_sha256="0" * 64)
