"""Customised models evaluated on a tiny index: the command, and its numbers against plain loops."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attribution import defaults
from attribution.denoiser import Denoiser
from attribution.gradients import trainable
from attribution.heads import Head
from attribution.index import Index
from attribution.noise import keyed_noise, mirrored
from attribution.projection import BlockProjection
from attribution.types import UserError
from attribution.unlearning import UnlearnConfig, Unlearned, applied, unlearn
from evaluation import customised
from evaluation.answers import last
from evaluation.customisation import plan, tables
from evaluation.customisation.bench import TUNING, Bench, Made, Settings
from evaluation.customisation.methods import Configuration, able, stages
from evaluation.customisation.sitting import Sitting
from evaluation.data import load_records
from evaluation.results import read_lines
from evaluation.world import World
from precompute.__main__ import main as precompute
from precompute.recipes.abc.plan import OBJECT, STYLE, Model
from precompute.recipes.customise.config import CustomiseConfig
from tests.attribution.test_unlearning import assert_same, snapshot
from tests.evaluation.tiny_world import evaluate
from tests.precompute.worlds import make_index, tiny_clip
from tests.tiny import tiny_images

ARTISTS, EACH = "mnopqrstuvwx", 4
TIMESTEPS = (125, 625)
SMALL = (
    *("--steps", "2", "--guidance", "1", "--queries", "2", "--group", "2", "--distractors", "8"),
    *("--timesteps", "125,625", "--survivors", "4", "--tune-steps", "2", "--tune-batch", "2"),
)
SETTINGS = Settings(
    group=2, queries=2, distractors=8, timesteps=TIMESTEPS, survivors=None, steps=2, guidance=1.0,
    customise=CustomiseConfig(steps=4, batch_size=2, weight_rate=0.5),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tiny_model, tmp_path_factory) -> Path:
    """An index of 48 drawings by twelve artists, of as many categories, with rows of D-TRAK. The
    last drawing of artist x is the first one of artist m once more."""
    folder = tmp_path_factory.mktemp("customised")
    (folder / "data").mkdir()
    lines, count = [], len(ARTISTS) * EACH
    images = tiny_images(count)
    images[-1] = images[0]
    for i, image in enumerate(images):
        image.save(folder / f"data/{i:02d}.png")
        artist, letter = ARTISTS[i % len(ARTISTS)], "abcdefghijkl"[i // EACH]
        row = {"file_name": f"{i:02d}.png", "text": f"{letter}, by {artist}"}
        lines.append(json.dumps({**row, "artists": [artist], "category": letter}))
    (folder / "data/metadata.jsonl").write_text("\n".join(lines))
    clip = ("--clip", str(tiny_clip(folder / "clip")))
    out = make_index(folder / "index", tiny_model, folder / "data", *clip)
    small = ("--device", "cpu", "--batch-size", "8")
    assert precompute(["dtrak", "--out", str(out), "--dim", "16", *small]) == 0
    return out


@pytest.fixture
def bench(world, tmp_path) -> Bench:
    return Bench(World(world, "cpu"), SETTINGS, tmp_path)


def model_of(bench: Bench, kind: str) -> Model:
    return next(model for model in bench.models(8) if model.kind == kind)


def sitting(bench: Bench, model: Model) -> tuple[Made, np.ndarray]:
    pools = plan.distractors(bench.index, bench.world.records, [model], 8)
    return bench.make(model), pools[model.name]


def ask(bench: Bench, model: Model, text: str, number: int = 0) -> tuple[Sitting, dict]:
    """A sitting that outlives its block, with one answer: only its arrays are looked at."""
    made, pool = sitting(bench, model)
    with bench.wearing(made):
        one = Sitting(bench, made, pool)
        return one, one.answer(number, Configuration.parse(text))


# ---------------------------------------------------------------------- who is customised


def test_exemplars_are_of_artists_that_trained_no_head_of_the_index(bench, tmp_path, monkeypatch):
    """Of heads made with other numbers of models than by default."""
    before = {model.artist for model in plan.customisations(bench.index, bench.knows, 2, 2)}
    artist = min(before)
    Head(torch.eye(2), torch.zeros(2), {"artists": [artist]}).save(tmp_path / "head")
    places = {"dino-abc": tmp_path / "head"}
    monkeypatch.setattr(type(bench.index), "encoder", lambda self, name: places.get(name))
    after = {model.artist for model in plan.customisations(bench.index, bench.knows, 2, 2)}
    assert after == before - {artist}


def test_exemplars_are_of_artists_that_trained_no_head(bench):
    index = bench.index
    taught = plan.head_artists(index, bench.knows)
    models = plan.customisations(index, bench.knows, 2, 2)
    assert taught and len(models) > TUNING
    assert [model.kind for model in models[:4]] == [OBJECT, STYLE, OBJECT, STYLE]
    words = [model.word for model in models if model.kind == OBJECT]
    assert len(set(words)) == len(words) and all(words)
    for model in models:
        owners = {a for name in model.ids for a in index.record(index.row_of(name))["artists"]}
        assert owners == {model.artist} and model.artist not in taught
        assert len(model.ids) == (1 if model.kind == OBJECT else 2)
        assert [kind for kind, _ in model.prompts] == ["mixed", "plain"]
    assert bench.models(99) == models[TUNING:]
    tuning = Bench(World(index.path, "cpu"), replace(SETTINGS, tuning=True), bench.folder)
    assert tuning.models(99) == models[:TUNING]


def test_distractors_are_no_kin_of_the_exemplars(bench, world):
    index, records = bench.index, load_records(world)
    models = plan.customisations(index, bench.knows, 2, 2)
    pools = plan.distractors(index, records, models, 1000)
    for model in models:
        ids = set(index.ids(pools[model.name]))
        assert not ids & set(model.ids)
        if model.kind == STYLE:
            artists = index.records.select(["id", "artists"]).to_pylist()
            assert not {r["id"] for r in artists if model.artist in r["artists"]} & ids
    small = plan.distractors(index, records, models, 8)
    assert all(set(small[name]) <= set(pools[name]) for name in small)
    assert {len(rows) for rows in small.values()} == {8}


def test_a_near_copy_is_kin(bench, world):
    records = load_records(world)
    first, last_one = records.ids[0], records.ids[-1]
    copies = plan.near_copies(bench.index, records, [first, records.ids[1]])
    assert copies[first] == {first, last_one} and copies[records.ids[1]] == {records.ids[1]}
    prompts = (("plain", "<v1> a"),)
    model = Model("000-object", OBJECT, "", "m", (first,), "a", ("<v1> a",), prompts)
    (rows,) = plan.distractors(bench.index, records, [model], 99).values()
    assert not {first, last_one} & set(bench.index.ids(rows))


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("<v1> bird", "bird"),
        ("<v1> bird, by X", "bird, by X"),
        ("eagle, by <v1>", "eagle"),
        ("a <v1> card and an eagle", "a card and an eagle"),
    ],
)
def test_prompts_without_the_word(text, bare):
    assert plan.without_word(text) == bare


# ---------------------------------------------------------------------- customised models


def test_a_model_is_tuned_once_and_leaves_no_trace(bench, world):
    before, model = snapshot(bench.denoiser), model_of(bench, OBJECT)
    made = bench.make(model)
    assert_same(bench.denoiser, before)
    written = (made.folder / "weights.safetensors").stat().st_mtime_ns
    assert bench.make(model) == made
    with bench.wearing(made):
        assert any(not torch.equal(p, before[n]) for n, p in bench.denoiser.unet.named_parameters())
        again = bench._draw(model)
    assert_same(bench.denoiser, before)
    assert np.array_equal(again, np.stack([np.asarray(p) for p in made.pictures]))
    assert made.measured["loss"][0] != made.measured["loss"][1]
    (made.folder / "weights.safetensors").write_bytes(b"damaged")
    assert bench.made(model) is None
    bench.make(model)
    assert (made.folder / "weights.safetensors").stat().st_mtime_ns > written


def test_weights_do_not_depend_on_which_model_came_before(bench, world, tmp_path):
    style = model_of(bench, STYLE)
    bench.make(model_of(bench, OBJECT))
    after = (bench.make(style).folder / "weights.safetensors").read_bytes()
    fresh = Bench(World(world, "cpu"), SETTINGS, tmp_path / "fresh")
    assert (fresh.make(style).folder / "weights.safetensors").read_bytes() == after


# ---------------------------------------------------------------------- oracles


def loss_by_hand(
    denoiser: Denoiser, index: Index, row: int, caption: str, flip: int, timestep: int
) -> float:
    """L(z, θ) of one cell, as the paper writes it."""
    noise = keyed_noise(
        denoiser.latent_shape, namespace="score", seed=index.seed,
        record_id=index.all_ids[row], timestep=timestep,
    )  # fmt: skip
    noise = mirrored(noise) if flip else noise
    cond = denoiser.encode_text([caption])
    z = index.latents([row], flip)
    with torch.no_grad():
        return float(denoiser.loss(z, cond, noise[None], torch.tensor([timestep])))


@pytest.mark.parametrize(("text", "word"), [("abu", True), ("abu/no-v", False)])
def test_base_losses_are_the_customised_models(bench, text, word):
    model = model_of(bench, STYLE)
    one, _ = ask(bench, model, text)
    view = one.context(Configuration.parse(text)).index
    base, index = view.base_loss, bench.index
    exemplar, other = sorted(one.exemplars)[0], int(one.distractors[0])
    called = one.exemplars[exemplar]
    called = called if word else plan.without_word(called)
    with bench.wearing(one.made):
        for row, caption in ((exemplar, called), (other, index.all_captions[other][0])):
            assert view.all_captions[row] == [caption]
            for flip in (0, 1):
                for column, timestep in enumerate(TIMESTEPS):
                    by_hand = loss_by_hand(bench.denoiser, index, row, caption, flip, timestep)
                    assert base[row, 0, flip, column] == pytest.approx(by_hand, rel=1e-4)
    columns = [index.timesteps.index(t) for t in TIMESTEPS]
    assert not np.allclose(base[other, 0], index.base_loss[other, 0][:, columns], rtol=1e-5)
    outside = np.setdiff1d(np.arange(index.n_records), one.pool)
    assert np.isnan(base[outside]).all() and np.isfinite(base[one.pool]).all()


def test_scores_are_losses_after_less_losses_before(bench):
    """Of the customised model, with the base model's Fisher."""
    model = model_of(bench, OBJECT)
    text = "abu:relative_increase=0.02"
    one, line = ask(bench, model, text)
    made, index = one.made, bench.index
    with bench.wearing(made):
        sat = Sitting(bench, made, one.distractors)
        found = sat.attribution(0, Configuration.parse(text))
        config = UnlearnConfig(
            relative_increase=0.02, steps=defaults.NEWTON_STEPS, n_records=len(one.pool)
        )
        z = bench.denoiser.encode_images([made.pictures[0]])
        cond = bench.denoiser.encode_text([model.prompts[0][1]])
        fisher = bench.base.curvature("diagonal")
        delta = last(unlearn(bench.denoiser, z, cond, fisher, config), Unlearned).delta
        captions = {row: index.all_captions[row][0] for row in one.pool} | one.exemplars
        scores = {}
        for row in one.pool.tolist():
            cells = np.zeros((2, len(TIMESTEPS)))
            for flip in (0, 1):
                for column, timestep in enumerate(TIMESTEPS):
                    cell = (bench.denoiser, index, row, captions[row], flip, timestep)
                    before = loss_by_hand(*cell)
                    with applied(bench.denoiser, delta):
                        cells[flip, column] = loss_by_hand(*cell) - before
            scores[row] = cells.mean(1).max()
    spread = max(scores.values()) - min(scores.values())
    for row, score in zip(found.rows.tolist(), found.scores, strict=True):
        assert score == pytest.approx(scores[row], abs=0.02 * spread)
    ordered = sorted(scores, key=lambda row: -scores[row])
    assert line["ranks"] == [ordered.index(next(iter(one.exemplars))) + 1]
    assert line["among"] == 9 and line["first"] == found.ids[0]


