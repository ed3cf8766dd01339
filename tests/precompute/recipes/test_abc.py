"""AbC: artists on one side of the split only, heads that learn what is linear, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attribution.features import unit
from attribution.heads import Head
from attribution.index import Index
from attribution.types import UserError
from evaluation.__main__ import VERBS
from evaluation.verbs import main as evaluation
from precompute.__main__ import main
from precompute.recipes.abc.config import HeadConfig, PairsConfig
from precompute.recipes.abc.features import Case, Features
from precompute.recipes.abc.heads import folds, train_head, tune_head, validation
from precompute.recipes.abc.pairs import PAIR, Pair
from precompute.recipes.abc.plan import PLAIN, STYLE, TRAIN, VALIDATION, Model, plan
from precompute.recipes.abc.retrieval import exemplar_ranks, retrieval
from tests.precompute.worlds import make_index, tiny_clip, tiny_vit
from tests.tiny import tiny_images

SMALL = (
    *("--objects", "4", "--styles", "2", "--group", "2", "--per-artist", "2"),
    *("--samples", "4", "--untuned", "2", "--sampling-steps", "2"),
    *("--steps", "2", "--batch-size", "2", "--head-steps", "3", "--device", "cpu"),
)
QUICK = HeadConfig(steps=200, learning_rate=5e-2, bank=40, penalties=(float("inf"), 0.1), folds=2)


@pytest.fixture(scope="module")
def world(tiny_model, tmp_path_factory) -> Path:
    """An index of 14 drawings by three artists, with CLIP and DINO rows."""
    folder = tmp_path_factory.mktemp("abc")
    (folder / "data").mkdir()
    lines = []
    for i, image in enumerate(tiny_images(14)):
        image.save(folder / f"data/{i:02d}.png")
        artist = "pqr"[i % 3]
        text = f"{'abcdefghijklmn'[i]}, by {artist}"
        row = {"file_name": f"{i:02d}.png", "text": text, "artists": [artist], "category": "k"}
        lines.append(json.dumps(row))
    (folder / "data/metadata.jsonl").write_text("\n".join(lines))
    clip = ("--clip", str(tiny_clip(folder / "clip")))
    out = make_index(folder / "index", tiny_model, folder / "data", *clip)
    encoder = ("--encoder", "dino", "--model", str(tiny_vit(folder / "dino")))
    assert main(["features", "--out", str(out), *encoder]) == 0
    return out


# ---------------------------------------------------------------------- the plan


def small_plan(world: Path, **changes: int) -> list[Model]:
    config = PairsConfig(objects=4, styles=2, group=2, per_artist=2, samples=4)
    return plan(Index.open(world), lambda word: word == "k", replace(config, **changes))


def test_an_artist_trains_or_validates_never_both(world):
    index = Index.open(world)
    for seed in range(6):
        models = small_plan(world, seed=seed)
        sides = {
            split: {m.artist for m in models if m.split == split} for split in (TRAIN, VALIDATION)
        }
        assert sides[TRAIN] and sides[VALIDATION] and not sides[TRAIN] & sides[VALIDATION]
        for model in models:
            artists = {a for name in model.ids for a in index.record(index.row_of(name))["artists"]}
            assert artists == {model.artist}
        exemplars = [name for model in models for name in model.ids]
        assert len(set(exemplars)) == len(exemplars)
        assert {index.row_of(name) for name in exemplars} <= set(index.train_rows)


def test_prompts_name_the_word_and_only_artists_of_their_own_side(world):
    models = small_plan(world)
    assert [m.kind for m in models].count(STYLE) == 2
    artists = {m.artist: m.split for m in models}
    for model in models:
        assert len(model.prompts) == 4 and len(model.tuning) == len(model.ids)
        for kind, prompt in model.prompts:
            assert "<v1>" in prompt and (kind == PLAIN) == (prompt in model.tuning)
            named = [a for a in artists if prompt.endswith(f"by {a}")]
            assert all(artists[name] == model.split for name in named)
    assert {m.tuning[0] for m in models if m.kind != STYLE} == {"<v1> k"}
    assert small_plan(world) == models != small_plan(world, seed=1)


def test_drawings_all_by_one_artist_are_refused(world):
    with pytest.raises(UserError, match="several artists"):
        config = PairsConfig(objects=4, styles=0, per_artist=4)
        plan(_OneArtist(Index.open(world)), lambda word: True, config)


class _OneArtist:
    """A view of an index in which artist p drew everything."""

    def __init__(self, index: Index) -> None:
        column = index.records.schema.get_field_index("artists")
        names = [["p"]] * index.n_records
        self.records = index.records.set_column(column, "artists", [names])
        self.train_rows, self.path = index.train_rows, index.path


# ---------------------------------------------------------------------- heads


def linear_problem(models: int = 24, dim: int = 12, signal: int = 4) -> Features:
    """Samples share the first `signal` numbers of their exemplar's feature; the others, larger, say
    nothing. Record i is by artist i; every third model validates."""
    rng = torch.Generator().manual_seed(0)
    scale = torch.cat([torch.ones(signal), 2.5 * torch.ones(dim - signal)])
    records = torch.randn(120, 1, dim, generator=rng) * scale
    cases = []
    for i in range(models):
        samples = torch.randn(5, dim, generator=rng) * scale
        samples[:, :signal] = records[i, 0, :signal] + 0.05 * torch.randn(5, signal, generator=rng)
        split = VALIDATION if i % 3 == 0 else TRAIN
        prompts = ((PLAIN, "<v1>"),) * 5
        model = Model(f"{i:03d}", "object", split, f"a{i}", (f"r{i}",), "", ("<v1>",), prompts)
        cases.append(Case(Pair(model, {}, Path(), ""), unit(samples), (i,)))
    owners = tuple(frozenset({f"a{i}"}) for i in range(len(records)))
    return Features("clip", "0" * 64, unit(records).expand(-1, 2, -1), owners, tuple(cases))


def test_a_head_learns_what_samples_and_exemplars_share():
    found = linear_problem()
    tuned = tune_head(found, QUICK)
    sides = validation(found, tuned.head)
    assert tuned.penalty == 0.1 and sides["before"]["models"] == 8
    assert sides["after"]["mAP"] > sides["before"]["mAP"] + 0.3
    assert sides["after"]["recall@10"] > 0.8 > sides["before"]["recall@10"]
    assert tuned.head.about["cross_validation_map"].keys() == {"identity", "0.1"}


def test_the_identity_gives_the_untuned_ranking():
    found = linear_problem()
    case = found.cases[0]
    head = train_head(found, found.cases, set(), float("inf"), QUICK)
    plain = exemplar_ranks(case.samples, found.records, case.exemplars)
    mapped = exemplar_ranks(head.apply(case.samples), head.apply(found.records), case.exemplars)
    assert np.array_equal(plain, mapped)
    strict = train_head(
        found, found.of_split(TRAIN), set(), 1e4, replace(QUICK, learning_rate=1e-4)
    )
    assert (strict.weight - torch.eye(12)).abs().max() < 2e-3


def test_held_out_artists_leave_no_trace_in_the_head():
    """Neither their samples nor their records: other ones give the same head, bit for bit."""
    found = linear_problem()
    held = [case.exemplars[0] for case in found.of_split(VALIDATION)]
    records = found.records.clone()
    records[held] = unit(torch.randn(len(held), 2, 12))
    cases = tuple(
        case if case.pair.model.split == TRAIN else replace(case, samples=unit(torch.randn(5, 12)))
        for case in found.cases
    )
    other = replace(found, records=records, cases=cases)
    one, two = (tune_head(f, replace(QUICK, steps=5)) for f in (found, other))
    assert torch.equal(one.head.weight, two.head.weight) and torch.equal(
        one.head.bias, two.head.bias
    )
    assert not torch.equal(one.head.weight, torch.eye(12))


def test_folds_keep_an_artists_models_together():
    found = linear_problem()
    cases = [
        replace(c, pair=replace(c.pair, model=replace(c.pair.model, artist=f"a{i % 5}")))
        for i, c in enumerate(found.cases)
    ]
    dealt = folds(cases, HeadConfig(folds=3))
    sides = [{case.artist for case in fold} for fold in dealt]
    assert sum(map(len, dealt)) == len(cases) and len(dealt) == 3
    assert sum(map(len, sides)) == len(set.union(*sides)) == 5


def test_ranks_by_hand():
    records = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.8, 0.6]], [[-1.0, 0.0]] * 2])
    ranks = exemplar_ranks(torch.tensor([[1.0, 0.0], [0.6, 0.8]]), records, (1, 2))
    assert ranks.tolist() == [[2, 3], [1, 3]]
    ties = exemplar_ranks(torch.tensor([[1.0, 0.0]]), records[[0, 0]], (0,))
    assert ties.tolist() == [[2]]


def test_metrics_by_hand():
    found = linear_problem()
    case = replace(found.cases[0], exemplars=(0, 1), samples=found.records[[0], 0])
    one = ((PLAIN, "<v1>"),)
    model = replace(case.pair.model, prompts=one)
    case = replace(case, pair=replace(case.pair, model=model))
    (ranks,) = exemplar_ranks(case.samples, found.records, (0, 1))
    table = retrieval(found, Head.identity(12), [case])
    assert ranks[0] == 1 and table["recall@1"] == 1.0
    assert table["mAP"] == pytest.approx((1 + 2 / ranks[1]) / 2, abs=1e-4)


# ---------------------------------------------------------------------- the command


def test_from_models_to_installed_heads_by_commands(world, tmp_path, capsys):
    run = ("abc", "--out", str(world), "--run", str(tmp_path / "run"), *SMALL)
    assert main([*run, "--limit", "2"]) == 0
    assert "2 of 6 models done" in capsys.readouterr().out
    assert Index.open(world).encoder("clip-abc") is None
    (folder,) = (tmp_path / "run").glob("pairs-*")
    first = folder / "000-object" / PAIR
    stamp, shapes = first.stat().st_mtime_ns, np.load(folder / "000-object/samples.npy").shape
    assert shapes == (4, 16, 16, 3)
    damaged = folder / "001-object" / "untuned.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert main(list(run)) == 0
    assert first.stat().st_mtime_ns == stamp and np.load(damaged).shape == (2, 16, 16, 3)
    said = capsys.readouterr().out
    assert "4 object models: loss" in said and "2 style models: loss" in said
    assert "clip-abc, penalty" in said and "dino-abc, penalty" in said
    index = Index.open(world, "full")
    head = Head.load(index.encoder("dino-abc"))
    pairs = [json.loads(path.read_text())["model"] for path in folder.glob(f"*/{PAIR}")]
    assert set(head.about["artists"]) == {m["artist"] for m in pairs if m["split"] == TRAIN}
    assert head.about["features"] == "dino" and head.about["validation"]["before"]["models"] >= 1
    place = ("--index", str(world), "--run", str(tmp_path / "run"), "--results", str(tmp_path))
    assert evaluation("evaluation", VERBS, ["abc", *place, "--device", "cpu"]) == 0
    assert "mAP of the exemplars of held-out artists' models" in capsys.readouterr().out


def test_what_cannot_be_done_is_said_in_a_line(world, tmp_path, capsys):
    run = ("abc", "--out", str(world), "--run", str(tmp_path / "run"), *SMALL)
    for more, says in (
        (("--features", "smell"), "no features 'smell'"),
        (("--objects", "0", "--styles", "1"), "at least 4"),
        (("--samples", "0"), "at least 1"),
    ):
        assert main([*run, *more]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and says in error
    place = ("--index", str(world), "--run", str(tmp_path), "--results", str(tmp_path))
    assert evaluation("evaluation", VERBS, ["abc", *place]) == 2
    assert "precompute abc" in capsys.readouterr().err
