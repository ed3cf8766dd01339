"""A raced answer on a real tiny index: whole at the top, labelled, and a control beside it."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from attribution import defaults
from attribution.denoiser import Denoiser
from attribution.index import Index
from attribution.methods import probing
from attribution.methods.registry import METHODS, Context
from attribution.methods.unlearning import measured_recall
from attribution.precision import BFLOAT16, FLOAT32, Probe
from attribution.reduce import reduce_cells, timesteps_seen
from attribution.report import full_scores
from attribution.timeline import rerank
from attribution.types import Attribution, Progress, Query, UserError
from attribution.unlearning import UnlearnConfig
from tests.attribution.test_unlearning import assert_same, snapshot
from tests.precompute.worlds import image_folder, make_index
from tests.tiny import tiny_images

# random weights: the default increase cannot be reached
SMALL = {"relative_increase": 0.02, "stride": 500, "draws": 1}
RACE = {"racing": [(1, 6), (1, 3)]}


@pytest.fixture(scope="module")
def context(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("racing")
    data = image_folder(folder / "data", 12, captions=2)
    index = Index.open(make_index(folder / "index", tiny_model, data))
    return Context(Denoiser.load(index.model_path, device="cpu"), index)


@pytest.fixture(scope="module")
def abu(context):
    return METHODS["abu"].build(context)


@pytest.fixture(scope="module")
def query():
    return Query("ab by 2", tiny_images(3)[2], seed=1)


def run(abu, query, k=2, ids=None, **options):
    *steps, found = abu.run(query, ids, k, **SMALL, **options)
    assert all(isinstance(step, Progress) for step in steps) and isinstance(found, Attribution)
    return found


@pytest.fixture(scope="module")
def whole(abu, query):
    return run(abu, query, exhaustive=True)


@pytest.fixture(scope="module")
def raced(abu, query):
    return run(abu, query, shortlist=9, **RACE)


def test_the_top_of_a_race_is_exact_and_the_rest_below(whole, raced):
    spread = whole.scores.std()
    exact = dict(zip(whole.ids, whole.scores, strict=True))
    seen = timesteps_seen(raced.cells)
    finalists = raced.params["racing"]["finalists"]
    assert 2 <= finalists <= 3 and (np.diff(seen) <= 0).all()
    assert (seen == len(raced.timesteps)).sum() == finalists
    for name, score in zip(raced.ids[:finalists], raced.scores[:finalists], strict=True):
        assert abs(score - exact[name]) < 1e-3 * spread
    assert (np.diff(raced.scores) <= 0).all() and np.isfinite(raced.scores).all()
    assert raced.scores[finalists] < raced.scores[finalists - 1]
    assert len(raced.ids) == raced.candidates == 9


def test_a_raced_answer_says_so(raced, whole, context):
    assert raced.candidate_source == "shortlist, racing" and whole.candidate_source == "exhaustive"
    racing = raced.params["racing"]
    assert [wave["survivors"] for wave in racing["waves"]] == [6, 3]
    named = [t for wave in racing["waves"] for t in wave["timesteps"]]
    assert len(named) == 2 and set(named) < set(context.index.timesteps)
    assert whole.params["racing"] is None
    assert raced.evaluated_cells == np.isfinite(raced.cells).sum() < 0.8 * whole.evaluated_cells
    assert raced.params["precision"]["name"] == "float32"


def test_heat_maps_are_of_the_top_and_of_all_timesteps(raced):
    assert set(raced.heatmaps) == set(raced.ids[:2])
    for name, score in zip(raced.ids[:2], raced.scores[:2], strict=True):
        assert raced.heatmaps[name].mean() == pytest.approx(score, abs=5e-6)


def test_scores_files_and_the_slider_keep_the_order(raced, context):
    scores = full_scores(raced, context.index.n_records)
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
    assert order[:2].tolist() == raced.rows[:2].tolist()
    assert np.isnan(scores).sum() == context.index.n_records - 9
    assert rerank(raced, None, 250.0).ids == raced.ids
    finalists = raced.params["racing"]["finalists"]
    for centre in context.index.timesteps:
        view = rerank(raced, centre, 250.0)
        assert set(view.ids[:finalists]) == set(raced.ids[:finalists])


@pytest.mark.parametrize(
    "options",
    [{"exhaustive": True, **RACE}, {"racing": False}, {"columns": [0, 1], **RACE}, {}],
)
def test_every_cell_is_evaluated_where_it_is_asked_for(abu, query, options):
    """`exhaustive` wins over a race, and the default race of a small set saves nothing."""
    found = run(abu, query, **options)
    assert len(set(timesteps_seen(found.cells))) == 1 and found.params["racing"] is None
    assert "racing" not in found.candidate_source and found.candidates == 10


def test_chosen_records_are_scored_whole_unless_a_race_is_named(abu, query, context):
    ids = context.index.ids(context.index.train_rows[:8])
    assert set(timesteps_seen(run(abu, query, ids=ids, racing=None).cells)) == {4}
    found = run(abu, query, ids=ids, **RACE)
    assert found.candidate_source == "racing" and set(found.ids) == set(ids)


def test_a_control_is_scored_exactly_and_stays_outside(abu, query, raced, whole, context):
    best, last = whole.ids[0], whole.ids[-1]
    outside = next(name for name in whole.ids if name not in raced.ids)
    found = run(abu, query, shortlist=9, also=[best, last, outside], **RACE)
    assert set(found.control.ids) == {best, last, outside}
    assert len(found.control.ids) == 3 and outside not in found.ids
    # the answer is the same, although `best` and `last` are candidates, too
    assert found.ids == raced.ids
    assert np.allclose(found.scores, raced.scores, atol=1e-6)
    assert np.array_equal(np.isfinite(found.cells), np.isfinite(raced.cells))
    assert found.params["racing"]["finalists"] == raced.params["racing"]["finalists"]
    exact = dict(zip(whole.ids, whole.scores, strict=True))
    for name, score in zip(found.control.ids, found.control.scores, strict=True):
        assert abs(score - exact[name]) < 1e-3 * whole.scores.std()
    tau, _, flip = reduce_cells(found.control.cells)
    assert np.array_equal(tau, found.control.scores) and np.array_equal(flip, found.control.flip)
    assert np.isfinite(found.control.scores).all() and outside not in found.heatmaps
    assert raced.control is None
    with pytest.raises(UserError, match="held out"):
        run(abu, query, also=context.index.ids(context.index.held_out_rows[:1]))


def test_a_foreign_cache_is_noticed_in_the_first_heat(abu, query, context, monkeypatch):
    named = [([375], 6), ([625], 3)]
    true = run(abu, query, racing=named)
    index = context.index
    noise = np.random.default_rng(0).normal(0, 0.05, index.base_loss.shape)
    monkeypatch.setitem(index.__dict__, "base_loss", index.base_loss + noise.astype(np.float32))
    foreign = METHODS["abu"].build(Context(context.denoiser, index))
    before = snapshot(context.denoiser)
    found = run(foreign, query, racing=named)
    assert_same(context.denoiser, before)
    assert found.params["fresh_base"] and not true.params["fresh_base"]
    assert found.ids[:2] == true.ids[:2] and found.evaluated_cells == 2 * true.evaluated_cells


def test_bad_schedules_are_refused_before_anything_runs(abu, query):
    for racing in (3, "fast", [(950,)], [(1, -2)]):
        with pytest.raises(UserError, match="racing is a list"):
            run(abu, query, racing=racing)
        with pytest.raises(UserError, match="racing is a list"):
            METHODS["abu"].check_options({"racing": racing})


def test_a_precision_that_is_given_is_not_probed(context, query, monkeypatch):
    monkeypatch.setattr(
        "attribution.methods.probing.choose", lambda *args: pytest.fail("it was probed")
    )
    given = Context(replace(context.denoiser), context.index, probe=Probe(FLOAT32))
    found = run(METHODS["abu"].build(given), query, ids=context.index.ids([0, 1]))
    assert found.params["precision"] == {"name": "float32", "tried": {}, "seconds": 0.0}


def test_a_low_precision_reaches_scores_and_noise_floor(context, query, whole, monkeypatch):
    """bfloat16 is slow here, but it has to work: its floor is its own."""
    low = Context(replace(context.denoiser), context.index, probe=Probe(BFLOAT16))
    found = run(METHODS["abu"].build(low), query, ids=list(whole.ids), fresh_base=False)
    assert found.params["precision"]["name"] == "bfloat16"
    assert found.noise_floor > 10 * whole.noise_floor
    assert not np.array_equal(found.scores, whole.scores)


def test_the_measured_recall_speaks_only_of_answers_like_those(raced, monkeypatch):
    recall = defaults.Recall(0.97, 20, "a" * 64)
    monkeypatch.setattr(defaults, "SHORTLIST_RECALL", recall)
    monkeypatch.setattr(defaults, "SHORTLIST", 9)
    monkeypatch.setattr(defaults, "METHOD", raced.method)
    monkeypatch.setattr(defaults, "RACING", ((1, 6), (1, 3)))
    assert measured_recall(raced, "a" * 64) is None  # it was unlearned by a small step
    like = replace(raced, params={**raced.params, **asdict(UnlearnConfig())})
    assert measured_recall(like, "a" * 64) == recall
    for name, value in {"damping": 1.0, "steps": 1, "seed": 3, "region": "loss"}.items():
        other = replace(like, params={**like.params, name: value})
        assert measured_recall(other, "a" * 64) is None, name
    assert measured_recall(like, "b" * 64) is None
    assert measured_recall(replace(like, method="clip"), "a" * 64) is None
    monkeypatch.setattr(defaults, "RACING", ((1, 6), (1, 4)))
    assert measured_recall(like, "a" * 64) is None
    monkeypatch.setattr(defaults, "SHORTLIST_RECALL", None)
    assert measured_recall(like, "a" * 64) is None


def test_the_probe_compares_real_scores_and_leaves_the_weights(context, abu, query, monkeypatch):
    """As on a machine with fast half types: what it looks at, and what it settles on."""
    found = {}

    def choose(precisions, few, differences):
        few(BFLOAT16)
        found.update({p: differences(p) for p in (FLOAT32, *precisions)})
        return Probe(BFLOAT16, {"bfloat16": {"speed": 2.0}})

    monkeypatch.setattr(probing, "lower", lambda device: (BFLOAT16,))
    monkeypatch.setattr(probing, "choose", choose)
    monkeypatch.setattr(probing, "_FOUND", {})
    *_, unlearned = abu.unlearn(query, **SMALL)
    before = snapshot(context.denoiser)
    fresh = Context(replace(context.denoiser), context.index)
    config = UnlearnConfig(**SMALL)
    probe = probing.settle(fresh, config, unlearned.delta)
    assert probing.settle(fresh, config, unlearned.delta) is probe
    assert_same(context.denoiser, before)
    assert fresh.denoiser.precision == BFLOAT16 and context.denoiser.precision == FLOAT32
    exact, low = found[FLOAT32], found[BFLOAT16]
    assert exact.shape == low.shape == (len(context.index.train_rows),)
    assert 0 < np.abs(exact - low).max() < 1.0 and np.abs(exact).max() > 0
    again = Context(replace(context.denoiser), context.index)
    assert probing.settle(again, config, {}) is probe
    # a smaller step is another matter, and so is another objective
    found.clear()
    smaller = replace(config, relative_increase=config.relative_increase / 10)
    tenth = {name: 0.1 * value for name, value in unlearned.delta.items()}
    assert probing.settle(again, smaller, tenth) is not probe
    assert np.abs(found[FLOAT32]).max() < 0.5 * np.abs(exact).max()
