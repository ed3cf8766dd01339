"""Localisation end to end on a tiny index of drawings and collages, and its pieces by hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from attribution import defaults
from evaluation import localisation, two_objects
from evaluation.answers import Answers
from evaluation.data import load_records
from evaluation.recogniser import Training, predict
from evaluation.results import Results, read_lines
from evaluation.world import World
from tests.evaluation.tiny_world import evaluate
from tests.precompute.worlds import make_index, png, tiny_clip

PX = 16
FRUIT, MAMMAL = "fruit", "mammal"
SMALL = ("--least", "4", "--pool", "12", "--timesteps", "375", "--train-steps", "40")
LEFT, RIGHT = (1, 4, 6, 12), (9, 2, 15, 14)


def drawing(category: str, shade: int) -> Image.Image:
    """A red disc, nearly, or a dark block on white."""
    image = Image.new("RGB", (PX, PX), "white")
    _paint(ImageDraw.Draw(image), category, (3, 3, 13, 13), shade)
    return image


def collage(first: str, second: str, shade: int, ground: str = "#ffffdd") -> Image.Image:
    image = Image.new("RGB", (PX, PX), ground)
    for category, box in ((first, LEFT), (second, RIGHT)):
        _paint(ImageDraw.Draw(image), category, box, shade)
    return image


def _paint(draw: ImageDraw.ImageDraw, category: str, box, shade: int) -> None:
    x0, y0, x1, y1 = box
    if category == FRUIT:
        draw.rounded_rectangle((x0, y0, x1 - 1, y1 - 1), 1, fill=(255 - shade, 30, shade))
    else:
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=(shade, shade, 60))


def rows() -> list[dict]:
    """Six drawings of each category, then four training and two held-out collages."""
    made = []
    for i in range(12):
        category = (FRUIT, MAMMAL)[i % 2]
        made.append((f"d{i:02d}", drawing(category, 6 * i), f"{category[0]} {i}", category, []))
    for i in range(6):
        names = (FRUIT, MAMMAL) if i % 2 else (MAMMAL, FRUIT)
        parts = [f"d{2 * i + (name == MAMMAL):02d}" for name in names]
        boxes = [list(map(float, box)) for box in (LEFT, RIGHT)]
        cut = [{"id": p, "box": b} for p, b in zip(parts, boxes, strict=True)]
        made.append((f"c{i}", collage(*names, 9 * i), f"a{i} and b", "collage", cut))
    return [
        {
            **{"id": name, "image": png(image), "display": png(image), "width": PX, "height": PX},
            **{"captions": [caption], "artists": [f"artist {len(name)}"], "title": ""},
            **{"category": category, "split": "held-out" if name in ("c4", "c5") else "train"},
            **{"parts": parts, "source": "", "licence": "Public Domain"},
        }
        for name, image, caption, category, parts in made
    ]


@pytest.fixture(scope="module")
def world(tiny_model, tmp_path_factory) -> Path:
    """An index of the 18 records."""
    folder = tmp_path_factory.mktemp("collages") / "data"
    folder.mkdir()
    kind = pa.list_(pa.struct({"id": pa.string(), "box": pa.list_(pa.float64())}))
    table = pa.Table.from_pylist(rows())
    place = table.schema.get_field_index("parts")
    parts = pa.array(table["parts"].to_pylist(), kind)
    pq.write_table(table.set_column(place, "parts", parts), folder / "records.parquet")
    shutil.copytree(tiny_model, folder / "model")
    tiny_clip(folder / "clip")
    return make_index(folder.parent / "index", folder / "model", folder, "--clip",
                      str(folder / "clip"))  # fmt: skip


def test_what_a_record_shows(world):
    records = load_records(world)
    shown = two_objects.contains(records, FRUIT)
    assert [n for n, yes in zip(records.ids, shown, strict=True) if not yes] == [
        f"d{i:02d}" for i in range(1, 12, 2)
    ]
    assert two_objects.categories(records, 6) == (FRUIT, MAMMAL)
    asked = two_objects.prompts(records, (FRUIT, MAMMAL))
    assert len(asked) == 6 and set(asked[0].categories) == {FRUIT, MAMMAL}


def test_halves_find_the_objects_whatever_the_ground():
    for ground in ("white", "#c0e0ff"):
        image = np.asarray(collage(FRUIT, MAMMAL, 0, ground))
        assert next(two_objects.halves(image)) == (LEFT, RIGHT)
        turned = np.asarray(collage(FRUIT, MAMMAL, 0, ground).transpose(Image.Transpose.TRANSPOSE))
        above = tuple((y0, x0, y1, x1) for x0, y0, x1, y1 in (LEFT, RIGHT))
        assert next(two_objects.halves(turned)) == above
        cut = two_objects.cut_out(image, RIGHT, two_objects.ink(image)[0])
        assert cut.shape == image.shape and (cut[:, 0] == 255).all()
    assert list(two_objects.halves(np.asarray(drawing(MAMMAL, 0)))) == []
    assert list(two_objects.halves(np.full((PX, PX, 3), 200, np.uint8))) == []


def test_the_classifier_names_parts_of_collages_and_is_kept(world, tmp_path):
    among, training = (FRUIT, MAMMAL), Training(steps=60, batch_size=16)
    opened = World(world, "cpu")
    model = two_objects.classifier(opened, among, training, tmp_path)
    right, total = two_objects.accuracy(opened, among, model)
    assert (right, total) == (4, 4)
    again = two_objects.classifier(opened, among, training, tmp_path)
    images, _ = two_objects.examples(opened, among, "train")
    assert len(images) == 12 + 8
    assert np.array_equal(predict(model, images), predict(again, images))
    picture = np.asarray(collage(MAMMAL, FRUIT, 20))
    assert two_objects.locate(model, among, picture, (FRUIT, MAMMAL)) == (RIGHT, LEFT)
    assert two_objects.locate(model, among, picture, (MAMMAL, FRUIT)) == (LEFT, RIGHT)
    both = np.asarray(collage(FRUIT, FRUIT, 20))
    assert two_objects.locate(model, among, both, (FRUIT, MAMMAL)) is None


def test_held_out_collages_answer_resume_and_report(world, tmp_path, capsys):
    more = (*SMALL, "--pictures", "held-out", "--methods", "abu,pixel,clip-text", "--flips", "1")
    assert evaluate("localisation", world, tmp_path, *more) == 0
    out = capsys.readouterr().out
    assert "2 prompts of two objects whose picture is a held-out collage" in out
    assert ">= 0.8" in out
    lines = read_lines(tmp_path / "results" / "localisation.jsonl")
    answers = {line["unit"]: line for line in lines if "shares" in line}
    assert len(answers) == 6 and sum("spearman" in line for line in lines) == 3
    for line in answers.values():
        assert sorted(line["categories"]) == [FRUIT, MAMMAL]
        assert all(0 <= share <= 1 for pair in line["shares"].values() for share in pair)
        chance = dict(zip(line["categories"], line["chance"], strict=True))
        # a list of all twelve is the pool itself
        assert line["shares"]["a"] == pytest.approx([chance[c] for c in line["categories"]])
        assert line["common"] == 1.0
    assert evaluate("localisation", world, tmp_path, *more) == 0
    assert read_lines(tmp_path / "results" / "localisation.jsonl") == lines


def test_generated_pictures_are_judged_and_kept(world, tmp_path, capsys):
    """The cache holds collages in the place of drawn pictures: a tiny model draws noise."""
    from evaluation import generated

    opened = World(world, "cpu")
    sampling = generated.Sampling(2, 1.0, 16)
    asked = two_objects.prompts(opened.records, (FRUIT, MAMMAL))
    places = tmp_path / "cache" / "images" / f"{opened.pipeline_hash[:16]}-2-1"
    places.mkdir(parents=True)
    for i, wanted in enumerate(asked):
        for attempt in range(two_objects.SEEDS):
            seed = generated.seed_of(f"{attempt}|{wanted.prompt}")
            shown = (*wanted.categories,) if i % 2 else (FRUIT, FRUIT)
            key = generated._key(wanted.prompt, seed)
            collage(*shown, 10 * i).save(places / f"{key}.png")
    more = ("--methods", "pixel", "--flips", "0", "--steps", str(sampling.steps), "--guidance", "1")
    assert evaluate("localisation", world, tmp_path, *SMALL, *more) == 0
    out = capsys.readouterr().out
    assert "3 prompts of two objects whose generated picture shows both" in out
    assert "held-out drawings and parts of held-out collages right" in out


def test_the_costly_methods_come_first_and_the_ablations_not_at_all(world):
    answers = Answers(World(world, "cpu"))
    names = localisation._methods(None, answers)
    assert names[:3] == ["abu-ekfac", "abu", "clip"] and "abu-sgd" not in names
    assert {"pixel", "clip-text", "random"} <= set(names)
    assert not {"dino", "trak"} & set(names)  # this index has no rows of theirs
    assert localisation._methods(" clip,abu,clip", answers) == ["clip", "abu"]


def test_the_pool_is_raced_unless_all_scores_are_compared(world, tmp_path, monkeypatch):
    monkeypatch.setattr(localisation, "TOP", 2)
    monkeypatch.setattr(defaults, "RACING", ((1, 4),))
    answers = Answers(World(world, "cpu"))
    (case, *_) = two_objects.collage_cases(answers.world, (FRUIT, MAMMAL), 1)
    pool = localisation._pool(answers, 12)
    results = Results.open(tmp_path, "localisation", "x", {})
    job = localisation.Job(answers, results, pool, None)
    raced = job._ranked("abu", localisation._query(case, "a"))
    assert raced.params["racing"]["finalists"] == 4 and len(raced.ids) == 12
    whole = job._ranked("abu", localisation._query(case, "a"), whole=True)
    assert whole.params["racing"] is None and len(whole.params["columns"]) == 3
    every = localisation.Job(answers, results, pool, [375])._ranked(
        "abu", localisation._query(case, "b")
    )
    assert every.params["racing"] is None and every.params["columns"] == [1]


def test_an_answer_of_another_configuration_is_made_again(world, tmp_path, monkeypatch, capsys):
    more = (*SMALL, "--pictures", "held-out", "--methods", "abu,pixel", "--flips", "0")
    assert evaluate("localisation", world, tmp_path, *more) == 0
    path = tmp_path / "results" / "localisation.jsonl"
    before = read_lines(path)
    monkeypatch.setattr(defaults, "RELATIVE_INCREASE", 0.02)
    assert evaluate("localisation", world, tmp_path, *more, "--cases", "1") == 0
    (_, line) = read_lines(path)[len(before) :]
    assert line["method"] == "abu" and line["config"]["relative_increase"] == 0.02
    assert line["unit"] in {old.get("unit") for old in before} and line["run"] == before[-1]["run"]
    table = capsys.readouterr().out
    assert "share of A's list that is in B's" in table and "seconds an answer" in table


def test_a_method_that_cannot_run_here_is_refused(world, tmp_path, capsys):
    for name in ("nope", "dinov2"):
        assert evaluate("localisation", world, tmp_path, *SMALL, "--methods", name) == 2
        assert name in capsys.readouterr().err
