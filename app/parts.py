"""Which part of the picture is to be explained: boxes, brush strokes, and which of them counts."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from attribution import validate
from attribution.detection.attention import WordMaps
from attribution.detection.protocol import Detection
from attribution.detection.words import find, nouns, words_of
from attribution.regions import pixel_mask, union
from attribution.types import Query, Region, UserError

WHOLE, BOXES, BRUSH, DETECT, WORDS = "whole", "boxes", "brush", "detect", "words"
MOST_STROKES, MOST_POINTS = 200, 2000
# Strokes on small pictures are drawn larger first, so that their edges cover pixels in part.
FINE = 512
SHOWN = 320
# Of longer sides: what a box that comes from no drawing covers.
FIRST_BOX = 0.5

Point = tuple[float, float]


@dataclass(frozen=True)
class Stroke:
    """One movement of the brush: its path and radius in pixels of the picture."""

    points: tuple[Point, ...]
    radius: float
    erase: bool = False


@dataclass(frozen=True)
class Parts:
    """What each tab of the region step holds for a picture of `size` (width, height) pixels, (0, 0)
    before there is one.

    tab: the one that counts. current: the box whose numbers are shown. radius: of the brush, in
    pixels. found: what a detector found, None before it was asked; ticked: which of it counts.
    said: the phrase of `prompt` whose heat in `maps` counts, where it reaches `keep` of its peak.
    own: whether the part goes by words of its own where it has some, typed or those it was `named`
    by; typed: for the part as it is chosen, not for the next one.
    revision: counts changes, so that every redrawing differs from the last.
    """

    size: tuple[int, int] = (0, 0)
    tab: str = WHOLE
    boxes: tuple[Region, ...] = ()
    current: int = 0
    strokes: tuple[Stroke, ...] = ()
    radius: float = 0.05
    erase: bool = False
    found: tuple[Detection, ...] | None = None
    ticked: frozenset[int] = frozenset()
    prompt: str = ""
    maps: WordMaps | None = None
    said: str = ""
    keep: float = 0.5
    own: bool = True
    typed: str = ""
    revision: int = 0

    @classmethod
    def of(cls, query: Query) -> Parts:
        """A new picture, or one whose boxes were chosen before (an example, a link)."""
        size = query.image.size
        start = cls(size, radius=0.05 * max(size), prompt=query.prompt, typed=query.called)
        boxes = tuple(region for region in query.regions if region.mask is None)
        return replace(start, tab=BOXES, boxes=boxes) if boxes else start

    @property
    def picture(self) -> bool:
        """Whether there is a picture to choose a part of."""
        return self.size != (0, 0)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """What is to be attributed; nothing is the whole picture."""
        if self.tab == BOXES:
            return self.boxes
        if self.tab == BRUSH and self.strokes:
            mask = painted(self.strokes, self.size)
            return () if mask.getbbox() is None else (validate.mask(mask, self.size),)
        if self.tab == DETECT and self.found:
            return tuple(rounded(Region(self.found[i].box)) for i in sorted(self.ticked))
        if self.tab == WORDS and self.hot is not None:
            return (validate.mask(self.hot, self.size),)
        return ()

    @cached_property
    def hot(self) -> Image.Image | None:
        """Where the chosen phrase's heat counts, as a mask; None where it has none."""
        places = self.places
        if self.maps is None or not places or not self.maps.grid(places).any():
            return None
        return self.maps.mask(places, self.keep)

    @property
    def places(self) -> list[int]:
        """Which words of the prompt the chosen phrase means, as far as they have maps."""
        if self.maps is None or not self.said:
            return []
        return [i for i in find(self.said, self.prompt) if i < len(self.maps.maps)]

    @property
    def called(self) -> str:
        """What the chosen part shows, as far as it was named; else ""."""
        if self.tab == DETECT and self.found:
            labels = dict.fromkeys(self.found[i].label for i in sorted(self.ticked))
            return " and ".join(labels)
        return self.said if self.tab == WORDS and self.hot is not None else ""

    @property
    def named(self) -> str:
        """The words that came with the part: a detector's labels, the noun that a word belongs to;
        "" for a word that names nothing.
        """
        if self.tab != WORDS or not self.called:
            return self.called
        said = set(words_of(self.said))
        return next((n for n in nouns(self.prompt) if said <= set(words_of(n))), "")

    @property
    def words(self) -> str:
        """What the chosen part goes by; "" where that is the prompt."""
        return (self.typed or self.named) if self.own and self.regions else ""

    @cached_property
    def share(self) -> float:
        """Part of the picture's area that counts, 0..1."""
        chosen = self.regions
        if union(chosen, self.size) is None:
            return 1.0
        values = pixel_mask(chosen, self.size).histogram()
        return sum(i * n for i, n in enumerate(values)) / 255 / (self.size[0] * self.size[1])

    @property
    def box(self) -> Region | None:
        """The box whose numbers are shown."""
        return self.boxes[self.current] if self.boxes else None

    def on(self, tab: str) -> Parts:
        return self._next(tab=tab, typed=self.typed if tab == self.tab else "")

    def choose(self, number: int) -> Parts:
        return self._next(current=min(max(number, 0), max(len(self.boxes) - 1, 0)))

    def add(self, corners: Sequence[Any]) -> Parts:
        """One more box; UserError for one that cannot be."""
        box = rounded(validate.box(list(corners), self.size))
        validate.regions((*self.boxes, box), self.size)
        return self._next(boxes=(*self.boxes, box), current=len(self.boxes))

    def add_first(self) -> Parts:
        """A box in the middle, to be moved by its numbers."""
        (width, height), rest = self.size, (1 - FIRST_BOX) / 2
        return self.add((rest * width, rest * height, (1 - rest) * width, (1 - rest) * height))

    def edit(self, corners: Sequence[Any]) -> Parts:
        """Other corners for the current box; UserError for some that cannot be."""
        box = rounded(validate.box(list(corners), self.size))
        boxes = list(self.boxes)
        boxes[self.current : self.current + 1] = [box]
        return self._next(boxes=tuple(boxes))

    def remove(self) -> Parts:
        """Without the current box."""
        left = tuple(box for i, box in enumerate(self.boxes) if i != self.current)
        return self._next(boxes=left).choose(self.current)

    def paint(self, stroke: Stroke) -> Parts:
        """One more stroke; UserError where there are too many."""
        if len(self.strokes) == MOST_STROKES:
            raise UserError(f"{MOST_STROKES} strokes are the most: undo some, or clear them")
        return self._next(strokes=(*self.strokes, stroke))

    def undo(self) -> Parts:
        """Without the last stroke."""
        return self._next(strokes=self.strokes[:-1])

    def brush(self, radius: float, erase: bool) -> Parts:
        return self._next(radius=radius, erase=erase)

    def detected(self, found: Sequence[Detection]) -> Parts:
        """What a detector found; the best of it counts at once."""
        ticked = frozenset({0} if found else ())
        return self._next(found=tuple(found), ticked=ticked, typed="")

    def tick(self, number: int) -> Parts:
        """One of what was found counts from now on, or no longer; UserError where too many do."""
        known = range(len(self.found or ()))
        ticked = self.ticked ^ ({number} & set(known))
        if len(ticked) > validate.MAX_REGIONS:
            raise UserError(f"{validate.MAX_REGIONS} boxes are the most that count together")
        return self._next(ticked=ticked, typed="")

    def looked(self, maps: WordMaps) -> Parts:
        """Where the model looked for each word."""
        return self._next(maps=maps)

    def say(self, phrase: str) -> Parts:
        return self._next(said=phrase, typed="")

    def hotter(self, keep: float) -> Parts:
        return self._next(keep=min(max(float(keep), 0.0), 1.0))

    def word(self, own: bool, typed: str) -> Parts:
        """In words of its own, or in the prompt's."""
        return self._next(own=own, typed=" ".join(typed.split()))

    def clear(self) -> Parts:
        """Nothing drawn in the tab that counts."""
        emptied: dict[str, Any] = {"strokes": ()} if self.tab == BRUSH else {"boxes": ()}
        return self._next(current=0, typed="", **emptied)

    def _next(self, **changes: Any) -> Parts:
        return replace(self, revision=self.revision + 1, **changes)


