"""Shared fixtures: a tiny real pipeline saved once per session, and denoisers loaded from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attribution.denoiser import Denoiser
from tests.tiny import tiny_pipeline

torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["epsilon", "v_prediction"])
def tiny_model_each(request, tmp_path_factory) -> Path:
    """Folder of a tiny pipeline, once per prediction type."""
    return _saved(tmp_path_factory, request.param)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Folder of a tiny v-prediction pipeline."""
    return _saved(tmp_path_factory, "v_prediction")


@pytest.fixture(scope="session")
def denoiser(tiny_model) -> Denoiser:
    """Float32 denoiser on the tiny v-prediction pipeline. Shared: leave its weights as they are."""
    return Denoiser.load(tiny_model, device="cpu")


@pytest.fixture(scope="session")
def denoiser_each(tiny_model_each) -> Denoiser:
    """Float32 denoiser, once per prediction type."""
    return Denoiser.load(tiny_model_each, device="cpu")


@pytest.fixture(scope="session")
def denoiser64(tiny_model_each) -> Denoiser:
    """Float64 denoiser, once per prediction type, for comparisons with dense oracles."""
    return Denoiser.load(tiny_model_each, device="cpu", dtype=torch.float64)


def _saved(factory, prediction_type: str) -> Path:
    folder = factory.mktemp(f"tiny-{prediction_type}")
    tiny_pipeline(prediction_type).save_pretrained(folder)
    return folder