def test_gradient_rows_are_the_customised_models(bench):
    model = model_of(bench, STYLE)
    one, line = ask(bench, model, "dtrak")
    assert line["rows"] == "customised"
    view = one.context(Configuration.parse("dtrak")).index
    settings = view.extra("dtrak")
    assert settings["timesteps"] == list(TIMESTEPS)
    exemplar = sorted(one.exemplars)[0]
    rows = view.rows("dtrak", [exemplar, int(one.distractors[0])])
    names = [name for block in settings["blocks"] for name in block["parameters"]]
    with bench.wearing(one.made):
        denoiser = bench.denoiser.with_objective("eps2")
        parts = []
        for timestep in TIMESTEPS:
            noise = keyed_noise(
                denoiser.latent_shape, namespace="train-gradient", seed=settings["seed"],
                record_id=bench.index.all_ids[exemplar], timestep=timestep,
            )  # fmt: skip
            cond = denoiser.encode_text([one.exemplars[exemplar]])
            with trainable(denoiser.unet, names) as weights:
                loss = denoiser.loss(
                    bench.index.latents([exemplar], 1), cond, mirrored(noise)[None],
                    torch.tensor([timestep]),
                )  # fmt: skip
                parts.append(torch.autograd.grad(loss.sum(), weights))
        mean = {n: sum(p[i] for p in parts)[None] / len(parts) for i, n in enumerate(names)}
        shapes = {name: tuple(grad.shape[1:]) for name, grad in mean.items()}
        by_hand = BlockProjection.from_settings(shapes, settings).apply(mean)[0].numpy()
    assert np.allclose(rows[0, 1], by_hand, rtol=1e-3, atol=1e-4 * np.abs(by_hand).max())
    _, theirs = ask(bench, model, "dtrak/index-rows")
    assert theirs["rows"] == "index"


