"""Checks of user input: each returns the clean value or raises UserError with one line."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from PIL import Image

from attribution.images import ImageSource, read_image
from attribution.types import Region, UserError

MAX_PROMPT = 1000
MAX_SEED = 2**32 - 1
MAX_REGIONS = 16


def prompt(text: object) -> str:
    """A prompt of 1 to 1,000 characters; white space collapsed, control characters dropped."""
    if not isinstance(text, str):
        raise UserError("the prompt has to be text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError("the prompt is not valid Unicode text") from None
    spaced = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    clean = " ".join(spaced.split())
    if not clean:
        raise UserError("the prompt is empty: type what the picture shows")
    if len(clean) > MAX_PROMPT:
        raise UserError(f"the prompt has {len(clean):,} characters; the limit is {MAX_PROMPT:,}")
    return clean


def seed(value: object) -> int:
    """A whole number from 0 to 2**32 - 1."""
    return _whole(value, "the seed", 0, MAX_SEED)


def top_k(value: object, n_train: int) -> int:
    """A whole number from 1 to the number of training records."""
    return _whole(value, "top-k", 1, n_train)


def _whole(value: object, name: str, low: int, high: int) -> int:
    number = value
    if isinstance(number, str) and number.strip().lstrip("+-").isdecimal():
        number = int(number) if len(number) < 40 else math.inf
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= high:
        raise UserError(
            f"{name} has to be a whole number from {low} to {high}, not {_short(value)}"
        )
    return number


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def box(values: Sequence[Any], size: tuple[int, int]) -> Region:
    """A box x0, y0, x1, y1 in pixels that lies inside an image of `size` (width, height)."""
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 4 or not all(math.isfinite(v) for v in numbers):
        raise UserError(f"a region is x0,y0,x1,y1 in pixels, not {_short(values)}")
    x0, y0, x1, y1 = numbers
    width, height = size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise UserError(
            f"the region {x0:g},{y0:g},{x1:g},{y1:g} has to satisfy 0 <= x0 < x1 <= {width} "
            f"and 0 <= y0 < y1 <= {height}"
        )
    return Region((x0, y0, x1, y1))


def regions(boxes: Iterable[Sequence[Any]] | None, size: tuple[int, int]) -> tuple[Region, ...]:
    """Up to 16 boxes; none means the whole picture."""
    checked = tuple(box(values, size) for values in boxes or ())
    if len(checked) > MAX_REGIONS:
        raise UserError(f"{len(checked)} regions; the limit is {MAX_REGIONS}")
    return checked


def mask(source: ImageSource, size: tuple[int, int]) -> Image.Image:
    """A mask image of the query's size, white where the region is, as 8-bit grey; not all black."""
    grey = read_image(source).convert("L")
    if grey.size != size:
        raise UserError(
            f"the mask is {grey.width} x {grey.height} px, the picture {size[0]} x {size[1]}"
        )
    if grey.getextrema()[1] == 0:
        raise UserError("the mask is empty: paint the region white")
    return grey


def methods(names: object, known: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of methods that this index can run, each once; a comma-separated string or a sequence.

    `known` maps every name to an entry with `available` (bool) and `why` (str).
    """
    parts = names.split(",") if isinstance(names, str) else names
    if not isinstance(parts, Iterable):
        raise UserError("methods has to be a list of names")
    wanted = tuple(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))
    if not wanted:
        raise UserError("no method given: try abu")
    for name in wanted:
        if name not in known:
            raise UserError(f"unknown method {_short(name)}; there are {', '.join(known)}")
        if not known[name]["available"]:
            raise UserError(f"method {name}: {known[name]['why']}")
    return wanted


def steps(value: object, most: int) -> int:
    """Sampling steps, 1 to the model's training timesteps."""
    return _whole(value, "the number of steps", 1, most)


def guidance(value: object) -> float:
    """A guidance scale from 1 (none) to 30."""
    return _number(value, "the guidance scale", 1.0, 30.0)


def strength(value: object) -> float:
    """A relative loss increase from 0 to 10."""
    return _number(value, "a strength of forgetting", 0.0, 10.0)


def _number(value: object, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(f"{name} has to be a number from {low:g} to {high:g}, not {_short(value)}")
    return float(value)
