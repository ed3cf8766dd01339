"""TRAK, JourneyTRAK, D-TRAK and DataInf on a tiny index against dense float64 linear algebra."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from attribution.denoiser import Denoiser
from attribution.ensemble import with_unet
from attribution.index import Index
from attribution.methods.registry import METHODS, Context, why_not
from attribution.regions import query_weights
from attribution.types import Attribution, Progress, Query, Region, UserError
from precompute import extras
from precompute.__main__ import main
from tests.attribution.methods import dense
from tests.attribution.test_unlearning import assert_same, snapshot
from tests.precompute.worlds import image_folder, make_index
from tests.tiny import tiny_images, tiny_unet

NAMES = ("trak", "journeytrak", "dtrak", "datainf")
# As wide as the layers are: the projection turns gradients and loses nothing.
WIDE = ("--dim", "4096")
DRAWS = 2
DAMPING = {"trak": 0.1, "journeytrak": 0.1, "dtrak": 1.0, "datainf": 0.1}


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradient")
    data = image_folder(folder / "data", 8, captions=2)
    return make_index(folder / "index", tiny_model, data, "--timestep-stride", "500")


@pytest.fixture(scope="module")
def context(made, tmp_path_factory):
    """8 records, the last two held out, with full-width rows."""
    out = shutil.copytree(made, tmp_path_factory.mktemp("rows") / "index")
    for verb in ("trak", "dtrak"):
        assert main([verb, "--out", str(out), *WIDE]) == 0
    return opened(out)


@pytest.fixture(scope="module")
def query():
    return Query("ab by 2", tiny_images(3)[2], seed=1)


@pytest.fixture(scope="module")
def rows(context):
    """Dense gradients of the training rows by objective."""
    timesteps = context.index.extra("trak")["timesteps"]
    return {
        objective: dense.row_gradients(
            context.denoiser.with_objective(objective), context.index, timesteps
        )
        for objective in ("loss", "eps2")
    }


def opened(out):
    index = Index.open(out, "full")
    return Context(Denoiser.load(index.model_path, device="cpu"), index)


def answer(context, name, query, ids=None, **options):
    """The Attribution, of DRAWS noise draws."""
    run = METHODS[name].build(context).run(query, ids, **{"draws": DRAWS, **options})
    *progress, found = run
    assert all(isinstance(item, Progress) for item in progress)
    assert isinstance(found, Attribution)
    return found


def expected(context, rows, name, query, damping=None, weights=None, denoiser=None):
    """Dense scores of a method, [training records, flips]."""
    damping = DAMPING[name] if damping is None else damping
    settings = context.index.extra("dtrak" if name == "dtrak" else "trak")
    grid = settings["timesteps"]
    steps, draws = ([400], DRAWS * len(grid)) if name == "journeytrak" else (grid, DRAWS)
    model = (denoiser or context.denoiser).with_objective(settings["objective"])
    vector = dense.query_layers(model, query, steps, draws, weights)
    if name == "datainf":
        return dense.datainf_scores(rows[settings["objective"]], vector, damping)
    width = sum(block["dim"] for block in settings["blocks"])
    return dense.ridge_scores(rows[settings["objective"]], vector, damping, width)


def assert_is(found, scores, train, tolerance=2e-3):
    """The answer has these scores [N, flips], up to the rounding of half precision."""
    best = dict(zip(train.tolist(), scores.max(1), strict=True))
    gaps = [abs(best[int(row)] - s) for row, s in zip(found.rows, found.scores, strict=True)]
    assert max(gaps) < tolerance * np.abs(scores).max()
    clear = np.abs(scores[:, 0] - scores[:, 1]) > 2 * tolerance * np.abs(scores).max()
    flips = dict(zip(found.rows.tolist(), found.flip.tolist(), strict=True))
    assert clear.any()
    for row, both in zip(train[clear], scores[clear], strict=True):
        assert flips[int(row)] == int(both.argmax())


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_the_dense_formula(context, query, rows, name):
    scores = expected(context, rows, name, query)
    found = answer(context, name, query)
    assert_is(found, scores, context.index.train_rows)
    assert found.kind == "gradient" and found.params["damping"] == DAMPING[name]
    assert {"prepare", "gradient", "compare"} == set(found.seconds)


@pytest.mark.parametrize("name", ["trak", "datainf"])
def test_damping_is_relative_and_chosen(context, query, rows, name):
    scores = expected(context, rows, name, query, damping=5.0)
    assert_is(answer(context, name, query, damping=5.0), scores, context.index.train_rows)


def test_methods_differ_only_where_they_should(context, query):
    found = {name: answer(context, name, query) for name in NAMES}
    grid = context.index.extra("trak")["timesteps"]
    for name in ("trak", "dtrak", "datainf"):
        assert found[name].params["timesteps"] == grid
    assert found["journeytrak"].params["timesteps"] == [400]
    assert {f.params["gradients"] for f in found.values()} == {DRAWS * len(grid)}
    objectives = {name: f.params["objective"] for name, f in found.items()}
    assert objectives == {**dict.fromkeys(NAMES, "loss"), "dtrak": "eps2"}
    orders = {f.ids for f in found.values()}
    assert len(orders) > 1


def test_inner_products_are_those_of_all_rows(context):
    index, train = context.index, context.index.train_rows
    vectors = index.rows("trak", train).astype(np.float32)
    query = np.random.default_rng(0).normal(size=vectors.shape[-1]).astype(np.float32)
    products = index.search("trak").products(query)
    assert products.shape == (len(train), 2)
    assert np.allclose(products, vectors @ query, rtol=1e-4, atol=1e-3)


def test_some_records_only_and_no_held_out_one(context, query):
    whole = answer(context, "trak", query)
    assert sorted(whole.rows) == context.index.train_rows.tolist()
    ids = context.index.ids(context.index.train_rows[[4, 1]])
    some = answer(context, "trak", query, ids)
    assert set(some.ids) == set(ids)
    scores = dict(zip(whole.ids, whole.scores, strict=True))
    assert [scores[name] for name in some.ids] == some.scores.tolist()
    with pytest.raises(UserError, match="held out"):
        answer(context, "trak", query, context.index.ids(context.index.held_out_rows[:1]))


@pytest.mark.parametrize("name", ["trak", "dtrak"])
def test_a_region_weighs_the_querys_gradient(context, query, rows, name):
    part = replace(query, regions=(Region((0, 0, 7, 16)),))
    weights = query_weights(context.denoiser, part)
    scores = expected(context, rows, name, query, weights=weights)
    found = answer(context, name, part)
    assert_is(found, scores, context.index.train_rows)
    assert found.params["region"] == "loss"
    assert not np.allclose(found.scores, answer(context, name, query).scores)


def test_sums_over_the_rows_are_kept_and_shared(context, query):
    fresh = Context(context.denoiser, context.index)
    for name, prepares in (("trak", True), ("journeytrak", False), ("datainf", True)):
        *progress, _ = METHODS[name].build(fresh).run(query, draws=1)
        stages = {item.stage for item in progress}
        assert stages == ({"prepare", "gradient"} if prepares else {"gradient"})


def test_a_closed_run_leaves_the_model_as_it_was(context, query):
    before = snapshot(context.denoiser)
    run = METHODS["trak"].build(context).run(query)
    for item in run:
        if item.stage == "gradient":
            break
    assert 0 < item.done <= item.total
    run.close()
    assert_same(context.denoiser, before)
    assert not any(p.requires_grad for p in context.denoiser.unet.parameters())


@pytest.mark.parametrize(
    "options",
    [{"damping": 0}, {"damping": "big"}, {"damping": float("nan")}, {"draws": 0}, {"seed": 1.5}],
)
def test_bad_options_are_refused(context, query, options):
    with pytest.raises(UserError, match=next(iter(options))):
        answer(context, "trak", query, **options)


def test_unknown_options_are_refused(context, query):
    with pytest.raises(UserError, match="no option 'strength'"):
        answer(context, "dtrak", query, strength=3)


@pytest.mark.parametrize("name", NAMES)
def test_an_index_without_rows_says_what_makes_them(made, query, name):
    context = opened(made)
    verb = "dtrak" if name == "dtrak" else "trak"
    assert f"python -m precompute {verb} --out {made}" in why_not(METHODS[name], context)
    with pytest.raises(UserError, match=f"precompute {verb}"):
        answer(context, name, query)


def other_model(tiny_model, folder):
    """A pipeline that differs from the tiny model in its UNet alone."""
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(77)
        pipe.unet = tiny_unet()
    pipe.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", ["trak", "journeytrak"])
def test_an_ensemble_averages_its_models(ensemble, query, name, rows):
    context, other = ensemble
    second = with_unet(context.denoiser, other / "unet")
    more = {"loss": dense.row_gradients(second, context.index, context.index.timesteps)}
    scores = (
        expected(context, rows, name, query) + expected(context, more, name, query, denoiser=second)
    ) / 2
    found = answer(context, name, query)
    assert found.params["models"] == 2
    assert_is(found, scores, context.index.train_rows)


def test_a_model_in_the_place_of_one_of_them_is_refused(ensemble, tiny_model, query, tmp_path):
    """Also where every file is the one that the index states."""
    world = shutil.copytree(ensemble[0].index.path, tmp_path / "index")
    extras.install_encoder(world, "trak-1", tiny_model / "unet")
    Index.open(world, "full")
    with pytest.raises(UserError, match="another model trak-1 than its rows were made with"):
        answer(opened(world), "trak", query)


@pytest.fixture(scope="module")
def ensemble(made, tiny_model, tmp_path_factory):
    """(an index with rows of two models, the second one's folder)."""
    folder = tmp_path_factory.mktemp("ensemble")
    out, other = shutil.copytree(made, folder / "index"), other_model(tiny_model, folder / "other")
    assert main(["trak", "--out", str(out), *WIDE, "--models", str(other)]) == 0
    return opened(out), other
