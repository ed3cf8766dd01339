"""Families whose file names are a code: cards, stars, arrows, clocks, LEDs, jigsaws, signs."""

from __future__ import annotations

import re
from collections.abc import Callable

Subject = tuple[str, list[str]]  # what it shows, and words that follow it

_SUITS = {"c": "clubs", "d": "diamonds", "h": "hearts", "s": "spades"}
_NUMBERS = (
    *("one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)
_RANKS = {"a": "ace", "j": "jack", "q": "queen", "k": "king"}
_TURNS = {"1": "right", "2": "down", "3": "left", "4": "up"}
_ARROWS = {
    "01": "outlined arrow", "02": "black arrow", "03": "black tag arrow", "04": "thin arrow",
    "05": "feathered arrow", "06": "bent black arrow", "07": "arrow in a grey circle",
    "08": "zigzag arrow", "09": "blue arrow", "11": "wooden arrow sign",
    "12": "wooden signpost arrow",
}  # fmt: skip
_RED = {"1": "red outlined arrow", "2": "red bent arrow", "3": "red u-turn arrow"}
_RED_TURNS = {"1": "up", "2": "right", "3": "down", "4": "left"}
_ICON_WORDS = {
    "messagebox": "message", "cleficon": "clef", "eightnote": "eighth note",
    "quarternote": "quarter note", "halfnote": "half note", "fullnote": "whole note",
    "dottednote": "dotted note", "natur": "natural", "sixteenthnote": "sixteenth note",
    "32ndnote": "32nd note", "fermatenote": "fermata", "cross": "sharp", "fwd": "forward",
    "rew": "rewind", "gohome": "go home", "openterm": "open terminal", "guarddog": "guard dog",
    "exec": "running", "looknfeel": "flower", "trashcan": "trash can", "hdd": "hard drive",
    "harddrive": "hard drive", "cdrom": "cd", "pda": "pocket computer",
    "usbfloppy": "usb stick", "3floppy": "floppy", "mycomputer": "my computer",
    "minitower": "computer tower", "kfm": "yellow", "contexthelp": "context help",
    "viewmagfit": "zoom fit", "viewmag": "magnifier", "tv": "television",
}  # fmt: skip
_PLACES = {
    "tenessee": "tennessee", "northcarolina": "north carolina", "southcarolina": "south carolina",
    "newmexico": "new mexico", "kernow": "cornwall", "plain": "spain", "aboriginies": "aboriginal",
    "torres_streight_islanders": "torres strait islanders", "eastfrisia": "east frisia",
}  # fmt: skip
_LED = {"h": "horizontal", "v": "vertical"}


def _card(stem: str) -> Subject | None:
    back = re.fullmatch(r"back(\d\d)", stem)
    if back:
        return f"card back {int(back.group(1))}", ["playing card"]
    found = re.fullmatch(r"(white|simple|bordered|ornamental)_(\w+)_(\w+)", stem)
    if not found:
        return None
    deck, suit, rank = found.groups()
    joker = {"b": "black joker", "r": "red joker"}.get(rank, "joker")
    if suit == "jk":
        return joker, ["playing card", f"{deck} deck"]
    value = _NUMBERS[int(rank) - 1] if rank.isdigit() else _RANKS[rank]
    return f"{value} of {_SUITS[suit]}", ["playing card", f"{deck} deck"]


def _star(stem: str) -> Subject | None:
    found = re.fullmatch(r"star_(\d+)pt(\d+)step", stem)
    return (f"star with {int(found[1])} points", [f"step {int(found[2])}"]) if found else None


def _arrow(stem: str) -> Subject | None:
    if found := re.fullmatch(r"arrow(\d\d)_(\d)", stem):
        facing = {"1": "left", "2": "right"} if found[1] in ("11", "12") else _TURNS
        return f"{_ARROWS[found[1]]} {facing[found[2]]}", []
    if found := re.fullmatch(r"arrow([123])-(\d)(-\d)?", stem):
        return f"{_RED[found[1]]} {_RED_TURNS[found[2]]}", []
    if found := re.match(r"arrow-(\w+)-([a-z]+)_benj", stem):
        return f"{found[2].replace('seagreen', 'sea green')} arrow {found[1]}", []
    if found := re.match(r"arki_arrow_(\w+?)_jean", stem):
        return f"pink chevron arrow {found[1]}", []
    return None


def _clock(stem: str) -> Subject | None:
    found = re.fullmatch(r"clock(\d\d)", stem)
    return (f"blue clock at {_NUMBERS[int(found[1]) - 1]} o'clock", []) if found else None


def _led(stem: str) -> Subject | None:
    found = re.fullmatch(r"led_([a-z]+)_?([hv1]?)_([a-z]+)", stem)
    if not found:
        return None
    shape = " ".join(part for part in (_LED.get(found[2], ""), found[1]) if part)
    return f"{found[3]} {shape} led", []


def _jigsaw(stem: str) -> Subject | None:
    found = re.fullmatch(r"jigsaw_(\w+)_(\d\d)", stem)
    return (f"{found[1]} jigsaw piece {int(found[2])}", []) if found else None


def _symbol(stem: str) -> Subject | None:
    if found := re.fullmatch(r"aiga_(.+?)_?(1?)", stem):
        name = found[1].replace("_", " ").replace("tickey", "ticket")
        return name, ["white on black" if found[2] else "black", "map symbol"]
    if found := re.match(r"([a-z]+)_-_rpg_map_elem\w*?_(\d\d)$", stem):
        return found[1], ["drawn map symbol"]
    return None


def _flag(stem: str) -> Subject | None:
    if found := re.fullmatch(r"signalflag_(\w+)", stem):
        return f"signal flag {found[1]}", []
    if found := re.fullmatch(r"semaphore_(\w+)", stem):
        return f"semaphore flag {found[1]}", []
    if found := re.fullmatch(r"pirate_(\w+)", stem):
        return f"pirate flag of {found[1].replace('_', ' ')}", []
    if found := re.fullmatch(r"(\w+)_historic", stem):
        return f"historic flag of {found[1].replace('_', ' ')}", []
    if stem.startswith("australia_mike"):
        return None
    if stem.startswith("canada_flag"):
        return "flying canada flag", ["canada"]
    if found := re.fullmatch(r"(france|germany|canada|usa|uk|australia|spain|china)_(.+)", stem):
        return f"{_PLACES.get(found[2], found[2].replace('_', ' '))} flag", [found[1]]
    return None


def _toy(stem: str) -> Subject | None:
    if found := re.fullmatch(r"balloon-(\w+)-aj", stem):
        return f"{found[1]} balloon", []
    if found := re.fullmatch(r"chesspieces-(\w+)", stem):
        return f"black chess {found[1]}", ["game"]
    return None


def _icon(stem: str) -> Subject | None:
    name = re.sub(r"(?<=[a-z])\d$", "", stem.replace("_", " "))
    name = name.replace("viewmag+", "zoom in").replace("viewmag-", "zoom out")
    name = re.sub(r"^2(\w+)arrow", r"double \1 arrow", re.sub(r"^[13](?=[a-z])", "", name))
    name = re.sub(r"\b(down|left|right|up)arrow", r"\1 arrow", name)
    name = re.sub(r"^(music|math|edit|file|messagebox)(?=[a-z0-9]{3})", r"\1 ", name)
    name = name.replace(" mount", "")
    for short, long in _ICON_WORDS.items():
        name = re.sub(rf"\b{short}\b", long, name)
    return f"{name} icon", []


_READERS: dict[str, Callable[[str], Subject | None]] = {
    "playing card": _card, "star": _star, "arrow": _arrow, "clock": _clock, "led": _led,
    "jigsaw": _jigsaw, "map symbol": _symbol, "flag": _flag, "icon": _icon, "toy": _toy,
}  # fmt: skip


def subject(stem: str, category: str) -> Subject | None:
    """What a coded file name says it shows; None where the name is no code of its family."""
    reader = _READERS.get(category)
    return reader(stem) if reader else None
