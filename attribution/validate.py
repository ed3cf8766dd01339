"""Checks of user input: each returns the clean value or raises UserError with one line."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image

from attribution import defaults
from attribution.images import ImageSource, read_image
from attribution.numbers import is_whole
from attribution.types import Region, UserError

MAX_PROMPT = 1000
MAX_SEED = 2**32 - 1
MAX_REGIONS = 16
SIDES = ("left", "top", "right", "bottom")
# Thinner than this (px), a box is a slip of the hand; rounding would soon empty it.
MIN_SIDE = 0.01
# A mask without a pixel this bright (of 255) is a black one that went through a lossy format.
MASK_WHITE = 128


def listed(text: str) -> list[str]:
    """The parts of 'a, b,c', trimmed; empty ones are dropped."""
    return [part.strip() for part in text.split(",") if part.strip()]


def whole_numbers(text: str) -> list[int]:
    """'150, 450,750' as whole numbers, for argparse too; ValueError for others."""
    return [int(part) for part in listed(text)]


def prompt(text: object) -> str:
    """A prompt of 1 to 1,000 characters; white space collapsed, control characters dropped."""
    clean = _text(text, "the prompt")
    if not clean:
        raise UserError("the prompt is empty: type what the picture shows")
    return clean


def called(text: object, regions: bool = True) -> str:
    """What a region shows, in words of its own, as a prompt; "" and None are none. regions: whether
    there are any, without which words of their own are refused.
    """
    words = "" if text is None else _text(text, "what the region is called")
    if words and not regions:
        raise UserError(f"there is no region to be called {words[:40]!r}: draw or name one")
    return words


def _text(text: object, name: str) -> str:
    if not isinstance(text, str):
        raise UserError(f"{name} has to be text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"{name} is not valid Unicode text") from None
    spaced = "".join(" " if unicodedata.category(c) == "Cc" else c for c in text)
    clean = " ".join(spaced.split())
    if len(clean) > MAX_PROMPT:
        raise UserError(f"{name} has {len(clean):,} characters; the limit is {MAX_PROMPT:,}")
    return clean


def seed(value: object) -> int:
    """A whole number from 0 to 2**32 - 1."""
    return _whole(value, "the seed", 0, MAX_SEED)


def top_k(value: object, n_train: int, name: str = "top-k") -> int:
    """A whole number from 1 to the number of training records; name: what it is asked as."""
    return _whole(value, name, 1, n_train)


def _whole(value: object, name: str, low: int, high: int) -> int:
    number = value
    if isinstance(number, str) and re.fullmatch(r"\s*[+-]?\d{1,39}\s*", number):
        number = int(number)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not is_whole(number) or not low <= number <= high:
        raise UserError(f"{name} has to be a whole number from {low} to {high}{_not(value)}")
    return number


def _not(value: object) -> str:
    """How a sentence on what has to be there ends. None: of a field that is empty, or holds what is
    no number at all."""
    empty = value is None or (isinstance(value, str) and not value.strip())
    return ": type one" if empty else f", not {_short(value)}"


def _short(value: object) -> str:
    """As it was typed, a sequence with commas."""
    if isinstance(value, list | tuple):
        text = ",".join(map(str, value))
    else:
        text = value if isinstance(value, str) else repr(value)
    text = text or repr(text)
    return text if len(text) <= 40 else text[:37] + "..."


def box(values: object, size: tuple[int, int]) -> Region:
    """A box x0, y0, x1, y1 in pixels, clipped to an image of `size` (width, height)."""
    numbers = _corners(values)
    if numbers is None:
        raise UserError(_no_box(values))
    x0, y0, x1, y1 = numbers
    name, (width, height) = f"the region {x0:g},{y0:g},{x1:g},{y1:g}", size
    if not (x0 < x1 and y0 < y1):
        raise UserError(
            f"{name} is empty: its left has to be below its right, and its top below its bottom"
        )
    x0, y0, x1, y1 = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if not (x0 < x1 and y0 < y1):
        raise UserError(f"{name} lies outside the picture of {width} x {height} px")
    if min(x1 - x0, y1 - y0) < MIN_SIDE:
        raise UserError(f"{name} is thinner than {MIN_SIDE:g} px")
    return Region((x0, y0, x1, y1))


def _corners(values: object) -> tuple[float, ...] | None:
    """Four finite numbers; None for anything else."""
    if not isinstance(values, list | tuple) or len(values) != 4:
        return None
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(math.isfinite(value) for value in numbers) else None


def _no_box(values: object) -> str:
    """What is wrong with anything but four numbers; an emptied field is None among them."""
    if isinstance(values, list | tuple) and len(values) == 4:
        for side, value in zip(SIDES, values, strict=True):
            if value is None:
                return f"the {side} of the region is missing: type a number, in pixels"
    return f"a region is x0,y0,x1,y1 ({', '.join(SIDES)}) in pixels, not {_short(values)}"


def regions(parts: object, size: tuple[int, int]) -> tuple[Region, ...]:
    """Up to 16 boxes or Regions of an image of `size`; none means the whole picture."""
    if parts is None:
        return ()
    if not isinstance(parts, list | tuple):
        raise UserError("regions has to be a list of boxes, each x0, y0, x1, y1 in pixels")
    if len(parts) > MAX_REGIONS:
        raise UserError(f"{len(parts)} regions; the limit is {MAX_REGIONS}")
    return tuple(_region(part, size) for part in parts)


def _region(part: object, size: tuple[int, int]) -> Region:
    if not isinstance(part, Region):
        return box(part, size)
    return box(part.box, size) if part.mask is None else mask(part.mask, size)


def mask(source: ImageSource, size: tuple[int, int]) -> Region:
    """A free form from an image, white where the region is, transparent where it is not.

    One of other size than the picture's `size` is resized where the proportions are the same (to a
    pixel), refused where they are not.
    """
    grey = read_image(source, paper="black").convert("L")
    if not any(grey.histogram()[MASK_WHITE:]):
        raise UserError("the mask is empty: paint the region white")
    if grey.size != size:
        if abs(grey.width * size[1] - grey.height * size[0]) > max(*size, *grey.size):
            raise UserError(
                f"the mask is {grey.width} x {grey.height} px, the picture {size[0]} x {size[1]}: "
                "it has to have the same size, or at least the same proportions"
            )
        # BOX: every pixel of the mask counts, by its area, and white stays white
        grey = grey.resize(size, Image.Resampling.BOX)
    corners = grey.getbbox()
    if corners is None:
        raise UserError("the mask shows less than a pixel of the picture: paint a larger region")
    x0, y0, x1, y1 = map(float, corners)
    return Region((x0, y0, x1, y1), grey)


def methods(names: object, known: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of methods that this index can run, each once; a comma-separated string or a sequence.

    `known` maps every name to an entry with `available` (bool) and `why` (str).
    """
    parts = listed(names) if isinstance(names, str) else names
    if not isinstance(parts, Iterable):
        raise UserError("methods has to be a list of names")
    wanted = tuple(dict.fromkeys(str(part).strip() for part in parts if str(part).strip()))
    if not wanted:
        raise UserError(f"no method given: try {defaults.METHOD}")
    for name in wanted:
        if name not in known:
            raise UserError(f"unknown method {_short(name)!r}; there are {', '.join(known)}")
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


def threshold(value: object) -> float:
    """The least score of a detection, 0 to 1."""
    return _number(value, "the threshold", 0.0, 1.0)


def _number(value: object, name: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(f"{name} has to be a number from {low:g} to {high:g}{_not(value)}")
    return float(value)