def test_index_rows_are_the_indexs(bench):
    one, _ = ask(bench, model_of(bench, OBJECT), "dtrak/index-rows")
    view = one.context(Configuration.parse("dtrak/index-rows")).index
    assert np.array_equal(view.rows("dtrak", one.pool), bench.index.rows("dtrak", one.pool))
    assert view.extra("dtrak")["timesteps"] == list(bench.index.timesteps)


def test_similarity_ranks_are_those_of_the_features(bench):
    model = model_of(bench, STYLE)
    one, line = ask(bench, model, "clip", number=1)
    query = bench.world.clip.images([one.made.pictures[1]]).numpy()[0]
    rows = bench.index.rows("clip", one.pool).astype(np.float32)
    scores = dict(zip(one.pool.tolist(), (rows @ query).max(1), strict=True))
    ordered = sorted(scores, key=lambda row: -scores[row])
    assert line["ranks"] == sorted(ordered.index(row) + 1 for row in one.exemplars)


# ---------------------------------------------------------------------- the command


CHEAP = ("--customisations", "2", "--methods", "clip,abu,dtrak/index-rows")


def answers_of(place: Path) -> list[dict]:
    return [x for x in read_lines(place / "results" / "customised.jsonl") if "ranks" in x]


def test_the_command_resumes_and_reports(world, tmp_path, capsys):
    one = ("--customisations", "1", *CHEAP[2:])
    assert evaluate("customised", world, tmp_path, *SMALL, *one) == 0
    first = read_lines(tmp_path / "results" / "customised.jsonl")
    assert len(answers_of(tmp_path)) == 2 * 3
    assert evaluate("customised", world, tmp_path, *SMALL, *CHEAP) == 0
    said = capsys.readouterr().out
    assert "| object | clip | 1 | 2 |" in said and "| style | abu | 1 | 2 |" in said
    lines = read_lines(tmp_path / "results" / "customised.jsonl")
    assert lines[: len(first)] == first and len(answers_of(tmp_path)) == 2 * 2 * 3
    assert evaluate("customised", world, tmp_path, *SMALL, *CHEAP) == 0
    assert read_lines(tmp_path / "results" / "customised.jsonl") == lines
    assert (tmp_path / "results" / "customised.png").stat().st_size > 5000
    rows = list(csv.DictReader((tmp_path / "results" / "customised.csv").open()))
    assert len(rows) == 12 and {row["kind"] for row in rows} == {OBJECT, STYLE}
    assert evaluate("report", world, tmp_path) == 0
    assert "## customised" in (tmp_path / "results" / "README.md").read_text()


