"""The recipe's tables of words, kept as CSV beside the code: what a reader may correct by hand.

`subjects.csv`    what a drawing shows, where its title is not English, is a code or names a
                  collection; found by file name first, then by title
`artists.csv`     other spellings of an artist's name, lower case → the one used
`noise.csv`       keywords that say nothing: folders, boilerplate, words too wide
`exclusions.csv`  regular expressions searched in "/" + id, each under the rule it belongs to
"""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "tables"


def _rows(name: str) -> list[list[str]]:
    with (FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


@cache
def subjects_by_file() -> dict[str, str]:
    """File name without folder and suffix → subject."""
    return {key: subject for of, key, subject in _rows("subjects.csv") if of == "file name"}


@cache
def subjects_by_title() -> dict[str, str]:
    """Title, lower case → subject."""
    return {key: subject for of, key, subject in _rows("subjects.csv") if of == "title"}


@cache
def artist_spellings() -> dict[str, str]:
    """Spelling, lower case → the artist's name."""
    return dict(_rows("artists.csv"))


@cache
def noise() -> frozenset[str]:
    """Keywords never used in a caption."""
    return frozenset(row[0] for row in _rows("noise.csv"))


@cache
def exclusions() -> dict[str, re.Pattern[str]]:
    """Rule, in the order in which they are tried → one pattern over all of its rows."""
    patterns: dict[str, list[str]] = {}
    for rule, pattern in _rows("exclusions.csv"):
        patterns.setdefault(rule, []).append(pattern)
    return {rule: re.compile("|".join(each)) for rule, each in patterns.items()}
