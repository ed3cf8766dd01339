"""The recipe of DINO and DINOv2: crops, losses against naive loops, resume, what is written."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open

from attribution.encoders import ClassTokenEncoder
from attribution.features import unit
from precompute.recipes.features import train
from precompute.recipes.features.config import CONFIGS, DinoConfig, DinoV2Config
from precompute.recipes.features.crops import crop, masks, placements, recoloured, views
from precompute.recipes.features.distil import learning_rate, momentum
from precompute.recipes.features.losses import (
    centred,
    cross_views,
    health,
    koleo,
    masked_patches,
    sinkhorn,
)
from precompute.recipes.model.data import load_training_set

SIZES = {
    "resolution": 16, "global_side": 12, "local_side": 8, "local_crops": 2, "patch": 4,
    "width": 16, "layers": 1, "heads": 2, "head_hidden": 16, "bottleneck": 8, "prototypes": 12,
    "batch_size": 3, "steps": 6, "warmup_steps": 2, "freeze_steps": 1,
}  # fmt: skip
TINY = {"dino": DinoConfig(**SIZES), "dinov2": DinoV2Config(**SIZES)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Five random pictures and a held-out one that nobody could decode."""
    rng, rows = np.random.default_rng(0), []
    for i in range(6):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
        image = buffer.getvalue() if i < 5 else b"no picture"
        split = "train" if i < 5 else "held-out"
        rows.append(
            {"id": f"r{i}", "image": image, "captions": [""], "category": "c", "artists": ["Ada"],
             "split": split}
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("data")
    pq.write_table(pa.Table.from_pylist(rows), folder / "records.parquet")
    return folder


# ---------------------------------------------------------------------- crops


def test_crops_lie_within_the_picture_and_have_the_area_asked():
    theta = placements(500, (0.1, 0.4), generator())
    half = torch.stack([theta[:, 0, 0].abs(), theta[:, 1, 1]], dim=1)
    assert (theta[:, :, 2].abs() + half <= 1 + 1e-6).all()
    area = half.prod(1)
    assert 0.1 - 1e-6 <= area.min() < 0.12 and 0.38 < area.max() <= 0.4 + 1e-6
    assert 0.4 < (theta[:, 0, 0] < 0).float().mean() < 0.6  # mirrored


def test_a_crop_shows_what_is_there():
    picture = torch.linspace(-0.5, 0.5, 16).expand(1, 3, 16, 16).clone()  # brighter to the right
    for seed in range(20):
        state = generator(seed)
        theta = placements(1, (0.2, 0.5), generator(seed))
        grid = F.affine_grid(theta, [1, 3, 8, 8], align_corners=False)
        seen = F.grid_sample(picture, grid, padding_mode="border", align_corners=False)
        steps = seen[0, 0, 4].diff()
        assert (steps > 0).all() if theta[0, 0, 0] > 0 else (steps < 0).all()
        assert crop(picture, (0.2, 0.5), 8, state).shape == (1, 3, 8, 8)


def test_views_are_a_pure_function_of_the_generator():
    config = TINY["dino"]
    pixels = torch.rand(4, 3, 16, 16, generator=generator()) * 2 - 1
    large, small = views(pixels, config, generator(1))
    assert large.shape == (2, 4, 3, 12, 12) and small.shape == (2, 4, 3, 8, 8)
    assert large.abs().max() <= 1 and small.abs().max() <= 1
    again, other = views(pixels, config, generator(1)), views(pixels, config, generator(2))
    assert torch.equal(large, again[0]) and torch.equal(small, again[1])
    assert not torch.equal(large, other[0]) and not torch.equal(large[0], large[1])
    none, _ = views(pixels, replace(config, local_crops=0), generator(1))
    assert torch.equal(none, large)


def test_colours_move_and_strength_nought_moves_nothing():
    pixels = torch.rand(64, 3, 8, 8, generator=generator()) * 2 - 1
    assert torch.allclose(recoloured(pixels, 0.0, generator()), pixels, atol=1e-6)
    moved = recoloured(pixels, 1.0, generator())
    assert moved.abs().max() <= 1 and not torch.allclose(moved, pixels, atol=0.1)
    grey = (moved - moved.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-5
    assert 0.05 < grey.float().mean() < 0.4
    neutral = torch.zeros(64, 3, 8, 8)  # a hue turn leaves grey as it is
    assert recoloured(neutral, 1.0, generator()).diff(dim=1).abs().max() < 1e-5


def test_masks_hide_the_share_asked_of_some_pictures():
    hidden = masks(400, 8, 0.5, (0.1, 0.5), generator())
    counts = hidden.sum(1)
    assert hidden.shape == (400, 64) and 0.4 < (counts > 0).float().mean() < 0.6
    some = counts[counts > 0].float() / 64
    assert 0.09 <= some.min() < 0.15 and 0.45 < some.max() <= 0.5
    assert masks(9, 4, 1.0, (1.0, 1.0), generator()).all()
    assert not masks(9, 4, 0.0, (0.1, 0.5), generator()).any()


# ---------------------------------------------------------------------- losses


def test_centring_takes_away_what_all_rows_share():
    scores = torch.randn(5, 7, generator=generator())
    drift = torch.linspace(0, 3, 7)
    plain = centred(scores, torch.zeros(7), 0.5)
    assert torch.allclose(plain, F.softmax(scores / 0.5, dim=1))
    assert torch.allclose(centred(scores + drift, drift, 0.5), plain, atol=1e-6)


def test_sinkhorn_shares_the_batch_among_the_prototypes():
    scores = torch.randn(12, 4, generator=generator()).clamp(-1, 1)
    few, many = sinkhorn(scores, 0.2, 3), sinkhorn(scores, 0.2, 200)
    for weights in (few, many):
        assert torch.allclose(weights.sum(1), torch.ones(12), atol=1e-5)
    assert torch.allclose(many.sum(0), torch.full((4,), 3.0), atol=1e-3)
    # scalings of exp(g / τ): ratios of ratios stay
    logs = many.log() - scores / 0.2
    crossed = logs[0, 0] + logs[1, 1] - logs[0, 1] - logs[1, 0]
    assert crossed == pytest.approx(0.0, abs=1e-3)


def test_views_are_compared_with_all_others_and_never_with_themselves():
    g = generator()
    teacher = F.softmax(torch.randn(2, 3, 5, generator=g), dim=-1)
    student = torch.randn(4, 3, 5, generator=g)
    losses = [
        -(teacher[t, b] * F.log_softmax(student[v, b] / 0.1, dim=0)).sum()
        for t in range(2)
        for v in range(4)
        for b in range(3)
        if t != v
    ]
    assert len(losses) == 6 * 3
    assert torch.allclose(cross_views(teacher, student, 0.1), torch.stack(losses).mean())


def test_every_masked_picture_counts_alike():
    from precompute.recipes.features.dinov2 import _weights

    g = generator()
    hidden = torch.tensor([[True, True, False], [False] * 3, [False, True, False]])
    teacher = F.softmax(torch.randn(3, 5, generator=g), dim=-1)
    student = torch.randn(3, 5, generator=g)
    each = [-(t * F.log_softmax(s / 0.1, 0)).sum() for t, s in zip(teacher, student, strict=True)]
    expected = ((each[0] + each[1]) / 2 + each[2]) / 2
    found = masked_patches(teacher, student, 0.1, _weights(hidden))
    assert found == pytest.approx(float(expected), rel=1e-5)
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert masked_patches(teacher[:0], student[:0], 0.1, _weights(nothing)) == 0


def test_koleo_against_a_loop_and_it_spreads():
    x = torch.randn(6, 4, generator=generator(), requires_grad=True)
    points = F.normalize(x, dim=1).detach()
    naive = 0.0
    for i in range(6):
        nearest = min(float((points[i] - points[j]).norm()) for j in range(6) if j != i)
        naive -= np.log(nearest) / 6
    loss = koleo(x)
    assert float(loss.detach()) == pytest.approx(naive, rel=1e-4)
    loss.backward()
    moved = F.normalize((x - 0.01 * x.grad).detach(), dim=1)
    apart = torch.cdist(points, points) + 9 * torch.eye(6)
    assert (torch.cdist(moved, moved) + 9 * torch.eye(6)).min() > apart.min()


def test_collapse_shows():
    alike = torch.ones(8, 5)
    one = F.one_hot(torch.zeros(8, dtype=torch.long), 6).float()
    uniform = torch.full((8, 6), 1 / 6)
    distinct = F.one_hot(torch.arange(6), 6).float()
    assert health(one, alike)["information"] == pytest.approx(0.0, abs=1e-6)
    assert health(uniform, alike)["information"] == pytest.approx(0.0, abs=1e-6)
    assert health(one, alike)["spread"] == pytest.approx(0.0, abs=1e-6)
    assert health(uniform, alike)["sharpness"] == pytest.approx(1.0)
    good = health(distinct, torch.randn(6, 5, generator=generator()))
    assert (
        good["information"] == pytest.approx(1.0)
        and good["sharpness"] < 1e-6
        and good["spread"] > 0.5
    )


# ---------------------------------------------------------------------- training


def test_schedules():
    config = DinoConfig(steps=100, warmup_steps=10)
    assert [momentum(config, s) for s in (0, 100)] == [config.momentum, 1.0]
    assert learning_rate(config, 0) == 0.1 and learning_rate(config, 9) == 1.0
    assert learning_rate(config, 55) == pytest.approx(0.505)
    assert learning_rate(config, 100) == pytest.approx(0.01)


@pytest.mark.parametrize("name", TINY)
def test_the_teacher_follows_slowly_and_the_student_alone_learns(name, data):
    config = TINY[name]
    network = train.build(config)
    teacher = {k: v.clone() for k, v in network.teacher.state_dict().items()}
    assert all(torch.equal(v, teacher[k]) for k, v in network.student.state_dict().items())
    network.begin(0)
    pixels = load_training_set(data).floats(slice(0, 4))
    network.losses(pixels, generator())["loss"].backward()
    assert network.student["head"].prototypes.grad is None  # they stand still at first
    assert all(p.grad is None for p in network.teacher.parameters())
    gradients = {k: p.grad for k, p in network.student["backbone"].named_parameters()}
    assert not [k for k, v in gradients.items() if v is None or not v.abs().sum() > 0]
    with torch.no_grad():
        for parameter in network.student.parameters():
            parameter += 1.0
    network.begin(3)
    factor = momentum(config, 2)
    for key, value in network.teacher.named_parameters():
        assert torch.allclose(value, teacher[key] + (1 - factor), atol=1e-6), key
    assert network.student["head"].prototypes.requires_grad


def test_the_centre_follows_the_teachers_scores(data):
    network = train.build(TINY["dino"])
    pixels = load_training_set(data).floats(slice(0, 4))
    large, _ = views(pixels, network.config, generator())
    states = network.teacher["backbone"](large.flatten(0, 1), interpolate_pos_encoding=True)
    scores = network.teacher["head"](states.last_hidden_state[:, 0])
    network.losses(pixels, generator())
    assert torch.allclose(network.centre, 0.1 * scores.mean(0).detach(), atol=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_a_killed_training_resumes_to_the_same_weights(name, data, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_EVERY", 2)
    records = load_training_set(data)
    whole = train.train_encoder(records, tmp_path / "whole", TINY[name])
    begin = type(whole).begin

    def killed(self, step):
        if step == 5:
            raise KeyboardInterrupt
        begin(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(type(whole), "begin", killed)
        with pytest.raises(KeyboardInterrupt):
            train.train_encoder(records, tmp_path / "parts", TINY[name])
    for _ in range(2):  # the second time there is nothing left to do
        resumed = train.train_encoder(records, tmp_path / "parts", TINY[name])
        for key, value in whole.state_dict().items():
            assert torch.equal(value, resumed.state_dict()[key]), key


@pytest.mark.parametrize("name", TINY)
def test_what_is_written_opens_as_an_encoder(name, data, tmp_path, monkeypatch):
    monkeypatch.setitem(train.CONFIGS, name, TINY[name])
    train.train_stage(name, data, tmp_path / "run", tmp_path / "out", steps=2)
    folder = tmp_path / "out" / "encoders" / name
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert {str(file.get_tensor(k).dtype) for k in file.keys()} == {"torch.float16"}  # noqa: SIM118
    encoder = ClassTokenEncoder.load(folder)
    records = load_training_set(data)
    pictures = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in records.images[:2]]
    states = encoder.model(pixel_values=records.floats(slice(0, 2))).last_hidden_state
    assert torch.allclose(encoder.images(pictures), unit(states[:, 0]), atol=1e-6)
    assert encoder.preprocessing.pad
    everything = encoder.model(pixel_values=records.floats()).last_hidden_state[:, 0]
    assert everything.mean(0).abs().max() < 5e-3 < everything.std(0).max()  # centred
    note = json.loads((tmp_path / "out" / "training" / f"{name}_training.json").read_text())
    assert note["steps"] == 2 and note["config"]["patch"] == 4
    assert (tmp_path / "out" / "training" / f"{name}_losses.png").is_file()


def test_the_embedded_encoders_stay_below_four_megabytes():
    for config in CONFIGS.values():
        backbone = train.build(config).student["backbone"]
        assert 2 * sum(p.numel() for p in backbone.parameters()) < 4e6
