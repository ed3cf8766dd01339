"""The tiny world and its index as fixtures, for the tests of evaluation and of benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.tiny_world import world_folder
from tests.precompute import proof_world
from tests.precompute.worlds import make_index


@pytest.fixture(scope="session")
def tiny_world(tiny_model, tmp_path_factory) -> Path:
    """Records, model and CLIP of 16 px. Shared: write results elsewhere."""
    return world_folder(tmp_path_factory.mktemp("world") / "tiny", tiny_model)


@pytest.fixture(scope="session")
def tiny_index(tiny_world, tmp_path_factory) -> Path:
    """The index of the tiny world, by the command itself. Shared: write results elsewhere."""
    out = tmp_path_factory.mktemp("index") / "tiny"
    return make_index(out, tiny_world / "model", tiny_world)


@pytest.fixture(scope="session")
def proof(tmp_path_factory) -> Path:
    """The index of a tiny trained world, made to be retrained. Shared: write results elsewhere."""
    return proof_world.proof_index(tmp_path_factory.mktemp("proof"))
