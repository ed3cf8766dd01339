"""Which records become exemplars, what their models are asked for, and who validates.

Everything is a function of the index's records and the seed. A model belongs to one artist, its
exemplars are that artist's alone, and an artist's models all train heads or all validate them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from attribution.index import Index
from attribution.types import UserError
from precompute.recipes.abc.config import TOKEN, PairsConfig

OBJECT, STYLE = "object", "style"
TRAIN, VALIDATION = "train", "validation"
KINDS = (OBJECT, STYLE)
# kinds of prompts, in the turns in which samples take them
PLAIN, MIXED = "plain", "mixed"


@dataclass(frozen=True)
class Model:
    """One customisation: exemplars by record id, and prompts.

    artist: the exemplars', or the record's id where it has none. word: what V* begins as, "" for
    nothing. tuning: a prompt for each exemplar. prompts: those of the samples, each with its kind:
    `plain` names V* as in tuning, `mixed` together with something else.
    """

    name: str
    kind: str
    split: str
    artist: str
    ids: tuple[str, ...]
    word: str
    tuning: tuple[str, ...]
    prompts: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class _Drawing:
    id: str
    artist: str
    subject: str
    word: str


def plan(index: Index, knows: Callable[[str], bool], config: PairsConfig) -> list[Model]:
    """Every model of the run, objects first. `knows` says whether a word is one token.

    UserError where the index has too few drawings, or all by one artist.
    """
    drawings = _drawings(index, knows)
    rng = np.random.default_rng(config.seed)
    order = [drawings[i] for i in rng.permutation(len(drawings))]
    objects = _objects(order, config)
    styles = _styles(order, {d.id for group in objects for d in group}, config)
    groups = [*objects, *styles]
    if len(groups) < 4:
        raise UserError(f"{index.path} has too few training drawings for AbC: {len(drawings)}")
    held = _held_out([group[0].artist for group in groups], config, rng)
    kinds = [OBJECT] * len(objects) + [STYLE] * len(styles)
    splits = [VALIDATION if group[0].artist in held else TRAIN for group in groups]
    words = {
        split: _Words([d for d in order if (d.artist in held) == (split == VALIDATION)])
        for split in (TRAIN, VALIDATION)
    }
    return [
        _model(number, kind, split, group, words[split], config)
        for number, (kind, split, group) in enumerate(zip(kinds, splits, groups, strict=True))
    ]


def _drawings(index: Index, knows: Callable[[str], bool]) -> list[_Drawing]:
    """Training records of one artist or none that are no collages."""
    columns = ["id", "artists", "category", "captions", "parts"]
    table = index.records.select(columns).take(index.train_rows).to_pylist()
    found = []
    for record in table:
        artists = record["artists"] or []
        if record["parts"] or len(artists) > 1:
            continue
        word = ((record["category"] or "").split() or [""])[-1]
        subject = subject_of(record["captions"][0], artists)
        owner = artists[0] if artists else record["id"]
        found.append(_Drawing(record["id"], owner, subject, word if word and knows(word) else ""))
    return found


def subject_of(caption: str, artists: Sequence[str]) -> str:
    """What a caption begins with, without keywords and ", by ARTIST"."""
    for artist in artists:
        caption = caption.removesuffix(f"by {artist}")
    return caption.split(",")[0].strip()


def _objects(order: Sequence[_Drawing], config: PairsConfig) -> list[list[_Drawing]]:
    """Single drawings, at most `per_artist` of one artist."""
    taken: Counter[str] = Counter()
    chosen: list[list[_Drawing]] = []
    for drawing in order:
        if len(chosen) < config.objects and taken[drawing.artist] < config.per_artist:
            taken[drawing.artist] += 1
            chosen.append([drawing])
    return chosen


def _styles(order: Sequence[_Drawing], used: set[str], config: PairsConfig) -> list[list[_Drawing]]:
    """Groups of one artist's drawings that are no objects, artists taking turns."""
    free: dict[str, list[_Drawing]] = defaultdict(list)
    for drawing in order:
        if drawing.id not in used:
            free[drawing.artist].append(drawing)
    rounds = range(max(1, config.per_artist // 2))
    spans = [slice(r * config.group, (r + 1) * config.group) for r in rounds]
    groups = [drawings[span] for span in spans for drawings in free.values()]
    return [group for group in groups if len(group) == config.group][: config.styles]


def _held_out(artists: Sequence[str], config: PairsConfig, rng: np.random.Generator) -> set[str]:
    """Artists, in random order, until they have the share of models that validates; UserError where
    that leaves none to train."""
    counts = Counter(artists)
    names = sorted(counts)
    held: set[str] = set()
    for i in rng.permutation(len(names)):
        if sum(counts[name] for name in held) >= config.validation * len(artists):
            break
        held.add(names[i])
    if len(held) == len(names):
        raise UserError("AbC needs drawings by several artists, to hold some of them out")
    return held


class _Words:
    """What prompts mix V* with: subjects and artists of one side of the split, in turn."""

    def __init__(self, drawings: Sequence[_Drawing]) -> None:
        self.subjects = list(dict.fromkeys(d.subject for d in drawings))
        self.artists = list(dict.fromkeys(d.artist for d in drawings if d.artist != d.id))
        self._next = Counter[str]()

    def subject(self, apart: set[str]) -> str:
        """Another drawing's subject."""
        return self._turn("subject", self.subjects, apart)

    def artist(self, apart: set[str]) -> str:
        """Another artist, "" without one."""
        return self._turn("artist", self.artists, apart)

    def _turn(self, kind: str, values: list[str], apart: set[str]) -> str:
        for _ in values:
            value = values[self._next[kind] % len(values)]
            self._next[kind] += 1
            if value not in apart:
                return value
        return ""


def _model(
    number: int,
    kind: str,
    split: str,
    group: Sequence[_Drawing],
    words: _Words,
    config: PairsConfig,
) -> Model:
    word = group[0].word if kind == OBJECT else ""
    called = f"{TOKEN} {word}".strip()
    tuning = [f"{d.subject}, by {TOKEN}" for d in group] if kind == STYLE else [called]
    prompts = []
    for turn in range(config.samples):
        if turn % 2 == 0:
            prompts.append((PLAIN, tuning[turn // 2 % len(tuning)]))
        else:
            prompts.append((MIXED, _mixed(kind, called, turn // 2, group, words)))
    ids, artist = tuple(d.id for d in group), group[0].artist
    name = f"{number:03d}-{kind}"
    return Model(name, kind, split, artist, ids, word, tuple(tuning), tuple(prompts))


def _mixed(kind: str, called: str, turn: int, group: Sequence[_Drawing], words: _Words) -> str:
    """V* with another subject, or in another hand."""
    own = {d.subject for d in group}
    if kind == STYLE:
        return f"{words.subject(own)}, by {TOKEN}"
    artist = words.artist({group[0].artist})
    if turn % 2 == 0 and artist:
        return f"{called}, by {artist}"
    subject = words.subject(own)
    return f"a {called} and {'an' if subject[:1] in 'aeiou' else 'a'} {subject}"
