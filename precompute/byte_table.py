"""`python -m precompute bytes [--root assets]`: what every part of a folder weighs, as a Markdown
table.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from attribution.types import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--root", type=Path, default=Path("assets"), help="default assets")


def run(args: argparse.Namespace) -> None:
    """Print the table."""
    print(table(args.root))


def weights(root: Path) -> dict[str, int]:
    """Bytes by part: files of all shards summed by name, other folders by their first two levels;
    caches left out.
    """
    if not root.is_dir():
        raise UserError(f"no folder {root}")
    total: Counter[str] = Counter()
    for path in root.rglob("*"):
        if path.is_file() and not path.name.endswith(".part"):
            total[_part(path.relative_to(root))] += path.stat().st_size
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def _part(path: Path) -> str:
    """openclipart/shards/00003/rows/clip.npy → openclipart/shards/*/rows/clip.npy"""
    parts = list(path.parts)
    if "shards" in parts[:-1]:
        parts[parts.index("shards") + 1] = "*"
        return "/".join(parts)
    return "/".join(parts[:3]) + ("/" if len(parts) > 3 else "")


def table(root: Path) -> str:
    """The Markdown table, greatest first, with the sum."""
    found = weights(root)
    lines = ["| part | bytes | MB |", "|---|---:|---:|"]
    lines += [f"| {name} | {size:,} | {size / 1e6:.2f} |" for name, size in found.items()]
    total = sum(found.values())
    return "\n".join([*lines, f"| **all** | **{total:,}** | **{total / 1e6:.2f}** |"])
