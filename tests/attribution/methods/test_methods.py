"""Every method on a real tiny index: complete registry, invariants of answers, options refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attribution import defaults
from attribution.denoiser import Denoiser
from attribution.features import ClipEncoder
from attribution.index import Index
from attribution.methods.registry import METHODS, Context, why_not
from attribution.methods.unlearning import changed, configured
from attribution.reduce import reduce_cells
from attribution.types import Attribution, Progress, Query, Region, UserError
from attribution.unlearning import Unlearned, applied
from precompute.__main__ import main
from tests.attribution.test_unlearning import assert_same, snapshot
from tests.attribution.tuned import install_head
from tests.precompute.worlds import image_folder, make_index, tiny_clip, tiny_dinov2, tiny_vit
from tests.tiny import tiny_images

CONTRACT = (
    *("abu", "abu-ekfac", "abu-sgd", "abu-full", "abu-attn", "abu-crossattn", "abu-eps2"),
    *("abu-kfac", "abu-ekfac-full"),
    *(
        "abu-shift",
        "trak",
        "journeytrak",
        "dtrak",
        "datainf",
        "pixel",
        "clip-text",
        "clip",
        "dino",
        "dinov2",
    ),
    *("clip-abc", "dino-abc", "random"),
)
UNLEARNING = tuple(name for name, method in METHODS.items() if method.kind == "unlearning")
# random weights: the default increase cannot be reached
SMALL = {"relative_increase": 0.02, "stride": 250, "draws": 2, "steps": 1}


@pytest.fixture(scope="module")
def context(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods")
    data = image_folder(folder / "data", 10, captions=2)
    out = make_index(
        folder / "index",
        tiny_model,
        data,
        "--clip",
        str(tiny_clip(folder / "clip")),
        "--weights",
        "full",
    )
    for name, tiny in (("dino", tiny_vit), ("dinov2", tiny_dinov2)):
        encoder = ("--encoder", name, "--model", str(tiny(folder / name)))
        assert main(["features", "--out", str(out), *encoder]) == 0
    for name in ("clip", "dino"):
        install_head(out, name)
    factored = [("--curvature", kind, "--weights", "full") for kind in ("ekfac", "kfac")]
    for options in (("--objective", "eps2"), *factored):
        assert main(["variants", "--out", str(out), *options]) == 0
    for verb in ("trak", "dtrak"):
        assert main([verb, "--out", str(out), "--dim", "64"]) == 0
    index = Index.open(out)
    denoiser = Denoiser.load(index.model_path, device="cpu")
    return Context(denoiser, index, ClipEncoder.load(index.clip_path))


@pytest.fixture(scope="module")
def query():
    return Query("ab by 2", tiny_images(3)[2], seed=1)


def answer(context, name, query, ids=None, k=3, **options):
    items = list(METHODS[name].build(context).run(query, ids, k, **options))
    assert all(isinstance(item, Progress) for item in items[:-1])
    assert isinstance(items[-1], Attribution)
    return items[-1]


def options_for(name):
    return SMALL if name in UNLEARNING else {}


def test_the_registry_has_every_name_of_the_contract(context):
    assert set(METHODS) == set(CONTRACT)
    assert {m.kind for m in METHODS.values()} == {"unlearning", "gradient", "similarity", "control"}
    for name, method in METHODS.items():
        assert method.name == name and method.title and method.explanation and method.source
        why = why_not(method, context)
        assert why == "" or "run `python -m precompute " in why


@pytest.mark.parametrize("name", METHODS)
def test_answers_are_sorted_complete_and_repeatable(context, query, name):
    before = snapshot(context.denoiser)
    found = answer(context, name, query, **options_for(name))
    assert_same(context.denoiser, before)
    train = context.index.train_rows
    assert found.method == name and found.kind == METHODS[name].kind
    assert sorted(found.rows) == train.tolist() and found.candidates == len(train)
    assert found.ids == tuple(context.index.ids(found.rows))
    assert found.scores.dtype == np.float32 and (np.diff(found.scores) <= 0).all()
    assert len(found.standard_error) == len(found.flip) == len(found.ids)
    again = answer(context, name, query, **options_for(name))
    assert again.ids == found.ids and np.array_equal(again.scores, found.scores)


@pytest.mark.parametrize("name", METHODS)
def test_a_region_counts_and_one_of_everything_changes_nothing(context, query, name):
    ids = context.index.ids(context.index.train_rows[:4])
    regions = ((), (Region((0, 0, 16, 5)), Region((0, 5, 16, 16))), (Region((2, 1, 9, 6.5)),))
    whole, everything, part = (
        answer(context, name, replace(query, regions=chosen), ids, **options_for(name))
        for chosen in regions
    )
    assert everything.ids == whole.ids and np.array_equal(everything.scores, whole.scores)
    assert "region" not in whole.params
    by_id = dict(zip(whole.ids, whole.scores, strict=True))
    same = all(by_id[i] == score for i, score in zip(part.ids, part.scores, strict=True))
    how = {"similarity": "crop", "control": "ignored"}.get(METHODS[name].kind, "loss")
    assert part.params["region"] == ("ignored" if name == "clip-text" else how)
    assert same == (part.params["region"] == "ignored")


@pytest.mark.parametrize("name", [name for name in METHODS if name != "random"])
def test_a_part_in_words_of_its_own_is_answered_as_if_they_were_the_prompt(context, query, name):
    """What looks at pictures only looks at the same crop."""
    ids = context.index.ids(context.index.train_rows[:4])
    part = replace(query, regions=(Region((2, 1, 9, 6.5)),))
    asked = (part, replace(part, called="bo by 1"), replace(part, prompt="bo by 1"))
    plain, called, prompted = (answer(context, name, q, ids, **options_for(name)) for q in asked)
    assert called.ids == prompted.ids and np.array_equal(called.scores, prompted.scores)
    same = called.ids == plain.ids and np.array_equal(called.scores, plain.scores)
    assert same == (called.params["region"] == "crop")
    assert plain.params["region"] == ("ignored" if name == "clip-text" else called.params["region"])


@pytest.mark.parametrize("name", UNLEARNING)
def test_unlearning_answers_carry_cells_maps_and_parameters(context, query, name):
    found = answer(context, name, query, **SMALL)
    tau, error, flip = reduce_cells(found.cells)
    assert np.array_equal(tau, found.scores) and np.array_equal(flip, found.flip)
    assert np.array_equal(error, found.standard_error, equal_nan=True)
    assert found.timesteps == context.index.timesteps
    assert set(found.heatmaps) == set(found.ids[:3])
    assert found.heatmaps[found.ids[0]].mean() == pytest.approx(found.scores[0], abs=5e-6)
    sides = 2 if found.params["tracks"] == "shift" else 1  # forwards a cell
    assert found.evaluated_cells == sides * np.isfinite(found.cells).sum()
    assert found.params["reached"] == pytest.approx(0.02, rel=0.03)
    assert found.params["noise_floor_share"] < 0.05 and not found.params["fresh_base"]
    assert found.candidate_source == "exhaustive"
    assert {"unlearn", "shortlist", "noise floor", "score"} <= set(found.seconds)


def test_the_papers_preset_is_one_step(context):
    own = METHODS["abu"].build(context).config
    assert configured(own, {}).steps == defaults.NEWTON_STEPS > 1
    assert configured(own, {"preset": "paper"}).steps == 1
    assert configured(own, {"preset": "paper", "steps": 3}).steps == 3
    assert changed(own, {"preset": "paper"}).steps == 1


def test_a_shortlist_scores_a_part_exactly_as_the_whole(context, query):
    whole = answer(context, "abu", query, exhaustive=True, **SMALL)
    short = answer(context, "abu", query, shortlist=4, **SMALL)
    assert short.candidate_source == "shortlist" and len(short.ids) == 4
    assert set(short.params["sources"]) == {"dtrak", "clip-text", "clip"}
    scores = dict(zip(whole.ids, whole.scores, strict=True))
    spread = whole.scores.std()
    for name, score in zip(short.ids, short.scores, strict=True):
        assert abs(score - scores[name]) < 1e-3 * spread


def test_the_shortlist_is_never_shorter_than_what_is_shown(context, query):
    assert len(answer(context, "abu", query, k=5, shortlist=1, **SMALL).ids) == 5


@pytest.mark.parametrize("name", ["abu", "clip", "random"])
def test_chosen_records_only(context, query, name):
    ids = context.index.ids(context.index.train_rows[[4, 1]])
    found = answer(context, name, query, ids, **options_for(name))
    assert set(found.ids) == set(ids)


def test_held_out_records_are_refused(context, query):
    ids = context.index.ids(context.index.held_out_rows[:1])
    with pytest.raises(UserError, match="held out"):
        answer(context, "abu", query, ids, **SMALL)


def test_fresh_base_losses_change_nothing_on_the_same_machine(context, query):
    cached = answer(context, "abu", query, **SMALL)
    fresh = answer(context, "abu", query, fresh_base=True, **SMALL)
    scores = dict(zip(fresh.ids, fresh.scores, strict=True))
    gap = [abs(scores[n] - s) for n, s in zip(cached.ids, cached.scores, strict=True)]
    assert max(gap) < 1e-2 * cached.scores.std() and fresh.params["fresh_base"]


def test_a_foreign_cache_is_noticed_and_replaced(context, query, monkeypatch):
    true = answer(context, "abu", query, **SMALL)
    index = context.index
    noise = np.random.default_rng(0).normal(0, 0.05, index.base_loss.shape)
    monkeypatch.setitem(index.__dict__, "base_loss", index.base_loss + noise.astype(np.float32))
    found = answer(Context(context.denoiser, index, context.clip), "abu", query, **SMALL)
    assert found.params["fresh_base"] and found.ids == true.ids


def test_the_last_delta_is_kept(context, query):
    attributor = METHODS["abu"].build(context)
    first = list(attributor.unlearn(query, **SMALL))
    again = list(attributor.unlearn(query, **SMALL))
    assert len(first) > 1 and again == [first[-1]] and isinstance(again[0], Unlearned)
    other = list(attributor.unlearn(replace(query, prompt="cd"), **SMALL))
    assert len(other) > 1
    with applied(context.denoiser, first[-1].delta):
        pass


def test_options_are_checked(context, query):
    for name in ("abu", "pixel", "random"):
        with pytest.raises(UserError, match="no option 'strength'"):
            answer(context, name, query, strength=3)
    with pytest.raises(UserError, match="shortlist"):
        answer(context, "abu", query, shortlist=2.5, **SMALL)
    with pytest.raises(UserError, match="relative increase"):
        answer(context, "abu", query, relative_increase=-1.0)


def test_what_an_index_lacks_is_said(context, monkeypatch):
    manifest = {**context.index.manifest, "curvature": {"weights": "kv"}}
    monkeypatch.setattr(context.index, "manifest", manifest)
    assert why_not(METHODS["abu"], context) == ""
    assert "variants --out" in why_not(METHODS["abu-full"], context)
    monkeypatch.setattr(context.index, "has_rows", lambda name: False)
    assert "no clip rows" in why_not(METHODS["clip"], context)


def test_the_nearest_picture_is_itself(context):
    row = int(context.index.train_rows[3])
    query = Query(context.index.captions([row])[0][0], context.index.image(row))
    for name in ("pixel", "clip"):
        assert answer(context, name, query).scores[0] == pytest.approx(1.0, abs=2e-3)
    # the mean over captions lies a little off each of them
    assert answer(context, "clip-text", query).scores[0] > 0.9
    assert answer(context, "pixel", query).rows[0] == row
