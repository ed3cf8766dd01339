"""The recipe, step by step: read, choose, render, drop twins, caption, split, collages, write."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from precompute.recipes.openclipart import clean, collage, families, render, select, write
from precompute.recipes.openclipart.read import SVG_ROOT, Drawing, read_all
from precompute.recipes.openclipart.select import Pair
from precompute.recipes.openclipart.write import Record

_WHOLE_PAGE = ("flag", "playing card", "sign", "led")  # white borders belong to the drawing


@dataclass(frozen=True)
class Sources:
    """Where the drawings and the fonts lie, and how many processes render."""

    root: Path = SVG_ROOT
    fonts: Path = render.FONTS
    workers: int = 2


@dataclass(frozen=True)
class Chosen:
    """A drawing that survived, with its words and its art."""

    drawing: Drawing
    category: str
    subject: str
    caption: str
    artists: list[str]
    art: render.Art


def _load(path: Path, category: str, fonts: Path) -> render.Art | None:
    try:
        return render.load_art(path, trim_white=category not in _WHOLE_PAGE, fonts=fonts)
    except ValueError:
        return None


def _render_all(pairs: list[Pair], sources: Sources) -> list[render.Art | None]:
    """The art of each pair, None where nothing is drawn or the file is unreadable."""
    paths = [drawing.path(sources.root) for drawing, _ in pairs]
    arguments = paths, [name for _, name in pairs], repeat(sources.fonts)
    if sources.workers < 2:
        return list(map(_load, *arguments))
    with ProcessPoolExecutor(sources.workers) as pool:
        return list(pool.map(_load, *arguments, chunksize=16))


def _worded(pairs: list[tuple[Drawing, str, render.Art]]) -> list[Chosen]:
    families: dict[str, list[Drawing]] = {}
    for drawing, category, _ in pairs:
        families.setdefault(category, []).append(drawing)
    common = {name: clean.common_keywords(members, name) for name, members in families.items()}
    chosen = []
    for drawing, category, art in pairs:
        subject, details = clean.subject_of(drawing, category)
        keywords = clean.keywords_of(drawing, " ".join([subject, *details]), common[category])
        artists = clean.artists_of(drawing)
        text = clean.caption(subject, [*details, *keywords], category, artists)
        chosen.append(Chosen(drawing, category, subject, text, artists, art))
    return chosen


def _drawn(pairs: list[Pair], sources: Sources, counts: Counter[str]) -> list[Chosen]:
    """The chosen drawings, rendered and worded, without blanks and near-identical ones."""
    arts = _render_all(pairs, sources)
    inked = [(d, name, art) for (d, name), art in zip(pairs, arts, strict=True) if art is not None]
    counts["nothing drawn, or unreadable"] += len(pairs) - len(inked)
    small = (render.square(art, render.TRAIN_PX) for _, _, art in inked)
    prints = np.array([select.thumbprint(image) for image in small])
    order = sorted(range(len(inked)), key=lambda row: families.rank(inked[row][1]))
    same = {order[row] for row in select.twins(prints[order])}
    counts["nearly the same pixels as another"] += len(same)
    return _worded([entry for row, entry in enumerate(inked) if row not in same])


def _record(item: Chosen, held_out: set[str]) -> Record:
    return Record(
        id=item.drawing.id,
        image=render.png_bytes(render.square(item.art, render.TRAIN_PX)),
        display=render.webp_bytes(render.square(item.art, render.DISPLAY_PX)),
        width=render.DISPLAY_PX,
        height=render.DISPLAY_PX,
        captions=[item.caption],
        artists=item.artists,
        title=item.drawing.title or item.subject,
        category=item.category,
        split="held-out" if item.drawing.id in held_out else "train",
        source=f"{item.drawing.id}.svg",
    )


def _collage(layout: collage.Plan, items: dict[str, Chosen], held_out: set[str]) -> Record:
    first, second = (items[name] for name in layout.parts)
    small, large, placed = collage.render(layout, (first.art, second.art))
    subjects = " and ".join(clean.article(item.subject) for item in (first, second))
    artists = list(dict.fromkeys([*first.artists, *second.artists]))
    return Record(
        id=layout.id,
        image=render.png_bytes(small),
        display=render.webp_bytes(large),
        width=render.DISPLAY_PX,
        height=render.DISPLAY_PX,
        captions=[f"{subjects}, by {' and '.join(artists)}"],
        artists=artists,
        title=subjects,
        category="collage",
        split="held-out" if held_out & set(layout.parts) else "train",
        source=" + ".join(f"{name}.svg" for name in layout.parts),
        parts=[
            {"id": n, "box": [float(v) for v in box]}
            for n, box in zip(layout.parts, placed, strict=True)
        ],
    )


def _members(items: list[Chosen]) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for item in items:
        members.setdefault(item.category, []).append(item.drawing.id)
    return members


def _plain(item: Chosen) -> bool:
    """Whether a drawing suits a collage: visible on any ground, one subject, few words."""
    short = len(item.subject.split()) <= 4 and " and " not in item.subject
    return item.art.ground == render.WHITE and short


def records_of(
    sources: Sources, collages: int, least_members: int, counts: Counter[str]
) -> tuple[list[Record], int]:
    """All records sorted by id, drawings and collages, and how many drawings were read.

    `counts` gains one entry for every rule that excluded drawings.
    """
    drawings = read_all(sources.root)
    items = _drawn(select.choose(drawings, sources.root, counts), sources, counts)
    held_out = set[str]().union(*map(select.split_of, _members(items).values()))
    plans = collage.plan(_members([i for i in items if _plain(i)]), collages, least_members)
    by_id = {item.drawing.id: item for item in items}
    records = [_record(item, held_out) for item in items]
    records += [_collage(layout, by_id, held_out) for layout in plans]
    return sorted(records, key=lambda record: record.id), len(drawings)


def build(
    out: Path,
    root: Path = SVG_ROOT,
    fonts: Path = render.FONTS,
    workers: int = 2,
    collages: int = collage.COLLAGES,
    least_members: int = collage.LEAST_MEMBERS,
) -> dict[str, object]:
    """Writes the set below `out` and returns its counts.

    Raises:
        FileNotFoundError: the drawings or the fonts are not installed.
    """
    if not fonts.is_dir():
        raise FileNotFoundError(f"{fonts} is missing: apt-get install fonts-dejavu-core")
    counts: Counter[str] = Counter()
    sources = Sources(root, fonts, workers)
    records, read = records_of(sources, collages, least_members, counts)
    out.mkdir(parents=True, exist_ok=True)
    summary = write.summary(records, read, counts)
    write.write_parquet(records, out / "records.parquet")
    write.write_artists(records, out / "artists.csv")
    write.write_counts(summary, out / "counts.json")
    write.write_licence(out / "LICENCE.md")
    return summary
