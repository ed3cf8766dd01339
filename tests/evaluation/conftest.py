"""One tiny world for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.tiny_world import world_folder


@pytest.fixture(scope="session")
def tiny_world(tiny_model, tmp_path_factory) -> Path:
    """Records, model and CLIP of 16 px. Shared: write results elsewhere."""
    return world_folder(tmp_path_factory.mktemp("world") / "tiny", tiny_model)
