"""Retraining without some records: the same training but for those."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from attribution.denoiser import Denoiser
from attribution.types import UserError
from precompute.recipes.model import unet as unet_module
from precompute.recipes.model.data import batch_rows, load_training_set, resampled
from precompute.recipes.model.retrain import mask, recipe_of, retrain, save_unet
from precompute.recipes.model.unet import Latents, training_latents
from tests.precompute.proof_world import RECIPE, proof_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return proof_world(tmp_path_factory.mktemp("proof"))


@pytest.fixture(scope="module")
def data(world: Path) -> Latents:
    """From what was shipped, not from the run's own folder."""
    model = Denoiser.load(world / "model", device="cpu")
    records = load_training_set(world)
    return training_latents(model.vae, model.text_encoder, model.tokenizer, records)


def finish(job: Generator) -> tuple[list[tuple[int, float]], UNet2DConditionModel]:
    told = []
    while True:
        try:
            told.append(next(job))
        except StopIteration as stop:
            return told, stop.value


def weights(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in unet.state_dict().items()}


def differ(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(a[name], b[name]) for name in a)


def test_removing_nothing_is_the_shipped_model_bit_for_bit(world, data, tmp_path):
    config = recipe_of(world)
    assert config == RECIPE.unet
    told, unet = finish(retrain(data, config))
    assert [step for step, _ in told] == [1, 2, 3, 4, 5]
    folder = save_unet(unet, tmp_path / "unet")
    own, shipped = (
        UNet2DConditionModel.from_pretrained(place).state_dict()
        for place in (folder, world / "model" / "unet")
    )
    assert not differ(own, shipped)


def test_removed_records_are_not_trained_on_and_others_are(world, data):
    """Whatever stands in the removed records' place in the data has no effect."""
    config = recipe_of(world)
    removed = [3, 7]
    _, unet = finish(retrain(data, config, removed))
    spoiled = replace(data, latents=data.latents.clone(), states=data.states.clone())
    spoiled.latents[:, removed], spoiled.states[removed] = 99.0, -99.0
    _, same = finish(retrain(spoiled, config, removed))
    assert not differ(weights(unet), weights(same))
    _, whole = finish(retrain(data, config))
    assert differ(weights(unet), weights(whole))
    spoiled.latents[:, 4] = 99.0
    _, other = finish(retrain(spoiled, config, removed))
    assert differ(weights(unet), weights(other))


def test_batches_are_paired(monkeypatch, world, data):
    """Same rows in the same places, same noise, mirror, timesteps and dropout but where a removed
    record was; and the same stand-ins when more is removed."""
    config = recipe_of(world)
    seen: dict[tuple[int, ...], list] = {}

    def watched(key):
        class Watch(torch.nn.Module):
            device = torch.device("cpu")

            def forward(self, noisy, timesteps, states):
                seen[key].append((noisy.clone(), timesteps.clone(), states.clone()))
                return type("Output", (), {"sample": noisy})()

        return Watch()

    n = data.latents.shape[1]
    for removed in ((), (3,), (3, 7)):
        seen[removed] = []
        scheduler = unet_module.build_scheduler(config)
        for step in range(8):
            unet_module.diffusion_loss(
                watched(removed), scheduler, data, config, step, mask(n, removed)
            )
    for step in range(8):
        rows = batch_rows(n, config.batch_size, config.seed, step)
        base, one, two = (seen[key][step] for key in ((), (3,), (3, 7)))
        assert all(torch.equal(base[1], other[1]) for other in (one, two))
        for place, row in enumerate(rows.tolist()):
            same = [torch.equal(base[k][place], one[k][place]) for k in (0, 2)]
            assert all(same) == (row != 3)
            if row == 3:
                taken = resampled(rows, mask(n, (3,)), config.seed, step)[place]
                again = resampled(rows, mask(n, (3, 7)), config.seed, step)[place]
                assert (taken == again) == (taken != 7)
    assert any(3 in batch_rows(n, config.batch_size, config.seed, s) for s in range(8))


def test_stand_ins_are_kept_records_and_depend_on_seed_and_step():
    rows = torch.arange(6)
    removed = mask(10, (0, 2, 9))
    drawn = [resampled(rows, removed, seed, step) for seed in (0, 1) for step in range(30)]
    for batch in drawn:
        assert batch[[1, 3, 4, 5]].tolist() == [1, 3, 4, 5]
        assert not removed[batch].any()
    firsts = [batch[0].item() for batch in drawn]
    assert set(firsts) == {1, 3, 4, 5, 6, 7, 8}  # every kept record can stand in
    assert [batch[0] == batch[2] for batch in drawn].count(True) < 30  # places are apart
    assert firsts[:30] != firsts[30:]
    only = torch.ones(10, dtype=torch.bool)
    only[8] = False
    assert resampled(rows, only, 0, 0).tolist() == [8] * 6
    with pytest.raises(UserError, match="nothing is left"):
        resampled(rows, torch.ones(10, dtype=torch.bool), 0, 0)


def test_a_model_without_its_record_cannot_be_retrained(tmp_path):
    with pytest.raises(UserError, match=r"unet_training\.json is missing"):
        recipe_of(tmp_path)