def test_a_killed_run_loses_one_answer(world, tmp_path):
    assert evaluate("customised", world, tmp_path, *SMALL, *CHEAP) == 0
    path = tmp_path / "results" / "customised.jsonl"
    whole = path.read_text().splitlines()
    path.write_text("\n".join([*whole[:-2], whole[-1], whole[-2][:40]]))
    assert evaluate("customised", world, tmp_path, *SMALL, *CHEAP) == 0
    again = answers_of(tmp_path)
    lost, made = json.loads(whole[-2]), again[-1]
    assert made["unit"] == lost["unit"] and made["ranks"] == lost["ranks"]
    assert len(again) == 12


def test_other_rows_are_asked_again(world, tmp_path, monkeypatch):
    one = ("--customisations", "1", "--methods", "clip")
    assert evaluate("customised", world, tmp_path, *SMALL, *one) == 0
    monkeypatch.setattr(Configuration, "digest", lambda self, index: "new rows")
    assert evaluate("customised", world, tmp_path, *SMALL, *one) == 0
    digests = [line["digest"] for line in answers_of(tmp_path)]
    assert len(digests) == 4 and digests[2:] == ["new rows"] * 2


def test_a_plan_computes_nothing(world, tmp_path, capsys):
    assert evaluate("customised", world, tmp_path, *SMALL, "--plan") == 0
    found = capsys.readouterr()
    assert "forwards a second" in found.out and "in all" in found.out
    assert "left out: abu-full" in found.err and "--weights full" in found.err
    assert evaluate("customised", world, tmp_path, *SMALL, "--customisations", "99", "--plan") == 0
    assert re.search(r"drawings for \d+ models, not 99", capsys.readouterr().err)
    assert not (tmp_path / "results").exists() and not (tmp_path / "cache").exists()