def linked(text: str, size: tuple[int, int]) -> tuple[Region, ...]:
    """Boxes of a link, x0,y0,x1,y1;..., of a picture of `size`; UserError for anything else."""
    return validate.regions([box.split(",") for box in text.split(";") if box], size)


def rounded(region: Region) -> Region:
    """A box to a tenth of a pixel, no thinner than that: what the number fields show."""
    x0, y0, x1, y1 = (round(value, 1) for value in region.box)
    return Region((x0, y0, max(x1, x0 + 0.1), max(y1, y0 + 0.1)))


def marks_of(message: str) -> list[tuple[Point, Point] | Stroke | int]:
    """What the drawing pad sends: boxes by two corners, strokes, and what was found by its number;
    UserError for anything else.

    [{"box": [x0, y0, x1, y1]}, {"stroke": [[x, y], ...], "radius": r, "erase": false}, {"pick": 0}]
    """
    try:
        return [_mark(entry) for entry in json.loads(message)]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise UserError("that drawing did not arrive whole: please draw it again") from None


def _mark(entry: dict[str, Any]) -> tuple[Point, Point] | Stroke | int:
    if "pick" in entry:
        return int(entry["pick"])
    if "box" in entry:
        x0, y0, x1, y1 = (_finite(value) for value in entry["box"])
        return (min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))
    points = [(_finite(x), _finite(y)) for x, y in entry["stroke"][:MOST_POINTS]]
    if not points:
        raise ValueError("no points")
    return Stroke(tuple(points), max(_finite(entry["radius"]), 0.0), bool(entry["erase"]))


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def painted(strokes: Sequence[Stroke], size: tuple[int, int]) -> Image.Image:
    """The strokes as a mask, 8-bit grey of the picture's size, white where painted.

    Strokes that cover no pixel by half, as a tap between pixels, are brightened: whatever is
    painted counts, and only how its pixels compare makes a difference.
    """
    scale = max(1, -(-FINE // max(size)))
    mask = Image.new("L", (size[0] * scale, size[1] * scale))
    draw = ImageDraw.Draw(mask)
    for stroke in strokes:
        fill, radius = 0 if stroke.erase else 255, stroke.radius * scale
        points = [(x * scale, y * scale) for x, y in stroke.points]
        draw.line(points, fill, round(2 * radius))
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill)
    mask = mask.reduce(scale) if scale > 1 else mask
    (_, brightest) = mask.getextrema()
    if 0 < brightest < validate.MASK_WHITE:
        mask = mask.point(lambda value: round(value * 255 / brightest))
    return mask


def outlined(query: Query) -> Image.Image:
    """The picture, small, with everything outside its regions faded; RGB."""
    image = query.image.convert("RGB")
    if union(query.regions, image.size) is not None:
        grey = ImageOps.grayscale(image).convert("RGB")
        faded = Image.blend(grey, Image.new("RGB", image.size, "white"), 0.7)
        image = Image.composite(image, faded, pixel_mask(query.regions, image.size))
    if max(image.size) > SHOWN:
        image.thumbnail((SHOWN, SHOWN))
    return image
