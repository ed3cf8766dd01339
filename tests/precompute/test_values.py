"""What an index holds against the same numbers computed one by one, and that shards and batches do
not change them.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import ImageOps

from attribution.denoiser import Denoiser
from attribution.ekfac import EKFAC
from attribution.fisher import DiagonalFisher, fisher_draw
from attribution.gradients import per_sample_gradients
from attribution.index import Index
from attribution.noise import keyed_noise, mirrored
from attribution.projection import Projection
from attribution.weights import parameter_names
from precompute.__main__ import main
from tests.precompute.worlds import SMALL, image_folder, make_index, saved_curvature, tiny_clip
from tests.tiny import LATENT_SHAPE, tiny_pipeline


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data"), 8, captions=2)


@pytest.fixture(scope="module")
def index(tmp_path_factory, tiny_model_each, data) -> Index:
    """8 records in 2 shards, once per prediction type; the last two held out."""
    return Index.open(make_index(tmp_path_factory.mktemp("made") / "index", tiny_model_each, data))


@pytest.fixture(scope="module")
def loaded(index) -> Denoiser:
    return Denoiser.load(index.model_path, device="cpu")


def test_latents_are_of_the_image_and_its_mirror_image(index, loaded):
    images = [loaded.prepare_image(index.image(row)) for row in (1, 6)]
    for flip, sides in enumerate((images, [ImageOps.mirror(image) for image in images])):
        expected = loaded.encode_images(sides).half().float()
        assert torch.allclose(index.latents([1, 6], flip), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("row", "caption", "flip", "step"), [(0, 0, 0, 0), (3, 1, 1, 2), (7, 1, 0, 3)]
)
@torch.no_grad()
def test_base_loss_of_one_cell(index, loaded, row, caption, flip, step):
    t = index.timesteps[step]
    noise = keyed_noise(
        LATENT_SHAPE, namespace="score", seed=0, record_id=index.ids([row])[0], timestep=t
    )
    noise = mirrored(noise) if flip else noise
    cond = loaded.encode_text([index.captions([row])[0][caption]])
    batch = (index.latents([row], flip), cond, noise[None], torch.tensor([t]))
    expected = loaded.loss(*batch)
    assert index.base_loss[row, caption, flip, step] == pytest.approx(float(expected), rel=1e-5)
    output, _ = loaded.predict(*batch)
    power = loaded.predicted_noise(output, batch[0], batch[2], batch[3]).square().mean()
    assert index.base_loss_eps2[row, caption, flip, step] == pytest.approx(float(power), rel=1e-5)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_model_predicts_the_noise(kind):
    denoiser = Denoiser.from_pipeline(tiny_pipeline(kind))
    z, eps = torch.randn(2, 3, *LATENT_SHAPE)
    t = torch.tensor([20, 500, 980])
    _, target = denoiser.predict(z, torch.randn(3, 8, 16), eps, t)
    assert torch.allclose(denoiser.predicted_noise(target, z, eps, t), eps, atol=1e-4)


def test_curvature_is_of_training_records_only(index, loaded):
    """The diagonal against a plain loop; EK-FAC's eigenvalues have the diagonal's trace."""
    names = parameter_names(loaded.unet, "kv")
    squares: dict[str, torch.Tensor] = {}
    cells = [(row, flip) for row in index.train_rows for flip in range(2)]
    single = [(row, flip) for row, flip in cells if len(index.captions([row])[0]) == 1]
    assert len(cells) == 12 and single
    state = saved_curvature(index, "diagonal")
    ekfac = EKFAC.from_state(saved_curvature(index, "ekfac"))
    assert int(state["count"]) == ekfac.count == 12
    for row, flip in cells:
        for name, g in _fisher_gradient(index, loaded, int(row), flip, names).items():
            squares[name] = squares.get(name, 0) + g[0].double().square() / 12
    for name, expected in squares.items():
        assert torch.allclose(
            state[name].double(), expected, rtol=1e-3, atol=1e-9 + 1e-4 * float(expected.max())
        )
        own = ekfac.values.values[name.removesuffix(".weight")]
        assert float(own.sum()) == pytest.approx(float(expected.sum()), rel=1e-4)


def _fisher_gradient(
    index: Index, denoiser: Denoiser, row: int, flip: int, names
) -> dict[str, torch.Tensor]:
    from attribution.noise import keyed_integers

    name, captions = index.ids([row])[0], index.captions([row])[0]
    noise, t = fisher_draw(LATENT_SHAPE, 1000, name, flip, 0)
    chosen = keyed_integers(
        0, len(captions), namespace="fisher", seed=0, record_id=name, draw=2 + flip
    )
    cond = denoiser.encode_text([captions[chosen]])
    batch = (index.latents([row], flip), cond, noise[None], torch.tensor([t]))
    return per_sample_gradients(denoiser, *batch, names)


def test_gradient_row_of_one_record(index, loaded):
    row, flip, names = 4, 1, parameter_names(loaded.unet, "kv")
    settings = index.manifest["gradients"]
    summed: dict[str, torch.Tensor] = {}
    for i, t in enumerate(settings["timesteps"]):
        name, captions = index.ids([row])[0], index.captions([row])[0]
        noise = keyed_noise(
            LATENT_SHAPE, namespace="train-gradient", seed=0, record_id=name, timestep=t
        )
        cond = loaded.encode_text([captions[i % len(captions)]])
        batch = (index.latents([row], flip), cond, mirrored(noise)[None], torch.tensor([t]))
        for key, g in per_sample_gradients(loaded, *batch, names).items():
            summed[key] = summed.get(key, 0) + g / len(settings["timesteps"])
    metric = DiagonalFisher.from_state(saved_curvature(index, "diagonal")).damped(
        settings["damping"]
    )
    projection = Projection(
        {k: g.shape[1:] for k, g in summed.items()}, settings["dim"], index.seed
    )
    expected = projection.apply(metric.sqrt_inv(summed))[0]
    found = torch.from_numpy(index.rows("gradients", [row])[0, flip].astype(np.float32))
    assert torch.allclose(found, expected, rtol=5e-3, atol=5e-3 * float(expected.abs().max()))


def test_shards_and_batches_change_nothing(tmp_path, tiny_model, data):
    clip = tiny_clip(tmp_path / "clip")
    one, other = (
        Index.open(make_index(tmp_path / name, tiny_model, data, "--clip", str(clip), *more))
        for name, more in (("one", ()), ("other", ("--shard-size", "3", "--batch-size", "5")))
    )
    assert len(one.manifest["shards"]) == 2 and len(other.manifest["shards"]) == 3
    assert one.all_ids == other.all_ids and one.index_hash != other.index_hash
    spread = float(np.nanstd(one.base_loss))
    assert np.nanmax(np.abs(one.base_loss - other.base_loss)) < 1e-5 * spread
    assert torch.allclose(one.latents(range(8)), other.latents(range(8)), atol=2e-3)
    for method in ("clip", "clip-text", "gradients"):
        first, second = one.rows(method).astype(np.float32), other.rows(method).astype(np.float32)
        assert np.allclose(first, second, atol=2e-3 * np.abs(first).max())
    for name in ("diagonal", "ekfac"):
        first, second = saved_curvature(one, name), saved_curvature(other, name)
        trace = [
            sum(float(v.sum()) for k, v in s.items() if "to_" in k and "q_" not in k)
            for s in (first, second)
        ]
        assert trace[0] == pytest.approx(trace[1], rel=1e-5)


def test_memory_does_not_grow_with_the_number_of_records(tmp_path, tiny_model):
    """Peak of Python, numpy and Arrow allocations while 4 and 16 records become latents."""
    _latents(tmp_path, tiny_model, 1)  # imports
    small, small_arrow = _peaks(tmp_path, tiny_model, 4)
    large, large_arrow = _peaks(tmp_path, tiny_model, 16)
    pixels = 12 * 160 * 160 * 3
    assert large - small < 0.1 * pixels and large_arrow - small_arrow < 0.1 * pixels


def _peaks(folder: Path, model: Path, count: int) -> tuple[int, int]:
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        _latents(folder, model, count)
        return tracemalloc.get_traced_memory()[1], pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(pa.system_memory_pool())


def _latents(folder: Path, model: Path, count: int) -> None:
    data = image_folder(folder / f"data{count}", count, held_out=0, side=160)
    places = ["--model", str(model), "--data", str(data), "--out", str(folder / f"out{count}")]
    assert main(["latents", *places, *SMALL, "--shard-size", "2"]) == 0


def test_each_verb_alone(tmp_path, tiny_model, data):
    out = tmp_path / "out"
    assert (
        main(
            ["latents", "--model", str(tiny_model), "--data", str(data), "--out", str(out), *SMALL]
        )
        == 0
    )
    for verb in ("losses", "features", "fisher"):
        assert main([verb, "--out", str(out), "--batch-size", "8"]) == 0
        assert not (out / "shards/00000/rows/gradients.npy").exists()
    assert main(["gradients", "--out", str(out), "--batch-size", "8"]) == 0
    assert Index.open(out).n_records == 8
