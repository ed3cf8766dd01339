"""One tiny GroundingDINO for all tests here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny_detector import tiny_detector


@pytest.fixture(scope="session")
def detector_folder(tmp_path_factory) -> Path:
    return tiny_detector(tmp_path_factory.mktemp("detector"))
