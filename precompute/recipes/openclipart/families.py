"""The families: which folders of the package become which category."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from precompute.recipes.openclipart.read import Drawing

_DECKS = tuple(
    f"recreation/games/cards/{deck}/" for deck in ("white", "bordered", "ornamental", "cardbacks")
)
_SIGNS = "signs_and_symbols/"
_LITTLE_KNOWN_FLAGS = re.compile(r"semaphore_|flags/europe/france/france_|_historic")
_OTHER_SIGNS = "^(stop_sign|traffic_light|no_smoking|wheelchair|hazard|high_tension)"
Test = Callable[[Drawing], bool]


@dataclass(frozen=True)
class Family:
    """Drawings below the folders `under` that pass `test` become category `name`."""

    name: str
    under: tuple[str, ...]
    test: Test = lambda drawing: True


def _stem(pattern: str) -> Test:
    compiled = re.compile(pattern)
    return lambda drawing: bool(compiled.search(drawing.stem))


def _no_stem(pattern: str) -> Test:
    found = _stem(pattern)
    return lambda drawing: not found(drawing)


def _by(artist: str) -> Test:
    return lambda drawing: artist in drawing.creators[0].lower()


def _is_road_sign(drawing: Drawing) -> bool:
    return "roadsign" in drawing.keywords


def _is_flag(drawing: Drawing) -> bool:
    told = "flag" in drawing.keywords or "flag" in drawing.title.lower()
    told = told or drawing.stem.startswith("signalflag_")
    return told and not _LITTLE_KNOWN_FLAGS.search(drawing.id)


# Earlier families win where folders overlap, so the narrow ones stand before the wide ones.
FAMILIES = (
    Family("flag", (_SIGNS + "flags/",), _is_flag),
    Family("playing card", _DECKS),
    Family("dessert", ("food/desserts/",)),
    Family("drink", ("food/beverages/",)),
    Family("fruit", ("food/fruit/",)),
    Family("food", ("food/",), _no_stem("crawfish")),
    Family("bug", ("animals/bugs/",)),
    Family("bug", ("animals/",), _stem("^(mosquito|scorpion|punaisa|butterfly|spider|bee_)")),
    Family("bird", ("animals/",), _stem("^(emperor_penguin|pinguino|dove|duck)")),
    Family("bird", ("animals/birds/",)),
    Family("mammal", ("animals/mammals/",)),
    Family("animal", ("animals/",)),
    Family("plant", ("plants/",)),
    Family("sign", ("transportation/roadsigns/",)),
    Family("sign", ("transportation/",), _is_road_sign),
    Family("sign", ("transportation/",), _by("john cliff")),
    Family("sign", (_SIGNS,), _by("guillou")),
    Family("sign", (_SIGNS,), _stem(_OTHER_SIGNS)),
    Family("map symbol", ("transportation/aiga-symbols/",), _stem("1$")),
    Family("map symbol", (_SIGNS + "map_symbols/",), _stem("_rpg_map")),
    Family("building", ("transportation/",), _stem("^lighthouse")),
    Family("vehicle", ("transportation/",), _no_stem("aiga")),
    Family("smiley", ("people/smilies/",), _stem("smil|^base$")),
    Family("clock", (_SIGNS + "clocks/",)),
    Family("led", (_SIGNS + "led/",), _stem("^led_")),
    Family("jigsaw", ("shapes/jigsaw/",)),
    Family("arrow", ("shapes/arrows/",), _stem("arrow|direction|tasto")),
    Family("star", ("shapes/stars/",)),
    Family("building", ("buildings/",), lambda drawing: "furniture" not in drawing.id),
    Family("weather", (_SIGNS + "weather/",)),
    Family("music", ("recreation/music/",)),
    Family("toy", ("recreation/toys/", "recreation/games/chess/")),
    Family("toy", ("recreation/party/",), _stem("^balloon")),
    Family("tool", ("tools/",)),
    Family("icon", ("computer/icons/lemon-theme/",), lambda drawing: "mimetypes" not in drawing.id),
)  # fmt: skip


def family_of(drawing: Drawing) -> str | None:
    """The category of a drawing, None where no family takes it."""
    for family in FAMILIES:
        if drawing.id.startswith(family.under) and family.test(drawing):
            return family.name
    return None


def rank(name: str) -> int:
    """Where a category first stands among the families: smaller wins."""
    return next(row for row, family in enumerate(FAMILIES) if family.name == name)