def test_what_an_index_lacks_is_noted(world, tmp_path, capsys):
    more = ("--customisations", "1", "--methods", "random,abu-full")
    assert evaluate("customised", world, tmp_path, *SMALL, *more) == 0
    said = capsys.readouterr().out
    assert "Not run: abu-full: this index has no Fisher of all weights: run" in said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--methods", "abu/no-w"), "no flag 'no-w'"),
        (("--methods", "clip/index-rows"), "only gradient methods"),
        (("--methods", "abu:flips=mean"), "leave-k-out's"),
        (("--methods", "guess"), "no method 'guess'"),
        (("--timesteps", "77"), "not at [77]"),
        (("--customisations", "0"), "from 1"),
        (("--methods", ","), "nothing is named"),
        (("--distractors", "0"), "from 1"),
    ],
)
def test_bad_requests_are_refused_in_a_line(world, tmp_path, capsys, more, says):
    assert evaluate("customised", world, tmp_path, *SMALL, *more) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and says in error[0]


def test_every_configuration_that_is_planned_is_one(bench):
    found = stages(None, 3, 1)
    assert [stage.queries for stage in found] == [3, 3, 1]
    texts = [one.text for stage in found for one in stage.configurations]
    assert len(set(texts)) == len(texts)
    assert all(Configuration.parse(text).text == text for text in texts)
    kept, lacking = able(found, bench.index)
    assert {"dino", "dino-abc", "clip-abc"} <= set(lacking)
    assert not {one.text for stage in kept for one in stage.configurations} & set(lacking)
    with pytest.raises(UserError, match="no method"):
        Configuration.parse("x")


# ---------------------------------------------------------------------- tables


def answer(model: str, kind: str, query: int, text: str, *ranks: int) -> dict:
    about = {"model": model, "kind": kind, "query": query, "configuration": text}
    more = {"prompts": "plain", "prompt": "<v1>", "among": 100, "seconds": 1.0}
    return {"unit": f"{model}/{query} {text}", **about, "ranks": list(ranks), **more}


def test_metrics_by_hand():
    recalled, precision = tables.metrics(answer("a", STYLE, 0, "abu", 2, 5, 11, 40))
    assert recalled == pytest.approx(2 / 4)
    assert precision == pytest.approx((1 / 2 + 2 / 5 + 3 / 11 + 4 / 40) / 4)
    assert tables.metrics(answer("a", OBJECT, 0, "abu", 4)) == (1.0, 0.25)


def test_tables_by_hand():
    ours = tables.REFERENCE
    units = [
        answer("a", OBJECT, 0, ours, 1), answer("a", OBJECT, 1, ours, 2),
        answer("b", OBJECT, 0, ours, 4), answer("a", OBJECT, 1, "clip", 1),
        answer("b", OBJECT, 0, "clip", 20),
        *(answer(model, OBJECT, n, "dino", 2) for model, n in (("a", 0), ("a", 1), ("b", 0))),
    ]  # fmt: skip
    found = tables.Answers(units)
    assert found.values(OBJECT, ours)[:, 1].tolist() == [0.75, 0.25]
    # on the pictures that both have: a/1 and b/0
    assert np.allclose(found.differences(OBJECT, "clip", ours), [[0.0, 0.5], [-1.0, -0.2]])
    head = {"settings": {"distractors": 99, "timesteps": [125], "survivors": None}}
    summary = customised.summarise(head, units)
    rows = {row[1]: row for row in summary.table[1:]}
    assert rows[ours][2:4] == ("2", "3") and rows[ours][5].startswith("0.500")
    assert rows["dino"][6].startswith("+0.000") and rows[ours][6] == ""
    assert "best other dino 0.500" in summary.figures[0].value
    assert "clip" not in rows  # two of three pictures: no row among those that have all
    (more,) = summary.more
    assert more[1][1] == "clip" and more[1][6:8] == ("0.375", "+0.150 (-0.200 to +0.500)")
    assert not customised.summarise(head, []).table
