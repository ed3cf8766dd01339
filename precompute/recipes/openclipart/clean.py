"""Subjects, keywords, artists and captions out of untidy metadata."""

from __future__ import annotations

import re
from collections import Counter

from attribution.artists import UNKNOWN
from precompute.recipes.openclipart import stems, tables
from precompute.recipes.openclipart.read import Drawing

_MOST_WORDS = 11  # of a caption before ", by …"
_LEAST_SHARED = 5  # drawings of a family that must share a keyword

# Titles given to a whole collection: the file name speaks instead.
_GENERIC = re.compile(
    r"part of the flat icon|lemon svg theme|etiquette icons|aiga_symbol|card$|svg road signs|"
    r"clipart by nicu buculei|various cliparts|gramastar|people$|homes clipart|map symbols|"
    r"simple arrows|advertising$|clip art$|r1[56] |diner menu|road signs|balloons-aj|chess pieces|"
    r"protein$|maja$|home$",
    re.I,
)
_KEYWORD_SPELLINGS = {"roadsign": "road sign", "icecream": "ice cream"}
_NOT_ARTISTS = re.compile(r"open clip art library|anonymous|unknown|^(none|me|c\.\.\.|hash)$", re.I)
_BLACK_AND_WHITE = re.compile(r"\((b and w|b & w|bw)\)|[_ ]bw$|\bb&w\b", re.I)
_NOT_PLURAL = ("glass", "cactus", "walrus", "bus", "compass")


def clean_artist(raw: str) -> str:
    """A person's name without addresses, brackets and notes; "" where it names nobody."""
    text = re.sub(
        r"\(.*?\)|\[.*?\]|<.*?>|\S*https?:\S*|www\.|\"|mailto:|, *http.*", " ", raw
    ).strip()
    if re.fullmatch(r"\S+@\S+", text):
        text = text.split("@")[0]  # a bare address: the part that names its owner
    text = re.sub(r"\S+@\S+|[<>\[\]()].*", " ", text)
    name = " ".join(text.split()).strip(" -,;:")
    if not name or _NOT_ARTISTS.search(name):
        return ""
    return tables.artist_spellings().get(name.lower(), name)


def artists_of(drawing: Drawing) -> list[str]:
    """The people named by the first field that names any; ["unknown artist"] at worst."""
    for field in drawing.creators:
        people = [clean_artist(part) for part in re.split(r"\s+and\s+|\s*;\s*", field)]
        people = list(dict.fromkeys(person for person in people if person))
        if people:
            return people
    return [UNKNOWN]


def tidy(text: str) -> str:
    """A title or file name as words: lower case, no punctuation, versions, numbers or articles."""
    text = re.sub(r"\((.*?)\)", r" \1 ", text)
    text = re.sub(r"\bv?\d+\.\d+\b|^clip ?art by .*? - ", " ", text, flags=re.I)
    text = re.sub(r"\bclip ?art\b|\bjpg\b|\bsvg\b", " ", text, flags=re.I)
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()
    text = re.sub(r"[_/+]|\s-\s|-(?=\s)", " ", text)
    text = " ".join(re.sub(r"[\"!?:;.*#]", " ", text).split())
    text = re.sub(r"\s+0?\d{1,2}$|(?<=[a-z]{3})\d{1,2}$", " ", text)
    text = re.sub(r"^(an?|another|my|generic)\s+(?=\w)", "", text.split("|")[0])
    text = re.sub(r"(?<=\w),? (simple|colou?r)$", "", text)
    text = re.sub(r"^dog \d\d drawn with straight lines", "straight-lined dog", text)
    text = re.sub(r"^contour (\w+)$|^(\w+) contour$", lambda m: f"{m[1] or m[2]} silhouette", text)
    return " ".join(text.split()).strip(" ,-")


def is_generic(title: str) -> bool:
    """True where a title was given to a whole collection, or is missing or not a name."""
    title = title.strip()
    return not title or bool(_GENERIC.match(title)) or "untitled" in title.lower()


def subject_of(drawing: Drawing, category: str) -> tuple[str, list[str]]:
    """What the drawing shows, lower case, and words to add after it ("black and white")."""
    coded = stems.subject(drawing.stem, category)
    if coded:
        return coded
    title = drawing.title
    if is_generic(title):
        title = re.sub(r"(_ganson|_r|_bw|_?\d+r?|_)+$", "", drawing.stem)
    colourless = _BLACK_AND_WHITE.search(title) or re.search(r"_bw(_|$)", drawing.stem)
    title = _BLACK_AND_WHITE.sub("", title).strip(" _")
    words = tidy(title)
    subject = tables.subjects_by_file().get(drawing.stem, words)
    if drawing.stem not in tables.subjects_by_file():
        keys = (drawing.stem.lower(), title.lower(), words)
        told = tables.subjects_by_title()
        subject = next((told[key] for key in keys if key in told), words)
    return subject, ["black and white"] if colourless else []


def common_keywords(drawings: list[Drawing], category: str) -> frozenset[str]:
    """Keywords that at least five drawings of one family share, noise left out."""
    counts = Counter(word for drawing in drawings for word in set(drawing.keywords))
    noise = tables.noise() | {category, category.replace(" ", ""), f"{category}s"}
    kept = (word for word, n in counts.items() if n >= _LEAST_SHARED and word not in noise)
    return frozenset(
        _spelt(word) for word in kept if "hash" not in word and "rollandin" not in word
    )


def _spelt(keyword: str) -> str:
    return _KEYWORD_SPELLINGS.get(keyword, keyword.replace("_", " "))


def keywords_of(drawing: Drawing, subject: str, common: frozenset[str]) -> list[str]:
    """At most one keyword: the first that its family shares and the subject lacks."""
    taken = set(re.findall(r"\w+", subject))
    for text in map(_spelt, drawing.keywords):
        if text in common and not set(text.split()) & taken and f"{text}s" not in taken:
            return [text]
    return []


def caption(subject: str, details: list[str], category: str, artists: list[str]) -> str:
    """`subject, details, category, by artists`, the category left out where it was said."""
    said = " ".join([subject, *details])
    tail = [] if re.search(rf"\b{re.escape(category)}s?\b", said) else [category]
    parts = list(dict.fromkeys(part for part in [subject, *details, *tail] if part))
    while len(parts) > 2 and len(" ".join(parts).split()) > _MOST_WORDS:
        parts.pop(1)
    return f"{', '.join(parts)}, by {' and '.join(artists)}"


def article(subject: str) -> str:
    """The subject with "a" or "an"; plurals and what has a determiner as they are."""
    first = subject.split()[0]
    head = re.split(r" (?:with|of|in) ", subject)[0].split()[-1]
    if re.search(r"[^suio]s$", head) and head not in _NOT_PLURAL:
        return subject
    if first in ("a", "an", "the", "two", "three", "four", "some"):
        return subject
    silent = first.startswith(("hour", "honest")) or first in ("8", "11", "18", "x-ray")
    vowel = first[0] in "aeiou" and not first.startswith(("uni", "eu", "one", "us", "uk"))
    return f"{'an' if vowel or silent else 'a'} {subject}"
