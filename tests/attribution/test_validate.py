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
    "trak": {"available": False, "why": "this index has no trak rows"},
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
    for twisted in ("--5", "+-5", "- 5", "5-", "1_0", "+"):
        assert f"not {twisted}" in one_line(validate.seed, twisted)


def test_a_number_is_refused_in_words_of_what_was_typed() -> None:
    line = "the seed has to be a whole number from 0 to 4294967295"
    for empty in (None, "", "  "):
        assert one_line(validate.seed, empty) == f"{line}: type one"
    for typed in (1.5, "1.5"):
        assert one_line(validate.seed, typed) == f"{line}, not 1.5"
    assert one_line(validate.seed, "abc").endswith(", not abc")
    assert one_line(validate.threshold, None).endswith("from 0 to 1: type one")


def test_top_k() -> None:
    assert validate.top_k(1, 10) == 1 and validate.top_k(10, 10) == 10
    for bad in (0, 11, -3, 2.5, None, "many"):
        assert "1 to 10" in one_line(validate.top_k, bad, 10)


def test_boxes() -> None:
    assert validate.box((0, 0, 64, 64), (64, 64)) == Region((0.0, 0.0, 64.0, 64.0))
    assert validate.box(["1", 2.5, 3, 4], (64, 48)) == Region((1.0, 2.5, 3.0, 4.0))
    assert validate.box((-9, -9, 99, 10), (64, 48)) == Region((0.0, 0.0, 64.0, 10.0))
    malformed = ((0, 0, 9), "abcd", "1234", (0, 0, 9, "x"), 5, None, {}, (0, 0, 1, 1, 1))
    for bad in (*malformed, (0, 0, float("nan"), 9), (0, 0, float("inf"), 9), (0, 0, 10**400, 9)):
        assert "x0,y0,x1,y1" in one_line(validate.box, bad, (64, 64))
    assert one_line(validate.box, ["a", "b", "c", "d"], (64, 64)).endswith(", not a,b,c,d")
    emptied = one_line(validate.box, [0, None, 64, 22.9], (64, 64))
    assert emptied == "the top of the region is missing: type a number, in pixels"
    for inverted in ((9, 0, 9, 9), (9, 0, 3, 9), (0, 9, 9, 2)):
        assert "is empty" in one_line(validate.box, inverted, (64, 64))
    for outside in ((64, 0, 70, 9), (-9, 0, 0, 9), (0, 48, 9, 50)):
        assert "outside the picture of 64 x 48" in one_line(validate.box, outside, (64, 48))
    assert "thinner" in one_line(validate.box, (1, 1, 1 + 1e-9, 9), (64, 64))
    assert "thinner" in one_line(validate.box, (63.999, 1, 80, 9), (64, 64))


def test_words_of_a_region() -> None:
    assert validate.called(None) == validate.called(" \n") == ""
    assert validate.called(" a\tstop  sign ") == "a stop sign"
    assert "no region to be called 'a sign'" in one_line(validate.called, "a sign", False)
    for wrong in (7, "\ud800", "a" * 1001):
        assert "what the region is called" in one_line(validate.called, wrong)


def test_regions() -> None:
    assert validate.regions(None, (64, 64)) == validate.regions([], (64, 64)) == ()
    free = validate.mask(Image.new("L", (8, 8), 255), (8, 8))
    both = validate.regions(((0, 0, 4, 99), free, Region((7, 7, 9, 9))), (8, 8))
    assert both == (Region((0, 0, 4, 8)), free, Region((7, 7, 8, 8)))
    assert "limit is 16" in one_line(validate.regions, [(0, 0, 9, 9)] * 17, (64, 64))
    for bad in ("0,0,9,9", 5, {"box": 1}, (1, 2, 3, 4), [Region((70, 0, 71, 1))]):
        assert "region" in one_line(validate.regions, bad, (64, 64))


def test_mask() -> None:
    half = Image.new("L", (8, 8))
    half.paste(255, (0, 0, 4, 8))
    found = validate.mask(half, (8, 8))
    assert found.box == (0, 0, 4, 8) and np.asarray(found.mask).mean() == 127.5
    larger = validate.mask(half, (80, 81))  # the same proportions, to a pixel
    assert larger.mask.size == (80, 81) and larger.box == (0, 0, 40, 81)
    smaller = validate.mask(half.resize((800, 800), Image.Resampling.NEAREST), (8, 8))
    assert smaller == found
    for empty in (Image.new("L", (8, 8)), Image.new("L", (8, 8), 20)):
        assert "paint the region white" in one_line(validate.mask, empty, (8, 8))
    speck = Image.new("L", (800, 800))
    speck.putpixel((3, 3), 255)
    assert "less than a pixel" in one_line(validate.mask, speck, (8, 8))
    for size in ((10, 8), (8, 16), (80, 60)):
        assert "mask is 8 x 8 px" in one_line(validate.mask, half, size)


def test_transparent_is_not_in_the_mask() -> None:
    brush = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    brush.paste((255, 255, 255, 255), (2, 2, 4, 4))
    assert validate.mask(brush, (8, 8)).box == (2, 2, 4, 4)
    clear = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    assert "paint the region white" in one_line(validate.mask, clear, (8, 8))


def test_methods() -> None:
    assert validate.methods("abu, clip,abu", KNOWN) == ("abu", "clip")
    assert validate.methods(["clip"], KNOWN) == ("clip",)
    assert "this index has no trak rows" in one_line(validate.methods, "abu,trak", KNOWN)
    assert "abu, clip, trak" in one_line(validate.methods, "nope", KNOWN)
    for bad in ("", ",", (), None, 7):
        one_line(validate.methods, bad, KNOWN)


def test_lists_from_the_command_line_are_trimmed():
    assert validate.listed(" abu, clip ,,") == ["abu", "clip"] and validate.listed(" ") == []
    assert validate.whole_numbers("150, 450,") == [150, 450]
    with pytest.raises(ValueError):
        validate.whole_numbers("150,x")
