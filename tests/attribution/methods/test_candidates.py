"""Which records are scored, and in which order: other methods' answers in turn, or Eq. 16."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attribution import defaults
from attribution.methods.candidates import candidate_rows, choose, default_sources, order
from attribution.methods.registry import METHODS, Context
from attribution.types import Progress, Query, UserError
from attribution.weights import parameter_names
from tests.attribution.worlds import finished
from tests.tiny import tiny_images

QUERY = Query("ak by 0", tiny_images(3)[1], seed=1)


@pytest.fixture(scope="module")
def context(engine):
    return Context(engine.denoiser, engine.index, engine.clip)


@pytest.fixture(scope="module")
def delta(context):
    generator = torch.Generator().manual_seed(0)
    names = parameter_names(context.denoiser.unet, "kv")
    shapes = {name: context.denoiser.unet.get_parameter(name).shape for name in names}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def result(job):
    """What a generator of Progress returns."""
    while True:
        try:
            assert isinstance(next(job), Progress)
        except StopIteration as stop:
            return stop.value


def without(monkeypatch, index, *rows):
    has = index.has_rows
    monkeypatch.setattr(index, "has_rows", lambda name: name not in rows and has(name))


def test_the_best_sources_that_the_index_has(context, monkeypatch):
    assert defaults.SHORTLIST_SOURCES == ("dtrak", "clip-text", "clip")
    assert not context.index.has_rows("dtrak")
    assert default_sources(context.index) == ("clip-text", "clip")
    assert candidate_rows(context.index) == ["clip-text", "clip"]
    without(monkeypatch, context.index, "clip-text", "clip")
    assert default_sources(context.index) == ("gradient",)
    assert candidate_rows(context.index) == ["gradients"]
    assert default_sources(context.index, "eps2") == ()  # first-order scores are of the loss


def test_a_methods_own_answer_is_an_order(context, delta):
    for name in ("clip", "clip-text", "pixel"):
        answer = finished(METHODS[name].build(context).run(QUERY))
        assert result(order(context, name, QUERY, delta)).tolist() == answer.rows.tolist()


def test_first_order_scores_are_an_order(context, delta):
    """The inner products of the index's rows and the projected Δθ, written out."""
    index = context.index
    rows = index.rows("gradients", index.train_rows).astype(np.float32)
    products = (rows @ context.gradient_query.vector(delta)).max(axis=1)
    expected = index.train_rows[np.argsort(-products, kind="stable")]
    assert result(order(context, "gradient", QUERY, delta)).tolist() == expected.tolist()


def test_a_source_without_its_rows_says_what_makes_them(context, delta):
    with pytest.raises(UserError, match="precompute dtrak"):
        result(order(context, "dtrak", QUERY, delta))


def test_sources_take_turns(context, delta):
    first, second = (result(order(context, n, QUERY, delta)) for n in ("clip-text", "clip"))
    found = result(choose(context, QUERY, delta, None, 3))
    turns = list(dict.fromkeys(np.stack([first, second], axis=1).ravel().tolist()))
    assert found.rows.tolist() == turns[:3] and found.shortlist == 3
    assert set(found.sources) == {"clip-text", "clip"}
    everyone = result(choose(context, QUERY, delta, None, None))
    assert everyone.rows.tolist() == turns and everyone.shortlist is None


def test_named_records_are_taken_as_they_are(context, delta):
    ids = context.index.ids(context.index.train_rows[[3, 1]])
    found = result(choose(context, QUERY, delta, ids, 1))
    assert context.index.ids(found.rows) == list(ids) and not found.sources


def test_without_any_source_everything_is_scored(context, delta, monkeypatch):
    without(monkeypatch, context.index, "clip-text", "clip", "gradients")
    found = result(choose(context, QUERY, delta, None, 2))
    assert sorted(found.rows) == context.index.train_rows.tolist() and found.shortlist is None


@pytest.mark.parametrize("limit", [0, -1, 2.5, True])
def test_a_limit_that_is_no_number_of_records_is_refused(context, delta, limit):
    with pytest.raises(UserError, match="whole number"):
        result(choose(context, QUERY, delta, None, limit))
