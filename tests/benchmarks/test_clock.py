"""The clock inside the UNet tells scoring from the rest, and leaves the model as it was."""

from __future__ import annotations

import torch

from benchmarks import boot, speed
from benchmarks.unet_clock import clocked


def test_scoring_is_told_from_other_forwards(denoiser):
    z = torch.randn(3, *denoiser.latent_shape)
    cond, t = denoiser.encode_text(["a", "b", "c"]), torch.tensor([100, 200, 300])
    unet = denoiser.unet
    hooks = [*unet._forward_pre_hooks, *unet._forward_hooks]
    with clocked(unet) as clock:
        with torch.inference_mode():
            denoiser.loss(z, cond, z, t)
        with torch.no_grad():
            denoiser.loss(z[:1], cond[:1], z[:1], t[:1])
            denoiser.loss(z[:1], cond[:1], z[:1], t[:1])
    assert clock.calls == {"scoring": 1, "other": 2}
    assert clock.samples == {"scoring": 3, "other": 2}
    assert min(clock.seconds.values()) > 0
    assert [*unet._forward_pre_hooks, *unet._forward_hooks] == hooks


def test_the_share_of_scoring_and_the_medians_are_reported():
    unit = {
        "generate": 5.0,
        "attribute": 10.0,
        "stages": {"unlearn": 2.0, "score": 8.0},
        "unet": {"scoring": 7.2, "other": 1.0},
        "calls": {"scoring": 9, "other": 3},
        "samples": {"scoring": 720, "other": 30},
        "candidates": 512,
        "candidate_source": "shortlist",
        "evaluated_cells": 720,
        "peak_mib": 900,
    }
    summary = speed.summarise({"settings": {}}, [unit])
    assert [figure.passed for figure in summary.figures] == [None, None, True, None]
    assert ("score", "8.00", "80%") in summary.table
    assert "100 UNet forwards a second while scoring, in float32" in summary.notes[0]
    raced = unit | {"finalists": 64, "precision": "bfloat16", "peak_gpu_mib": 12}
    summary = speed.summarise({"settings": {}}, [raced])
    assert "(shortlist), 64 to the end" in summary.notes[0] and "bfloat16" in summary.notes[0]
    assert summary.figures[3].value == "900 MiB, GPU 12 MiB"


def test_a_free_port_can_be_bound():
    assert 1024 <= boot.free_port() < 65536
