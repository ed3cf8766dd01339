"""Extra curvature: the core's own numbers where it is the same, loops where it is not; kills."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from attribution import layout
from attribution.costs import cost
from attribution.denoiser import Denoiser
from attribution.fisher import DiagonalFisher, fisher_draw
from attribution.gradients import trainable
from attribution.index import Index
from attribution.methods.registry import METHODS, Context, why_not
from attribution.noise import keyed_noise, mirrored
from attribution.types import Attribution, Query, UserError
from attribution.unlearning import applied
from attribution.weights import parameter_names
from precompute import variants
from precompute.__main__ import main
from tests.precompute.worlds import image_folder, make_index
from tests.tiny import LATENT_SHAPE, tiny_images


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model) -> Path:
    """6 records in 2 shards, the last held out: 10 (record, flip) pairs."""
    folder = tmp_path_factory.mktemp("variants")
    data = image_folder(folder / "data", 6, captions=2, held_out=1)
    return make_index(folder / "index", tiny_model, data)


@pytest.fixture
def world(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "index")


def variant(out: Path, *more: str) -> int:
    return main(["variants", "--out", str(out), *more])


def fisher(out: Path, weights: str, objective: str = "loss") -> DiagonalFisher:
    index = Index.open(out, "full")
    context = Context(Denoiser.load(index.model_path, device="cpu"), index)
    found = context.curvature("diagonal", weights, objective)
    assert isinstance(found, DiagonalFisher)
    return found


def test_a_method_costs_the_fisher_it_reads(world):
    needs = {name: METHODS[name].needs for name in ("abu", "abu-attn", "abu-eps2", "abu-sgd")}
    assert variant(world, "--weights", "attn") == variant(world, "--objective", "eps2") == 0
    index = Index.open(world)
    own = {name: cost(index, "unlearning", some).seconds for name, some in needs.items()}
    core = set(own["abu-sgd"])
    assert {name: set(steps) - core for name, steps in own.items()} == {
        "abu": {"fisher"}, "abu-attn": {"fisher-attn-loss"}, "abu-eps2": {"fisher-kv-eps2"},
        "abu-sgd": set(),
    }  # fmt: skip
    assert own["abu-attn"]["fisher-attn-loss"] > 0 < own["abu-eps2"]["fisher-kv-eps2"]


def looped(index: Index, weights: str, objective: str) -> dict[str, torch.Tensor]:
    """E[g²] one record at a time, from the bare UNet."""
    denoiser = Denoiser.load(index.model_path, device="cpu")
    names = parameter_names(denoiser.unet, weights)
    total = dict.fromkeys(names, 0.0)
    cells = [(int(row), flip) for row in index.train_rows for flip in (0, 1)]
    for row, flip in cells:
        name, captions = index.ids([row])[0], index.captions([row])[0]
        noise, t = fisher_draw(denoiser.latent_shape, 1000, name, flip, 0)
        caption = captions[variants.caption_drawn(len(captions), name, flip, 0)]
        z, cond, step = index.latents([row], flip), denoiser.encode_text([caption]), torch.tensor(t)
        bar = denoiser.scheduler.alphas_cumprod[t]
        x_t = bar.sqrt() * z + (1 - bar).sqrt() * noise
        with trainable(denoiser.unet, names) as parameters:
            v = denoiser.unet(x_t, step, cond).sample
            if objective == "eps2":
                value = (bar.sqrt() * v + (1 - bar).sqrt() * x_t).square().mean()
            else:
                value = (v - (bar.sqrt() * noise - (1 - bar).sqrt() * z)).square().mean()
            gradients = torch.autograd.grad(value, parameters)
        for parameter, g in zip(names, gradients, strict=True):
            total[parameter] = total[parameter] + g.double().square() / len(cells)
    return total


def test_all_samples_of_the_cores_weights_give_the_cores_numbers(world):
    assert variant(world) == 0
    state = Index.open(world).curvature("diagonal")
    extra = DiagonalFisher.from_state(torch_load(world / layout.fisher_file("kv", "loss")))
    assert extra.count == int(state["count"]) == 10
    for name, values in extra.values.items():
        scale = float(state[name].max())
        assert torch.allclose(values, state[name], rtol=1e-4, atol=1e-6 * scale)


def torch_load(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.parametrize(("weights", "objective"), [("full", "loss"), ("kv", "eps2")])
def test_it_is_the_mean_square_of_a_plain_loop(world, weights, objective):
    before = Index.open(world).index_hash
    assert variant(world, "--weights", weights, "--objective", objective) == 0
    found = fisher(world, weights, objective)
    for name, expected in looped(Index.open(world), weights, objective).items():
        scale = float(expected.max())
        assert torch.allclose(found.values[name].double(), expected, rtol=1e-3, atol=1e-5 * scale)
    assert Index.open(world).index_hash == before


def test_fewer_samples_are_a_part_of_all(made):
    index = Index.open(made)
    some, every = variants.chosen(index, 4), variants.chosen(index, 99)
    assert len(every) == 10 and len(some) == 4 and set(some) < set(every)
    assert some == sorted(some) == variants.chosen(index, 4)
    assert not {row for row, _ in every} & set(index.held_out_rows.tolist())


def test_a_wider_set_serves_the_narrower_ones_and_the_command_is_named(world):
    index = Index.open(world)
    context = Context(Denoiser.load(index.model_path, device="cpu"), index)
    for method, options in (("abu-full", "--weights full"), ("abu-attn", "--weights attn"),
                            ("abu-crossattn", "--weights cross-attn"),
                            ("abu-eps2", "--objective eps2")):  # fmt: skip
        why = why_not(METHODS[method], context)
        assert why.endswith(f"run `python -m precompute variants --out {world} {options}`")
    assert variant(world, "--weights", "full", "--samples", "4") == 0
    context.index = Index.open(world)
    for method in ("abu-full", "abu-attn", "abu-crossattn"):
        assert why_not(METHODS[method], context) == ""
    assert "squared output" in why_not(METHODS["abu-eps2"], context)
    with pytest.raises(UserError, match="squared output of keys and values: run"):
        context.curvature("diagonal", "kv", "eps2")
    assert set(parameter_names(context.denoiser.unet, "attn")) < set(
        context.curvature("diagonal", "attn").values
    )


def test_a_killed_run_goes_on_to_the_same_bytes(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(variants, "PART", 2)
    whole = shutil.copytree(world, tmp_path / "whole")
    assert variant(whole, "--weights", "full") == 0
    partial = world / "extras" / "fisher-full-loss.partial"
    arguments = ["variants", "--out", str(world), "--weights", "full"]
    process = multiprocessing.get_context("fork").Process(target=main, args=(arguments,))
    process.start()
    deadline = time.monotonic() + 60
    while not partial.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert partial.is_file()
    index = Index.open(world)  # begun, so noted; not there, so not offered
    assert index.extra("fisher-full-loss") and "run `" in Context(None, index).lacks("weights:full")
    capsys.readouterr()
    assert main(arguments) == 0
    assert int(capsys.readouterr().out.split(": ")[1].split()[0]) < 10
    name = layout.fisher_file("full", "loss")
    assert (world / name).read_bytes() == (whole / name).read_bytes()
    assert not partial.exists()


QUERY = Query("ab by 2", tiny_images(3)[2], seed=1)
SMALL = {"relative_increase": 0.01, "stride": 250, "draws": 2}


def answer(context: Context, name: str) -> Attribution:
    *_, found = METHODS[name].build(context).run(QUERY, k=2, exhaustive=True, **SMALL)
    return found


@torch.no_grad()
def test_the_squared_output_is_tracked_against_its_own_base(world):
    """τ = E(z, θ−) − E(z, θ0) of one record, from the bare UNet."""
    assert variant(world, "--objective", "eps2") == 0
    index = Index.open(world)
    denoiser = Denoiser.load(index.model_path, device="cpu")
    context = Context(denoiser, index)
    found = answer(context, "abu-eps2")
    assert found.params["objective"] == "eps2" and 0 < context.floor("eps2") < 1e-5
    with torch.enable_grad():
        *_, unlearned = METHODS["abu-eps2"].build(context).unlearn(QUERY, **SMALL)
    row, place = int(found.rows[0]), 0
    caption, flip, column = 0, int(found.flip[place]), 1
    t = index.timesteps[column]
    noise = keyed_noise(LATENT_SHAPE, namespace="score", seed=0, record_id=found.ids[0], timestep=t)
    noise = mirrored(noise) if flip else noise
    bar = denoiser.scheduler.alphas_cumprod[t]
    x_t = bar.sqrt() * index.latents([row], flip) + (1 - bar).sqrt() * noise
    cond = denoiser.encode_text([index.captions([row])[0][caption]])

    def energy() -> float:
        v = denoiser.unet(x_t, torch.tensor([t]), cond).sample
        return float((bar.sqrt() * v + (1 - bar).sqrt() * x_t).square().mean())

    before = energy()
    with applied(denoiser, unlearned.delta):
        after = energy()
    assert index.base_loss_eps2[row, caption, flip, column] == pytest.approx(before, rel=1e-5)
    assert found.cells[place, caption, flip, column] == pytest.approx(after - before, abs=2e-6)
    assert abs(after - before) > 1e-5


def test_the_wide_ablations_answer_from_an_extra_fisher(world):
    assert variant(world, "--weights", "full", "--samples", "6") == 0
    index = Index.open(world)
    context = Context(Denoiser.load(index.model_path, device="cpu"), index)
    seen = []
    for name in ("abu", "abu-crossattn", "abu-attn", "abu-full"):
        found = answer(context, name)
        assert sorted(found.rows) == index.train_rows.tolist() and np.isfinite(found.scores).all()
        seen.append(tuple(found.scores))
    assert len(set(seen)) == 4


def test_again_other_settings_and_damage(world, capsys):
    assert variant(world, "--samples", "4") == 0
    path = world / layout.fisher_file("kv", "loss")
    stamp, content = path.stat().st_mtime_ns, path.read_bytes()
    assert variant(world, "--samples", "4") == 0 and path.stat().st_mtime_ns == stamp
    assert variant(world, "--samples", "6") == 2
    assert "begun with 4, now 6" in capsys.readouterr().err
    assert variant(world, "--samples", "6", "--rebuild") == 0
    assert variant(world, "--samples", "4", "--rebuild") == 0 and path.read_bytes() == content
    path.write_bytes(content[:-8])
    with pytest.raises(UserError, match=r"truncated.*precompute variants .*--samples 4 --out"):
        Index.open(world)
    assert variant(world, "--samples", "4") == 0 and path.read_bytes() == content
    assert variant(world, "--samples", "0") == 2
