"""Nearest neighbours name what they should, and the verb says against what."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation.data import load_records
from evaluation.knn import averaged, judged, products, summarise, untrained, vote
from evaluation.results import read_lines
from evaluation.world import World
from tests.evaluation.tiny_world import evaluate
from tests.precompute.worlds import tiny_dinov2, tiny_vit


def test_the_majority_wins_and_the_nearer_of_equals():
    assert vote([("a",), ("b",), ("b",)]) == "b"
    assert vote([("a",), ("b",), ("c",)]) == "a"
    assert vote([("c", "b"), ("b",)]) == "b"
    assert vote([()]) == ""


def test_several_nets_of_a_kind_are_averaged_drawing_by_drawing():
    def net(right, share):
        return {
            **{"drawings": 3, "among": 9, "category": {"1": right}, "artist": {"1": right[:2]}},
            "within": {"category": {"1": share}, "artist": {"1": 0.0}},
        }

    found = averaged([net([1, 0, 1], 0.5), net([1, 0, 0], 0.25)])
    assert found["category"]["1"] == [1.0, 0.0, 0.5] and found["artist"]["1"] == [1.0, 0.0]
    assert found["within"] == {"category": {"1": 0.375}, "artist": {"1": 0.0}}
    assert found["nets"] == 2 and found["drawings"] == 3
    alone = net([1, 0, 1], 0.5)
    assert averaged([alone]) is alone


def test_features_that_tell_the_label_name_every_drawing(tiny_world):
    records = load_records(tiny_world)
    kinds = sorted(set(records.categories))
    images = np.zeros_like(records.images)
    for row, category in enumerate(records.categories):
        images[row, 0, 0, 0] = 1 + kinds.index(category)
    told = replace(records, images=images)

    def encode(pictures):
        numbers = [max(np.asarray(p)[0, 0, 0], np.asarray(p)[0, -1, 0]) for p in pictures]
        return torch.nn.functional.one_hot(torch.tensor(numbers).long(), len(kinds) + 1).float()

    found = judged(told, encode)
    assert found["drawings"] == 8 and found["among"] == 16
    assert found["category"]["1"] == [1] * 8
    # two of the sixteen share a category: the five nearest are no majority of it
    wrong = judged(replace(told, categories=tuple("x" for _ in kinds * 3)), encode)
    assert wrong["category"]["5"] == [1] * 8
    strange = replace(told, artists=tuple((f"only {i}",) for i in range(24)))
    assert judged(strange, encode)["artist"]["1"] == []  # nobody to be found


def test_image_or_flip_whichever_is_nearer():
    candidates = torch.eye(4).view(2, 2, 4)
    found = products(torch.tensor([[0.6, 0.8, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]), candidates)
    assert np.allclose(found, [[0.8, 0.0], [0.0, 1.0]])


def test_no_drawing_is_its_own_neighbour(tiny_world):
    records = load_records(tiny_world)  # 16 training drawings, the categories in pairs
    images = np.arange(24, dtype=np.uint8)[:, None, None, None] + np.zeros_like(records.images)

    def encode(pictures):
        numbers = torch.tensor([np.asarray(p)[0, 0, 0] for p in pictures]).long()
        return torch.nn.functional.one_hot(numbers, 24).float()

    within = judged(replace(records, images=images), encode)["within"]
    # all others are equally unlike: the first of them answers, of another category but for its pair
    assert within["category"]["1"] == pytest.approx(1 / 16)


def test_the_verb_judges_every_encoder_there_is(tiny_world, tmp_path, capsys):
    world = shutil.copytree(tiny_world, tmp_path / "world")
    tiny_vit(world / "encoders" / "dino")
    assert evaluate("knn", world, tmp_path) == 0
    out = capsys.readouterr().out
    assert "category of held-out drawings, dino, k = 5" in out and "Not there: dinov2." in out
    lines = read_lines(tmp_path / "results" / "knn.jsonl")
    assert [line["unit"] for line in lines[1:]] == [
        "pixel", "clip", "clip, untrained", "dino", "dino, untrained",
    ]  # fmt: skip
    assert evaluate("knn", world, tmp_path) == 0
    assert read_lines(tmp_path / "results" / "knn.jsonl") == lines
    tiny_dinov2(world / "encoders" / "dinov2")  # another run: other encoders
    assert evaluate("knn", world, tmp_path) == 0
    assert len(read_lines(tmp_path / "results" / "knn.jsonl")) == 2 * len(lines) + 2
    capsys.readouterr()
    assert evaluate("knn", world, tmp_path, "--report") == 0
    assert "dinov2, untrained" in capsys.readouterr().out


def test_an_untrained_net_is_another_net_of_the_class(tiny_world):
    clip = World(tiny_world, "cpu").clip
    before = [p.clone() for p in clip.model.parameters()]
    state = torch.get_rng_state()
    fresh = untrained(clip, 0)
    assert type(fresh.model) is type(clip.model) and torch.equal(torch.get_rng_state(), state)
    pairs = zip(before, fresh.model.vision_model.parameters(), strict=False)
    assert not all(torch.equal(a, b) for a, b in pairs if a.shape == b.shape)
    again, other = (untrained(clip, seed).model.vision_model.state_dict() for seed in (0, 1))
    weights = fresh.model.vision_model.state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not all(torch.equal(weights[name], other[name]) for name in weights)
    assert all(torch.equal(a, b) for a, b in zip(before, clip.model.parameters(), strict=True))


def test_a_feature_passes_only_above_the_untrained_net():
    def unit(name, right):
        answers = dict.fromkeys(("1", "5", "10"), right)
        shares = {label: dict.fromkeys(answers, 0.5) for label in ("category", "artist")}
        both = {"category": answers, "artist": answers, "within": shares}
        return {"unit": name, "drawings": 4, "among": 9, **both}

    better, worse = [1, 1, 1, 0], [1, 0, 0, 0]
    units = [unit("pixel", better), unit("dino", better), unit("dino, untrained", worse)]
    figures = summarise({}, units).figures
    assert all(f.passed for f in figures) and len(figures) == 2
    assert (
        "75.0%" in figures[0].value
        and "pixel 75.0% (+0.0, +0.0 to +0.0 points)" in figures[0].value
    )
    assert "dino, untrained 25.0% (+50.0," in figures[0].value
    units[2] = unit("dino, untrained", better)
    assert not any(f.passed for f in summarise({}, units).figures)
