"""The detector's recipe: cut-outs, prompts, matching, loss, and a run that resumes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from PIL import Image

from attribution.detection.boxes import centres, corners
from attribution.detection.grounding_dino import GroundingDino, encode
from attribution.extras import Extras
from precompute.__main__ import main
from precompute.recipes.detector import config as recipes
from precompute.recipes.detector import data
from precompute.recipes.detector import train as training
from precompute.recipes.detector.compose import augmented, compose, examples
from precompute.recipes.detector.loss import (
    Targets,
    detection_loss,
    focal_loss,
    match,
    match_many,
    stage_loss,
    stages,
)
from precompute.recipes.detector.network import FIXED, build_network, train_words
from precompute.recipes.detector.train import prepared, tensors
from tests.collages import SIDE, collage_set
from tests.tiny_detector import PHRASES, TINY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return collage_set(tmp_path_factory.mktemp("collages"))


@pytest.fixture(scope="module")
def learned(folder) -> data.DetectionSet:
    return data.load_detection_set(folder)


@pytest.fixture(scope="module")
def words(learned):
    return train_words(learned.phrases, TINY)


def scene(logits, boxes, targets):
    return torch.tensor(logits), centres(torch.tensor(boxes)), targets


# ------------------------------------------------------------------------------------ data


def test_only_training_records_are_learned_from(learned):
    names = {cut.names[0] for members in learned.cutouts.values() for cut in members}
    assert names == {"red ball", "blue ball", "green box", "black ring"}
    assert len(learned.pictures) == 4 + 3
    assert "brown box" not in learned.phrases and "purple ring" not in learned.phrases


def test_names_are_phrases_head_and_category():
    assert data.names_of("christmas tree, evergreen, plant, by Nathan Eady", "plant") == (
        *("christmas tree", "evergreen", "plant", "tree"),
    )
    assert data.head("star with 24 points") == "star" and data.head("queen of hearts") == "queen"


def test_boxes_are_those_of_the_records(learned):
    collage = next(p for p in learned.pictures if len(p.names) == 2)
    assert torch.equal(collage.boxes[0] * SIDE, torch.tensor([1.0, 5.0, 15.0, 19.0]))
    single = next(p for p in learned.pictures if len(p.names) == 1)
    assert torch.equal(single.boxes[0] * SIDE, torch.tensor([3.0, 3.0, 29.0, 27.0]))
    assert data.ink_box(np.full((4, 4, 3), 200, dtype=np.uint8)) is None


def test_paper_is_white_that_touches_the_edge(learned):
    """A ring keeps its white inside; over white, a cut-out looks as it did."""
    (ring,) = learned.cutouts["ring"]
    assert torch.allclose(ring.solid + ring.veil, ring.solid + ring.veil * 1.0)
    middle = tuple(n // 2 for n in ring.solid.shape[1:])
    assert ring.solid[:, *middle].min() == 1 and ring.veil[:, *middle].max() == 0
    assert ring.veil[:, 0, 0].min() == 1 and ring.solid[:, 0, 0].max() == 0
    maze = torch.full((1, 3, 9, 9), 255, dtype=torch.uint8)
    maze[..., 2, 1:8] = maze[..., 2:7, 7] = maze[..., 6, 1:8] = maze[..., 2:7, 1] = 0
    assert data.paper(maze)[0, 0, 4, 4] == 0
    maze[..., 4, 7] = 255  # a door
    assert data.paper(maze)[0, 0, 4, 4] == 1


def test_composed_boxes_surround_what_was_pasted(learned):
    one = replace(TINY, objects=(1.0,))
    for seed in range(8):
        picture = compose(learned.cutouts, one, (32, 24), random.Random(seed))
        assert picture.pixels.shape == (3, 32, 24)
        ground = picture.pixels[:, :1, :1]
        if not torch.equal(picture.pixels[:, -1, -1], ground[:, 0, 0]):
            continue  # it lies in a corner that tells the ground
        ink = ((picture.pixels - ground).abs().amax(0) > 0.1).numpy()
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        seen = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        box = picture.boxes[0] * torch.tensor([24.0, 32.0, 24.0, 32.0])
        assert np.abs(box.numpy() - seen).max() <= 1.01


def test_examples_belong_to_their_step(learned):
    first, again, next_ = (examples(learned, TINY, step) for step in (5, 5, 6))
    assert [e.phrases for e in first] == [e.phrases for e in again]
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(first, again, strict=True))
    assert [e.phrases for e in first] != [e.phrases for e in next_]
    assert torch.equal(
        augmented(torch.ones(2, 3, 8, 8), 0, 1), augmented(torch.ones(2, 3, 8, 8), 0, 1)
    )


def test_prompts_name_what_is_there_among_what_is_not(learned):
    absent = 0
    for step in range(30):
        for example in examples(learned, TINY, step):
            said = set(example.phrases)
            assert said and len(example.boxes) == len(example.positive)
            assert all(named and named <= said for named in example.positive)
            absent += bool(said - set().union(*example.positive))
    assert 10 < absent < 120


# ----------------------------------------------------------------------------------- words


def test_every_lower_case_word_has_tokens_around_the_fixed_ones(words):
    assert all(words.convert_tokens_to_ids(token) == row for token, row in FIXED.items())
    ids = words("zebra crossing 42. red ball?")["input_ids"]
    assert FIXED["[UNK]"] not in ids and ids.count(1012) == 1 and ids[-2] == 1029
    assert words.tokenize("red ball") == ["red", "ball"]
    assert train_words(PHRASES, TINY).get_vocab() == train_words(PHRASES[::-1], TINY).get_vocab()


# ------------------------------------------------------------------------------------ loss


def test_matching_is_the_best_assignment():
    torch.manual_seed(0)
    for _ in range(30):
        cost, there = torch.randn(3, 6, 3), torch.rand(3, 3) > 0.3
        matched = match(cost, there)
        for row in range(3):
            objects = [t for t in range(3) if there[row, t]]
            best = min(
                sum(float(cost[row, q, t]) for q, t in zip(chosen, objects, strict=True))
                for chosen in permutations(range(6), len(objects))
            )
            pairs = [(q, int(t)) for q, t in enumerate(matched[row]) if t >= 0]
            assert sorted(t for _, t in pairs) == objects
            assert sum(float(cost[row, q, t]) for q, t in pairs) == pytest.approx(best, abs=1e-5)


def test_many_queries_answer_for_one_object():
    cost = torch.tensor([[[0.0, 5.0], [1.0, 0.5], [2.0, 3.0], [9.0, 9.0]]])
    assert match_many(cost, torch.tensor([[True, True]]), 2).tolist() == [[0, 1, 1, -1]]
    assert match_many(cost, torch.tensor([[True, False]]), 2).tolist() == [[0, 0, -1, -1]]
    assert match_many(cost, torch.tensor([[False, False]]), 2).tolist() == [[-1] * 4]


def test_focal_loss_by_hand():
    logits, targets = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])
    p = logits.sigmoid()
    by_hand = torch.stack(
        [0.25 * (1 - p[0]) ** 2 * -p[0].log(), 0.75 * p[1] ** 2 * -(1 - p[1]).log()]
    )
    assert torch.allclose(focal_loss(logits, targets), by_hand)


def test_perfect_answers_cost_nothing_and_wrong_ones_something():
    boxes = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.4]]])
    tokens = torch.tensor([[[0, 1, 1, 0], [0, 0, 0, 1]]], dtype=torch.bool)
    targets = Targets(boxes, tokens, torch.ones(1, 2, dtype=torch.bool), tokens.any(1) | True)
    right = torch.full((1, 3, 4), -12.0)
    right[0, 0, 3] = right[0, 2, 1:3] = 12.0
    found = torch.stack([boxes[0, 1], torch.tensor([0.5, 0.5, 0.1, 0.1]), boxes[0, 0]])[None]
    assert all(float(part) < 1e-5 for part in stage_loss(right, found, targets))
    swapped = stage_loss(right, found[:, [2, 1, 0]], targets)
    assert float(sum(swapped)) > 0.5
    unsure = right.clone()
    unsure[0, 2, 1] = -12.0
    assert float(stage_loss(unsure, found, targets)[0]) > 1


def test_padding_claims_no_query_and_costs_nothing():
    """A picture without any object beside one with: the loss of the pair is that of the one."""
    torch.manual_seed(1)
    logits, boxes = torch.randn(2, 5, 4), torch.rand(2, 5, 4)
    logits[1] = -30.0
    tokens = torch.zeros(2, 2, 4, dtype=torch.bool)
    tokens[0, 0, 1] = True
    target = torch.full((2, 2, 4), 0.5)
    text = torch.ones(2, 4, dtype=torch.bool)
    both = stage_loss(logits, boxes, Targets(target, tokens, tokens.any(-1), text))
    alone = Targets(target[:1], tokens[:1], tokens[:1].any(-1), text[:1])
    for a, b in zip(both, stage_loss(logits[:1], boxes[:1], alone), strict=True):
        assert torch.allclose(a, b)


def test_padding_of_the_text_is_no_answer():
    targets = Targets(
        torch.full((1, 1, 4), 0.5),
        torch.tensor([[[True, False]]]),
        torch.ones(1, 1, dtype=torch.bool),
        torch.tensor([[True, False]]),
    )
    logits = torch.tensor([[[1.0, -torch.inf], [0.0, -torch.inf]]], requires_grad=True)
    loss = sum(stage_loss(logits, torch.full((1, 2, 4), 0.4), targets))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad[..., 0]).all()
    assert (logits.grad[..., 1] == 0).all()


def test_every_stage_is_trained_and_the_last_is_what_comes_out(learned, words):
    config = replace(TINY, logit_prior=-4.0)
    network = build_network(config, len(words)).train()
    batch, targets = tensors(examples(learned, config, 0), words, config)
    outputs = network(**{**batch, "pixel_values": prepared(batch["pixel_values"])})
    made = list(stages(network, outputs, targets.text))
    assert len(made) == 1 + config.decoder_layers
    assert torch.equal(made[-1][0], outputs.logits[..., : targets.text.shape[1]])
    assert torch.equal(made[-1][1], outputs.pred_boxes)
    for logits, _ in made:
        assert abs(float(logits.detach()[logits.isfinite()].mean()) + 4) < 1.5  # rare at first
    loss = detection_loss(network, outputs, targets, config.proposals)["loss"]
    loss.backward()
    still = [name for name, p in network.named_parameters() if p.grad is None]
    # of the class's own: what no forward of it uses, and norms of feature maps nobody reads
    assert all("hidden_states_norms" in n or "layernorm" in n or "pooler" in n for n in still), (
        still
    )


def test_targets_are_tokens_of_their_phrases(learned, words):
    batch = examples(learned, TINY, 1)
    arguments, targets = tensors(batch, words, TINY)
    for row, one in enumerate(batch):
        ids, spans = encode(words, one.phrases, TINY.max_tokens)
        assert arguments["input_ids"][row, : len(ids)].tolist() == ids
        for place, named in enumerate(one.positive):
            wanted = sorted(i for phrase in named for i in spans[phrase])
            assert targets.tokens[row, place].nonzero()[:, 0].tolist() == wanted
            assert torch.allclose(corners(targets.boxes[row, place]), one.boxes[place], atol=1e-6)
        assert not targets.there[row, len(one.positive) :].any()


# ------------------------------------------------------------------------------------- run


def train(folder, run, out) -> int:
    return main(["train", "detector", "--data", str(folder), "--run", str(run), "--out", str(out)])


def test_a_killed_run_resumes_to_the_same_bytes_and_is_installed(monkeypatch, folder, tmp_path):
    monkeypatch.setitem(recipes.RECIPES, "openclipart", replace(TINY, batch_size=2))
    monkeypatch.setattr(training, "SAVE_EVERY", 1)
    outs = [tmp_path / name for name in ("whole", "killed")]
    for out in outs:
        out.mkdir()
    assert train(folder, tmp_path / "a", outs[0]) == 0

    def killed(data, config, step):
        if step == 2:
            raise KeyboardInterrupt
        return examples(data, config, step)

    with monkeypatch.context() as patch:
        patch.setattr(training, "examples", killed)
        assert train(folder, tmp_path / "b", outs[1]) == 130
    assert not (outs[1] / "encoders").exists()
    assert train(folder, tmp_path / "b", outs[1]) == 0
    weights = [(out / "encoders/detector/model.safetensors").read_bytes() for out in outs]
    assert weights[0] == weights[1]

    place = Extras.read(outs[0], "", 0).encoder("detector")
    assert place == outs[0] / "encoders/detector"
    GroundingDino(place).detect(Image.new("RGB", (20, 30), "white"), "red ball", 0.0, 0.0)
    record = json.loads((outs[0] / "training/detector_training.json").read_text())
    assert record["steps"] == TINY.steps and record["config"]["width"] == TINY.width


def test_a_recipe_without_a_detector_is_refused(folder, tmp_path, capsys):
    place = ["--data", str(folder), "--run", str(tmp_path), "--out", str(tmp_path)]
    assert main(["train", "detector", *place, "--recipe", "proof"]) == 2
    assert "no detector in the recipe 'proof'" in capsys.readouterr().err


def test_the_loss_falls(learned, words):
    config = replace(TINY, batch_size=8, learning_rate=3e-3, logit_prior=-4.0, side=32)
    network = build_network(config, len(words)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate)
    losses = []
    for step in range(40):
        batch, targets = tensors(examples(learned, config, step), words, config)
        batch["pixel_values"] = prepared(augmented(batch["pixel_values"], 0, step))
        loss = detection_loss(network, network(**batch), targets, config.proposals)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-8:]) < 0.75 * np.mean(losses[:8]), losses
