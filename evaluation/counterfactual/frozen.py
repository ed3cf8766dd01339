"""EDGE: the settings each method is compared with: chosen by `evaluation tune`, then left alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attribution.types import UserError

PATH = Path("evaluation/frozen.json")


def read(path: Path) -> dict[str, str]:
    """Method → arm as written; empty where nothing is frozen. UserError for a file that cannot be
    read."""
    return dict(note(path).get("settings", {}))


def note(path: Path) -> dict[str, Any]:
    """The whole file."""
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    return found


def write(path: Path, settings: Mapping[str, str], chosen: Mapping[str, Any]) -> None:
    """Settings, and how they were chosen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    text = json.dumps({"settings": dict(sorted(settings.items())), "chosen": chosen}, indent=2)
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)
