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
from safetensors import safe_open

from attribution import layout
from attribution.costs import cost
from attribution.denoiser import Denoiser
from attribution.ekfac import EKFAC
from attribution.fisher import DiagonalFisher, fisher_draw
from attribution.gradients import trainable
from attribution.index import Index
from attribution.methods.needs import curvature_path
from attribution.methods.registry import METHODS, Context, why_not
from attribution.noise import keyed_noise, mirrored
from attribution.types import Attribution, Query, UserError
from attribution.unlearning import applied
from attribution.weights import parameter_names
from precompute.__main__ import main
from precompute.fisher import caption_drawn
from precompute.sampled import Sampled, chosen, save
from tests.precompute.worlds import image_folder, make_index, saved_curvature
from tests.tiny import LATENT_SHAPE, tiny_images

DIAGONAL_KV = layout.curvature_file("diagonal", "kv", "loss")


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
        caption = captions[caption_drawn(len(captions), name, flip, 0)]
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
    state = saved_curvature(Index.open(world), "diagonal")
    extra = DiagonalFisher.from_state(
        torch_load(world / layout.curvature_file("diagonal", "kv", "loss"))
    )
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


def test_the_cores_ekfac_is_made_from_the_same_samples(world):
    """Keys and values of all samples: the index's own EK-FAC, but for the order of sums."""
    assert variant(world, "--curvature", "ekfac") == 0
    core = EKFAC.from_state(saved_curvature(Index.open(world), "ekfac"))
    extra = EKFAC.from_state(torch_load(world / layout.curvature_file("ekfac", "kv", "loss")))
    assert extra.count == core.count == 10 and not extra.rest.values
    generator = torch.Generator().manual_seed(0)
    shapes = {f"{name}.weight": value.shape for name, value in core.values.values.items()}
    query = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    mine, theirs = (one.damped(0.1).solve(query) for one in (extra, core))
    for name in query:
        scale = float(theirs[name].abs().max())
        assert torch.allclose(mine[name], theirs[name], atol=1e-3 * scale), name


def test_ekfac_of_all_weights_serves_its_method(world):
    """Its own needs, its own answer, and the diagonal for biases and norms."""
    index = Index.open(world)
    context = Context(Denoiser.load(index.model_path, device="cpu"), index)
    method = METHODS["abu-ekfac-full"]
    why = "EK-FAC of all weights: run `python -m precompute variants"
    assert f"{why} --out {world} --curvature ekfac --weights full`" in why_not(method, context)
    assert variant(world, "--curvature", "ekfac", "--weights", "full") == 0
    context.index = index = Index.open(world)
    assert why_not(method, context) == ""
    own, wide = (context.curvature("ekfac", weights) for weights in ("kv", "full"))
    assert isinstance(own, EKFAC) and isinstance(wide, EKFAC)
    names = parameter_names(context.denoiser.unet, "full")
    biases = {name for name in names if context.denoiser.unet.get_parameter(name).ndim == 1}
    assert set(wide.rest.values) == biases and not own.rest.values
    expected = looped(index, "full", "loss")
    for name in biases:
        scale = float(expected[name].max())
        found = wide.rest.values[name].double()
        assert torch.allclose(found, expected[name], rtol=1e-3, atol=1e-5 * scale), name
    found = answer(context, "abu-ekfac-full")
    assert found.params["weight_set"] == "full" and np.isfinite(found.scores).all()
    assert not np.array_equal(found.scores, answer(context, "abu-ekfac").scores)
    steps = cost(index, "unlearning", method.needs).seconds
    assert steps["ekfac-full-loss"] > 0 and "fisher" not in steps


