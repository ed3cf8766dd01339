"""Detectors by name, for the page, the API and the command line alike. A new one is one entry.

>>> setup = Setup(denoiser, own=index.encoder("detector"))
>>> choose("auto", setup)
'grounding-dino'
>>> DETECTORS["attention"].build(setup).detect(image, "a stop sign")
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attribution.denoiser import Denoiser
from attribution.detection import attention, groundingdino_py
from attribution.detection.grounding_dino import HUB_ID, GroundingDino, cached, hub_allowed
from attribution.detection.groundingdino_py import GroundingDinoPy
from attribution.detection.protocol import Detector
from attribution.types import UserError

ENCODER = "detector"  # the index's own GroundingDINO, below encoders/
AUTO = "auto"
DEFAULT = "WHENCE_DETECTOR"  # environment: the detector that "auto" means
SOURCE = "WHENCE_GROUNDING_DINO"  # environment: a folder or hub id for the two grounding-dino ones


@dataclass(frozen=True)
class Setup:
    """What detectors are built from; own: the index's detector, a folder or hub id, with its
    revision on the hub.
    """

    denoiser: Denoiser
    own: Path | str | None = None
    own_revision: str | None = None

    @property
    def hub(self) -> str:
        """The published model, or what the environment names in its place."""
        return os.environ.get(SOURCE) or HUB_ID

    @property
    def source(self) -> tuple[Path | str, str | None]:
        """What `grounding-dino` opens: the environment's choice, the index's own, else the hub's.

        As (folder or hub id, revision).
        """
        if self.own is not None and not os.environ.get(SOURCE):
            return self.own, self.own_revision
        return self.hub, None


@dataclass(frozen=True)
class Entry:
    """A detector as listed. lacks: why it cannot be used here, in a line, "" where it can; it asks
    no network.
    """

    name: str
    title: str
    explanation: str
    source: str
    lacks: Callable[[Setup], str]
    build: Callable[[Setup], Detector]


def _lacks_source(source: Path | str, revision: str | None = None) -> str:
    if str(source).startswith(("/", ".", "~")) and not Path(source).is_dir():
        return f"there is no folder {source}"
    if Path(source).is_dir() or cached(str(source), revision) or hub_allowed():
        return ""
    return f"{source} is not in the hub's cache, and this process may not ask the hub"


_PAPER = "Liu et al. 2023, Grounding DINO"
_ENTRIES = (
    Entry(
        "grounding-dino",
        "GroundingDINO",
        "Finds what the words name. With an index that ships its own small model, that one; else "
        "the published one.",
        _PAPER,
        lambda setup: _lacks_source(*setup.source),
        lambda setup: GroundingDino(setup.source[0], setup.denoiser.device, setup.source[1]),
    ),
    Entry(
        "grounding-dino-tiny",
        "GroundingDINO tiny, published",
        "The published model, for photographs: 690 MB, downloaded when first used.",
        _PAPER,
        lambda setup: _lacks_source(setup.hub),
        lambda setup: GroundingDino(setup.hub, setup.denoiser.device),
    ),
    Entry(
        groundingdino_py.GroundingDinoPy.name,
        "GroundingDINO, the authors' package",
        "The authors' own code and weights, where they are installed.",
        _PAPER,
        lambda setup: groundingdino_py.lacking(),
        lambda setup: GroundingDinoPy(device=setup.denoiser.device),
    ),
    Entry(
        attention.NAME,
        "The model's own attention",
        "Which part of the picture looked at a word of its prompt while the model drew it.",
        "Tang et al. 2023, What the DAAM",
        lambda setup: "",
        lambda setup: attention.Attention(setup.denoiser),
    ),
)
DETECTORS: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def listed(setup: Setup) -> list[dict[str, Any]]:
    """Every detector as {name, title, explanation, source, available, why, default}."""
    default = choose(AUTO, setup, check=False)
    found = []
    for entry in DETECTORS.values():
        why = entry.lacks(setup)
        told = {key: getattr(entry, key) for key in ("name", "title", "explanation", "source")}
        found.append({**told, "available": not why, "why": why, "default": entry.name == default})
    return found


def choose(name: object, setup: Setup, *, check: bool = True) -> str:
    """The detector that a name means, "auto" and "" being the environment's choice, else the first
    that can be used. UserError for one that is unknown or, with `check`, cannot be used: where the
    environment names a model that is not there, no other takes its place.
    """
    if name in (None, "", AUTO):
        usable = next(e.name for e in DETECTORS.values() if not e.lacks(setup))
        named = _ENTRIES[0].name if os.environ.get(SOURCE) else usable
        name = os.environ.get(DEFAULT) or named
    if not isinstance(name, str) or name not in DETECTORS:
        raise UserError(f"unknown detector {str(name)[:40]!r}; there are {', '.join(DETECTORS)}")
    if check and (why := DETECTORS[name].lacks(setup)):
        raise UserError(f"detector {name}: {why}")
    return name
