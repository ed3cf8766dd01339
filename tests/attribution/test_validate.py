"""User input is cleaned or refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from attribution import validate
from attribution.types import Region, UserError

KNOWN = {
    "abu": {"available": True, "why": ""},
    "clip": {"available": True, "why": ""},
    "trak": {"available": False, "why": "not available yet"},
}


def one_line(check, *args: object) -> str:
    with pytest.raises(UserError) as caught:
        check(*args)
    assert str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_prompt() -> None:
    assert validate.prompt("  a\tred\n star ") == "a red star"
    assert validate.prompt("🍦👨‍👩‍👧 été") == "🍦👨‍👩‍👧 été"
    assert validate.prompt("x" * 1000) == "x" * 1000
    for bad in ("", " \n\t", "\0", "x" * 1001, None, 7, "\ud800"):
        one_line(validate.prompt, bad)


def test_seed() -> None:
    assert [validate.seed(v) for v in (0, 2**32 - 1, 7.0, "12")] == [0, 2**32 - 1, 7, 12]
    for bad in (-1, 2**32, 1.5, "x", "", None, True, float("nan"), "9" * 5000, 10**400):
        one_line(validate.seed, bad)


def test_top_k() -> None:
    assert validate.top_k(1, 10) == 1 and validate.top_k(10, 10) == 10
    for bad in (0, 11, -3, 2.5, None, "many"):
        assert "1 to 10" in one_line(validate.top_k, bad, 10)


def test_boxes() -> None:
    assert validate.box((0, 0, 64, 64), (64, 64)) == Region((0.0, 0.0, 64.0, 64.0))
    assert validate.regions(None, (64, 64)) == ()
    for bad in ((0, 0, 65, 9), (9, 0, 9, 9), (-1, 0, 9, 9), (0, 0, 9), "abcd", (0, 0, 9, "x"), 5):
        one_line(validate.box, bad, (64, 64))
    one_line(validate.box, (0, 0, float("nan"), 9), (64, 64))
    one_line(validate.regions, [(0, 0, 9, 9)] * 17, (64, 64))


def test_mask() -> None:
    half = Image.new("L", (8, 8))
    half.paste(255, (0, 0, 4, 8))
    assert np.asarray(validate.mask(half, (8, 8))).mean() == 127.5
    one_line(validate.mask, Image.new("L", (8, 8)), (8, 8))
    one_line(validate.mask, half, (9, 8))


def test_methods() -> None:
    assert validate.methods("abu, clip,abu", KNOWN) == ("abu", "clip")
    assert validate.methods(["clip"], KNOWN) == ("clip",)
    assert "not available yet" in one_line(validate.methods, "abu,trak", KNOWN)
    assert "abu, clip, trak" in one_line(validate.methods, "nope", KNOWN)
    for bad in ("", ",", (), None, 7):
        one_line(validate.methods, bad, KNOWN)