def test_kfac_of_attention_serves_its_method_as_that_of_all_weights_does(world):
    """A wider one has the numbers of the narrower; traces and biases are those of a plain loop."""
    index = Index.open(world)
    context = Context(Denoiser.load(index.model_path, device="cpu"), index)
    method = METHODS["abu-kfac"]
    why = f"run `python -m precompute variants --out {world} --curvature kfac --weights attn`"
    assert why_not(method, context) == f"this index has no K-FAC of attn weights: {why}"
    assert variant(world, "--curvature", "kfac", "--weights", "full") == 0
    wide = answer(Context(context.denoiser, Index.open(world)), "abu-kfac")
    assert variant(world, "--curvature", "kfac", "--weights", "attn") == 0
    assert world / layout.curvature_file("kfac", "attn", "loss") == curvature_path(
        Index.open(world), "kfac", "attn", "loss"
    )
    context.index = index = Index.open(world)
    found = answer(context, "abu-kfac")
    assert found.params["weight_set"] == "attn" and found.params["curvature"] == "kfac"
    assert np.allclose(found.scores, wide.scores, rtol=1e-4, atol=1e-9)
    curvature = context.curvature("kfac", "attn")
    names = parameter_names(context.denoiser.unet, "attn")
    assert isinstance(curvature, EKFAC) and set(curvature.rest.values) == {
        name for name in names if context.denoiser.unet.get_parameter(name).ndim == 1
    }
    for name, squares in looped(index, "attn", "loss").items():
        if squares.ndim == 2:
            trace = float(curvature.values.values[name.removesuffix(".weight")].sum())
            assert trace == pytest.approx(float(squares.sum()), rel=1e-3)
        else:
            scale = float(squares.max())
            rest = curvature.rest.values[name].double()
            assert torch.allclose(rest, squares, rtol=1e-3, atol=1e-5 * scale), name
    assert cost(index, "unlearning", method.needs).seconds["kfac-attn-loss"] > 0


def test_fewer_samples_are_a_part_of_all(made):
    index = Index.open(made)
    some, every = chosen(index, 4), chosen(index, 99)
    assert len(every) == 10 and len(some) == 4 and set(some) < set(every)
    assert some == sorted(some) == chosen(index, 4)
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


@pytest.mark.parametrize(
    ("curvature", "weights", "number"),
    [("diagonal", "full", 1), ("ekfac", "attn", 1), ("ekfac", "full", 2), ("kfac", "attn", 1)],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    world, tmp_path, monkeypatch, capsys, curvature, weights, number
):
    monkeypatch.setattr(Sampled, "at_once", 2)
    monkeypatch.setattr(Sampled, "part", 2)
    options = ["--curvature", curvature, "--weights", weights]
    whole = shutil.copytree(world, tmp_path / "whole")
    assert variant(whole, *options) == 0
    step = layout.curvature_step(curvature, weights, "loss")
    partial = world / "extras" / f"{step}.partial"
    arguments = ["variants", "--out", str(world), *options]
    process = multiprocessing.get_context("fork").Process(target=main, args=(arguments,))
    process.start()
    deadline = time.monotonic() + 60
    while process.is_alive() and time.monotonic() < deadline and passed(partial) < number:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert partial.is_file()
    index = Index.open(world)  # begun, so noted; not there, so not offered
    assert index.extra(step)
    assert "run `" in Context(None, index).lacks(f"curvature:{curvature}:{weights}")
    capsys.readouterr()
    assert main(arguments) == 0
    assert int(capsys.readouterr().out.split(": ")[1].split()[0]) < 10
    name = layout.curvature_file(curvature, weights, "loss")
    assert (world / name).read_bytes() == (whole / name).read_bytes()
    assert not partial.exists()


def passed(partial: Path) -> int:
    """Which pass the kept sums are of; 0 for none."""
    try:
        with safe_open(partial, "pt") as file:
            return int(file.metadata()["pass"])
    except (OSError, RuntimeError):  # not there, or just being replaced
        return 0


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
    path = world / DIAGONAL_KV
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


def test_what_is_synced_is_open_for_writing(tmp_path, monkeypatch):
    """Windows refuses to sync a file that is open for reading alone."""

    def sync(handle: int, of=os.fsync) -> None:
        os.write(handle, b"")  # fails where it may not be written
        of(handle)

    monkeypatch.setattr(os, "fsync", sync)
    save(tmp_path / "a.safetensors", {"a": torch.ones(2)})
    assert (tmp_path / "a.safetensors").is_file()
