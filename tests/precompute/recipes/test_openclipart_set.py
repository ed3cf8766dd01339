"""The set as a whole on a few drawings written here: bytes, split, collages, exclusions."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from attribution.types import UserError
from precompute.__main__ import main
from precompute.recipes.openclipart import build, collage, render, select

SHAPES = {
    "food/fruit/apple_x": '<circle cx="50" cy="50" r="30" fill="#c00"/>',
    "food/fruit/banana_x": '<rect x="20" y="40" width="60" height="20" fill="#dd0"/>',
    "food/fruit/copy_of_banana": '<rect x="20" y="40" width="60" height="20" fill="#dddd05"/>',
    "animals/mammals/cat_x": '<path d="M10 90 L50 10 L90 90 Z" fill="#555"/>',
    "animals/mammals/dog_x": '<ellipse cx="50" cy="50" rx="40" ry="20" fill="#840"/>',
    "animals/mammals/ghost": '<circle cx="50" cy="50" r="30" fill="#fff"/>',
    "animals/mammals/blank": "",
    "food/beverages/alcohol/beer": '<rect x="20" y="20" width="40" height="60" fill="#fb0"/>',
    "office/pen": '<rect x="45" y="10" width="10" height="80"/>',
}
METADATA = """<metadata><dc:title>{title}</dc:title>
<dc:creator><dc:title>{artist}</dc:title></dc:creator>
<cc:license rdf:resource="http://{licence}"/></metadata>"""
PUBLIC_DOMAIN = "web.resource.org/cc/PublicDomain"


def write_svg(path: Path, body: str, licence: str = PUBLIC_DOMAIN) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    about = METADATA.format(title=path.stem.replace("_x", ""), artist="Ann A.", licence=licence)
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100"'
    spaces = 'xmlns:dc="d" xmlns:cc="c" xmlns:rdf="r"'
    path.write_text(f"{head} {spaces}>{about}{body}</svg>")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("svg")
    for name, body in SHAPES.items():
        write_svg(folder / f"{name}.svg", body)
    write_svg(folder / "plants/fern.svg", '<circle cx="9" cy="9" r="9"/>', "example.org/GPL")
    return folder


def make(root: Path, out: Path, fonts: Path, workers: int = 1) -> dict[str, object]:
    return build(out, root=root, fonts=fonts, workers=workers, collages=8, least_members=2)


def rows(out: Path) -> dict[str, dict]:
    return {row["id"]: row for row in pq.read_table(out / "records.parquet").to_pylist()}


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("out")
    return out, make(root, out, root)


def test_two_runs_and_any_number_of_workers_give_the_same_bytes(
    root: Path, made: tuple[Path, dict], tmp_path: Path
) -> None:
    make(root, tmp_path, root, workers=2)
    names = sorted(path.name for path in made[0].iterdir())
    assert names == ["LICENCE.md", "artists.csv", "counts.json", "records.parquet"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (made[0] / name).read_bytes(), name


def test_every_drawing_is_a_record_or_counted_under_a_rule(made: tuple[Path, dict]) -> None:
    counts = made[1]
    excluded = counts["excluded"]
    assert counts["read"] == len(SHAPES) + 1 == counts["drawings"] + sum(excluded.values())
    assert excluded["nearly the same pixels as another"] == 1
    assert excluded["nothing drawn, or unreadable"] == 1
    assert excluded["licence other than public domain, or none stated"] == 1
    assert excluded["outside the chosen families"] == 1
    assert any("classroom" in rule for rule, n in excluded.items() if n)


def test_records_keep_the_contract(made: tuple[Path, dict]) -> None:
    found = rows(made[0])
    assert list(found) == sorted(found)
    apple = found["food/fruit/apple_x"]
    assert apple["captions"] == ["apple, fruit, by Ann A."] and apple["artists"] == ["Ann A."]
    assert (apple["category"], apple["parts"]) == ("fruit", [])
    for row in found.values():
        assert picture(row["image"]).shape == (64, 64, 3)
        assert picture(row["display"]).shape == (row["height"], row["width"], 3) == (192, 192, 3)


def test_a_white_drawing_gets_a_tinted_ground_and_joins_no_collage(made: tuple[Path, dict]) -> None:
    found = rows(made[0])
    corner = picture(found["animals/mammals/ghost"]["image"])[0, 0]
    assert tuple(corner) == render.TINT
    used = {part["id"] for row in found.values() for part in row["parts"]}
    assert used and "animals/mammals/ghost" not in used


def test_boxes_are_where_the_pixels_differ_from_the_ground(made: tuple[Path, dict]) -> None:
    collages = [row for row in rows(made[0]).values() if row["parts"]]
    assert len(collages) == 8
    for row in collages:
        pixels = picture(row["image"])
        ink = np.abs(pixels - pixels[0, 0]).max(-1) > 8
        for part in row["parts"]:
            x0, y0, x1, y1 = (int(value) for value in part["box"])
            inside = np.argwhere(ink[y0:y1, x0:x1])
            assert np.all(inside.min(0) <= 1) and np.all(
                inside.max(0) >= (y1 - y0 - 2, x1 - x0 - 2)
            )
            ink[y0:y1, x0:x1] = False
        assert not ink.any()


def test_collages_name_both_parts_in_reading_order(made: tuple[Path, dict]) -> None:
    for row in rows(made[0]).values():
        if row["parts"]:
            first, second = (part["box"] for part in row["parts"])
            assert first[0] < second[0] or first[1] < second[1]
            names = [part["id"].split("/")[-1].removesuffix("_x") for part in row["parts"]]
            said = " and ".join(f"a{'n' if name[0] in 'aeiou' else ''} {name}" for name in names)
            assert row["captions"] == [f"{said}, by Ann A."]


def test_collages_of_held_out_drawings_are_held_out(made: tuple[Path, dict]) -> None:
    found = rows(made[0])
    held_out = {name for name, row in found.items() if row["split"] == "held-out"}
    drawn = {name for name in held_out if not found[name]["parts"]}
    assert Counter(found[name]["category"] for name in drawn) == {"fruit": 1, "mammal": 1}
    for name, row in found.items():
        if row["parts"]:
            assert (name in held_out) == any(part["id"] in drawn for part in row["parts"])


def test_the_split_takes_five_percent_of_each_category_whatever_the_order() -> None:
    ids = [f"flag/{i}" for i in range(200)]
    chosen = select.split_of(ids)
    assert len(chosen) == 10 and chosen == select.split_of(ids[::-1])
    assert len(select.split_of(["only"])) == 1


def test_popular_pairs_take_their_share_and_drawings_take_turns() -> None:
    members = {name: [f"{name}/{i}" for i in range(50)] for name in ("fruit", "mammal", "tool")}
    plans = collage.plan(members, 100)
    pairs = Counter(frozenset(part.split("/")[0] for part in p.parts) for p in plans)
    assert pairs[frozenset(("fruit", "mammal"))] >= 40
    uses = Counter(part for p in plans for part in p.parts)
    assert max(uses.values()) - min(uses.values()) <= 2
    assert collage.plan({"fruit": members["fruit"]}, 100) == []


def test_twins_are_found_and_colour_variants_kept() -> None:
    grey = np.full(1728, 100, np.int16)
    assert select.twins(np.stack([grey, grey + 5, grey + 60])) == [1]


def test_missing_sources_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["recipe", "openclipart", "--out", str(tmp_path / "o"), "--source", "/nowhere"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "apt-get install" in error and len(error.splitlines()) == 1
    assert issubclass(UserError, ValueError) and not (tmp_path / "o").exists()
