"""The model recipe on a tiny data set: training resumes to the same weights, and plain diffusers
loads the result."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

from attribution.types import UserError
from precompute.recipes.model.clip import contrastive_loss, tokenize
from precompute.recipes.model.config import (
    ClipConfig,
    ModelRecipe,
    UnetConfig,
    VaeConfig,
)
from precompute.recipes.model.curve import read_losses
from precompute.recipes.model.data import batch_rows, load_training_set
from precompute.recipes.model.loop import Ema, trapezoid
from precompute.recipes.model.tokenizer import EOS, train_tokenizer
from precompute.recipes.model.train import STAGES, run_stage, with_steps
from precompute.recipes.model.vae import build_vae, latents_of, standardise

TINY = ModelRecipe(
    VaeConfig(
        resolution=16, latent_channels=4, channels=(8, 8, 8), batch_size=4,
        crop=8, full_steps=1, steps=2,
    ),
    ClipConfig(
        vocab_size=400, max_tokens=16, text_width=16, image_width=16, text_layers=1, image_layers=1,
        heads=2, patch=8, projection=8, batch_size=4, steps=2,
    ),
    UnetConfig(channels=(16, 32), heads=2, batch_size=4, steps=4, decay_steps=1, warmup_steps=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six random pictures, the last one held out."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(6):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(buffer, "PNG")
        split = "held-out" if i == 5 else "train"
        rows.append(
            {"id": f"r{i}", "image": buffer.getvalue(), "captions": [f"picture {i}, by Ada"],
             "category": "c", "artists": ["Ada"], "split": split}
        )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "records.parquet")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Run folder and output folder of the whole recipe."""
    folder = tmp_path_factory.mktemp("run")
    for stage in STAGES:
        run_stage(stage, data, folder / "run", folder / "out", TINY)
    return folder / "run", folder / "out"


def test_held_out_records_are_never_loaded_for_training(data: Path) -> None:
    assert load_training_set(data).ids == ("r0", "r1", "r2", "r3", "r4")
    assert load_training_set(data, "held-out").ids == ("r5",)


def test_the_shards_of_an_index_are_a_training_set_too(data: Path, tmp_path: Path) -> None:
    table = pq.read_table(data / "records.parquet")
    for number, part in enumerate((table.slice(0, 4), table.slice(4))):
        path = tmp_path / f"shards/{number:05d}/records.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(part, path)
    found, whole = load_training_set(tmp_path), load_training_set(data)
    assert found.ids == whole.ids and torch.equal(found.images, whole.images)
    with pytest.raises(UserError, match="no training set"):
        load_training_set(tmp_path / "shards")


def test_every_record_is_seen_once_per_epoch() -> None:
    seen = torch.cat([batch_rows(10, 4, seed=1, step=s) for s in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))


def test_learning_rate_warms_up_stays_and_falls_to_zero() -> None:
    factors = [trapezoid(s, warmup=4, total=20, decay=5) for s in range(21)]
    assert factors[0] == 0.25 and factors[4:16] == [1.0] * 12 and factors[20] == 0.0


def test_average_follows_the_weights() -> None:
    layer = torch.nn.Linear(1, 1)
    ema = Ema(layer, 0.5)
    before = ema.shadow["weight"].clone()
    with torch.no_grad():
        layer.weight += 1
    ema.update(layer, step=1000)
    torch.testing.assert_close(ema.shadow["weight"], before + 0.5)


def test_a_killed_run_resumes_to_the_same_weights(
    data: Path, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    run, _ = trained
    for stage in ("vae", "clip"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / stage).symlink_to(run / stage)
    half = replace(TINY, unet=replace(TINY.unet, decay_steps=1))
    run_stage("unet", data, tmp_path / "run", tmp_path / "out", with_steps(half, "unet", 3))
    run_stage("unet", data, tmp_path / "run", tmp_path / "out", TINY)
    whole = torch.load(run / "unet" / "checkpoint.pt", weights_only=True)
    resumed = torch.load(tmp_path / "run" / "unet" / "checkpoint.pt", weights_only=True)
    assert resumed["step"] == whole["step"] == 4
    for name, value in whole["module"].items():
        assert torch.equal(value, resumed["module"][name]), name


def test_plain_diffusers_loads_and_samples(trained: tuple[Path, Path]) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(trained[1] / "model")
    pipeline.to(dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    image = pipeline("picture 1, by Ada", num_inference_steps=2).images[0]
    assert image.size == (16, 16)


def test_records_of_the_training_lie_beside_the_weights(trained: tuple[Path, Path]) -> None:
    out = trained[1] / "training"
    names = {p.name for p in out.iterdir()}
    assert {"unet_training.json", "vae_held_out_mse.txt", "clip_losses.png"} <= names
    assert sorted(read_losses(trained[0] / "unet" / "losses.csv")) == [1, 2, 3, 4]


def test_standardised_latents_have_mean_zero_and_deviation_one_and_decode_alike(data: Path) -> None:
    records = load_training_set(data)
    vae = build_vae(TINY.vae).eval()
    with torch.no_grad():
        before = vae.decode(latents_of(vae, records)).sample
        latents = latents_of(standardise(vae, records), records)
        after = vae.decode(latents).sample
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-3)


def test_same_captions_are_not_pushed_apart() -> None:
    logits = torch.tensor([[5.0, 5.0], [5.0, 5.0]])
    shared = contrastive_loss(logits, torch.tensor([7, 7]))
    assert shared == pytest.approx(np.log(2)) == contrastive_loss(logits, torch.tensor([1, 2]))
    assert contrastive_loss(10 * torch.eye(2), torch.tensor([7, 7])) > shared


def test_unseen_words_and_emoji_do_not_end_the_text() -> None:
    tokenizer = train_tokenizer(["a cat, by Ada"] * 3, 300, 16)
    ids = tokenize(tokenizer, ["zebra 😀 é cat"])[0].tolist()
    end = tokenizer.convert_tokens_to_ids(EOS)
    assert ids.index(end) > tokenizer(["cat"]).input_ids[0].index(end) + 3
    assert set(ids[ids.index(end) :]) == {end}
