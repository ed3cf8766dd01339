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
from evaluation import generated, localisation, own_parts
from evaluation.answers import Answers
from evaluation.data import load_records
from evaluation.generated import Sampling, seed_of
from evaluation.objects import cutting, identities, two_objects
from evaluation.objects.alone import alone, named
from evaluation.objects.pooled import Ranker
from evaluation.recogniser import Training, predict
from evaluation.results import read_lines
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


def made() -> list[tuple]:
    """(id, picture, caption, category, parts) of six drawings of each category, then of four
    training and two held-out collages."""
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
    return made


def rows() -> list[dict]:
    """The records' table."""
    return [
        {
            **{"id": name, "image": png(image), "display": png(image), "width": PX, "height": PX},
            **{"captions": [caption], "artists": [f"artist {len(name)}"], "title": ""},
            **{"category": category, "split": "held-out" if name in ("c4", "c5") else "train"},
            **{"parts": parts, "source": "", "licence": "Public Domain"},
        }
        for name, image, caption, category, parts in made()
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
        assert next(cutting.halves(image)) == (LEFT, RIGHT)
        turned = np.asarray(collage(FRUIT, MAMMAL, 0, ground).transpose(Image.Transpose.TRANSPOSE))
        above = tuple((y0, x0, y1, x1) for x0, y0, x1, y1 in (LEFT, RIGHT))
        assert next(cutting.halves(turned)) == above
        cut = cutting.cut_out(image, RIGHT, cutting.ink(image)[0])
        assert cut.shape == image.shape and (cut[:, 0] == 255).all()
    assert list(cutting.halves(np.asarray(drawing(MAMMAL, 0)))) == []
    assert list(cutting.halves(np.full((PX, PX, 3), 200, np.uint8))) == []


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
    more += ("--words",)
    assert evaluate("localisation", world, tmp_path, *more) == 0
    out = capsys.readouterr().out
    assert "2 prompts of two objects whose picture is a held-out collage" in out
    assert ">= 0.8" in out
    lines = read_lines(tmp_path / "results" / "localisation.jsonl")
    answers = {line["unit"]: line for line in lines if "shares" in line}
    assert len(answers) == 6 and sum("spearman" in line for line in lines) == 3
    nothing = {"everything": 0.0, "union": 0.0, "flip": 0.0}
    same = [line["identities"] for line in lines if "identities" in line]
    assert same == [nothing] * 3 and out.count("| 0 (3 methods) | 0 | pass |") == 3
    worded = [line for line in lines if "worded" in line]
    assert len(worded) == 6 and "clip-text, in words" in out
    for line in worded:  # the first letter of a drawing's caption and its number
        assert {name[0] for name in line["names"]} == {"f", "m"}
        assert set(line["worded"]) == {"a", "b"}
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
    for _, _, caption, category, parts in made():
        for attempt in range(0 if parts else two_objects.SEEDS):
            seed = generated.seed_of(f"alone|{attempt}|{caption}")
            # of the mammals, only the second picture is one
            shown = FRUIT if category == FRUIT or attempt != 1 else MAMMAL
            drawing(shown, 5).save(places / f"{generated._key(caption, seed)}.png")
    more = ("--methods", "pixel", "--flips", "0", "--steps", str(sampling.steps), "--guidance", "1")
    assert evaluate("localisation", world, tmp_path, *SMALL, *more) == 0
    out = capsys.readouterr().out
    assert "3 prompts of two objects whose generated picture shows both" in out
    assert "held-out drawings and parts of held-out collages right" in out
    lines = read_lines(tmp_path / "results" / "localisation.jsonl")
    singly = [line for line in lines if line.get("unit", "").startswith("alone/pixel/")]
    assert len(singly) == 3
    # a list of all twelve is the pool itself, of which half or more show each category
    records = load_records(world)
    pool = localisation.pool_of(Answers(opened), 12)
    for line in singly:
        kinds = [two_objects.category_of(records)[part] for part in line["parts"]]
        chance = [two_objects.contains(records, kind)[pool].mean() for kind in kinds]
        assert line["alone"] == pytest.approx(chance)
    assert "drawn alone" in out and "Drawn alone: the share" in out


def test_an_object_alone_is_the_first_picture_that_the_classifier_names(world, tmp_path):
    opened, among = World(world, "cpu"), (FRUIT, MAMMAL)
    model = two_objects.classifier(opened, among, Training(steps=60, batch_size=16), tmp_path)
    for kind in among:
        assert named(model, among, np.asarray(drawing(kind, 20))) == kind
    assert named(model, among, np.full((PX, PX, 3), 255, np.uint8)) is None
    (case, *_) = two_objects.collage_cases(opened, among, 1)
    sampling = Sampling(2, 1.0)
    places = tmp_path / "images" / f"{opened.pipeline_hash[:16]}-2-1"
    places.mkdir(parents=True)
    captions = dict(zip(opened.records.ids, opened.records.captions, strict=True))
    seeds = {}
    for i, part in enumerate(case.parts):
        for attempt in range(two_objects.SEEDS):
            seed = seed_of(f"alone|{attempt}|{captions[part]}")
            # the first object at the third attempt, the second never
            shown = case.categories[i] if i == 0 and attempt == 2 else case.categories[1 - i]
            drawing(shown, 10).save(places / f"{generated._key(captions[part], seed)}.png")
            seeds[i, attempt] = seed
    found = alone(opened, model, among, [case], sampling, tmp_path)
    assert list(found) == [(case.key, 0)]
    query = found[case.key, 0]
    assert (query.prompt, query.seed) == (captions[case.parts[0]], seeds[0, 2])
    assert query.regions == ()


def test_the_costly_methods_come_first_and_the_ablations_not_at_all(world):
    answers = Answers(World(world, "cpu"))
    names = localisation._methods(None, answers)
    assert names[:3] == ["abu-ekfac", "abu", "clip"] and "abu-sgd" not in names
    assert {"pixel", "clip-text", "random"} <= set(names)
    assert not {"dino", "trak"} & set(names)  # this index has no rows of theirs
    assert localisation._methods(" clip,abu,clip", answers) == ["clip", "abu"]


def test_the_pool_is_raced_unless_all_scores_are_compared(world, monkeypatch):
    monkeypatch.setattr(defaults, "RACING", ((1, 4),))
    answers = Answers(World(world, "cpu"))
    (case, *_) = two_objects.collage_cases(answers.world, (FRUIT, MAMMAL), 1)
    ids = answers.index.ids(localisation.pool_of(answers, 12))
    ranker = Ranker(answers)
    raced = ranker.ranked("abu", case.query("a"), ids, 2)
    assert raced.params["racing"]["finalists"] == 4 and len(raced.ids) == 12
    whole = ranker.ranked("abu", case.query("a"), ids, 2, compared=True)
    assert whole.params["racing"] is None and len(whole.params["columns"]) == 3
    every = Ranker(answers, [375]).ranked("abu", case.query("b"), ids, 2)
    assert every.params["racing"] is None and every.params["columns"] == [1]


def test_an_answer_of_another_configuration_is_made_again(world, tmp_path, monkeypatch, capsys):
    more = (*SMALL, "--pictures", "held-out", "--methods", "abu,pixel", "--flips", "0")
    assert evaluate("localisation", world, tmp_path, *more) == 0
    path = tmp_path / "results" / "localisation.jsonl"
    before = read_lines(path)
    monkeypatch.setattr(defaults, "RELATIVE_INCREASE", 0.02)
    assert evaluate("localisation", world, tmp_path, *more, "--cases", "1") == 0
    (_, line, again) = read_lines(path)[len(before) :]
    assert again["unit"] == "identities/abu"
    assert line["method"] == "abu" and line["config"]["relative_increase"] == 0.02
    assert line["unit"] in {old.get("unit") for old in before} and line["run"] == before[-1]["run"]
    table = capsys.readouterr().out
    assert "share of A's list that is in B's" in table and "seconds an answer" in table


def test_a_method_that_cannot_run_here_is_refused(world, tmp_path, capsys):
    for name in ("nope", "dinov2"):
        assert evaluate("localisation", world, tmp_path, *SMALL, "--methods", name) == 2
        assert name in capsys.readouterr().err


def test_own_parts_ranks_the_drawing_of_the_region(world, tmp_path, capsys):
    """A pixel's cut-out is nearest to the part it was pasted from; ranks are places of a list."""
    more = ("--cases", "4", "--pool", "12", "--timesteps", "375", "--methods", "pixel,abu")
    assert evaluate("own-parts", world, tmp_path, *more) == 0
    out = capsys.readouterr().out
    path = tmp_path / "results" / "own-parts.jsonl"
    lines = [line for line in read_lines(path) if "ranks" in line]
    assert len(lines) == 8 and "own drawing before the other's" in out
    opened = World(world, "cpu")
    cases = dict(own_parts.collages(opened.records, world, 4))
    pool = Answers(opened).index.ids(localisation.pool_of(Answers(opened), 12))
    every = set(pool) | {part for case in cases.values() for part in case.parts}
    for line in lines:
        record = line["unit"].split("/")[1]
        case = cases[record]
        assert line["parts"] == list(case.parts) and record not in case.parts
        assert line["among"] == len(every - {record})
        places = [rank for pair in line["ranks"].values() for rank in pair]
        assert all(1 <= place <= line["among"] for place in places)
        assert all(first != second for first, second in line["ranks"].values())
    # the fruit and the mammal look nothing alike, so a region's own drawing is before the other
    for line in (line for line in lines if line["method"] == "pixel"):
        for i, part in enumerate(("a", "b")):
            assert line["ranks"][part][i] < line["ranks"][part][1 - i]
    assert evaluate("own-parts", world, tmp_path, *more) == 0
    assert [line for line in read_lines(path) if "ranks" in line] == lines


def test_own_parts_in_words_ask_each_part_and_the_whole_by_its_noun(world, tmp_path, capsys):
    more = ("--cases", "2", "--pool", "12", "--timesteps", "375", "--methods", "abu,clip-text")
    assert evaluate("own-parts", world, tmp_path, *more, "--words") == 0
    out = capsys.readouterr().out
    assert "| clip-text, in words | 4 |" in out and "| clip-text | 4 |" in out
    path = tmp_path / "results" / "own-parts.jsonl"
    lines = {line["unit"]: line for line in read_lines(path) if "ranks" in line}
    assert len(lines) == 8
    cases = dict(own_parts.collages(load_records(world), world, 2))
    for record, case in cases.items():
        line = lines[f"words/clip-text/{record}"]
        assert line["names"] == list(case.names) and case.worded(0).called == case.names[0]
        # a method that sees words only finds the same with and without the region
        for i, part in enumerate(("a", "b")):
            assert line["ranks"][part] == line["ranks"][f"whole as {part}"]
            query = case.worded(i, whole=True)
            assert query.regions == () and query.called == case.names[i]


def test_identities_see_a_method_that_a_region_changes_wrongly(world, monkeypatch):
    opened = World(world, "cpu")
    (case, *_) = two_objects.collage_cases(opened, (FRUIT, MAMMAL), 1)
    ranker, ids = Ranker(Answers(opened), [375]), ["d00", "d01", "d02"]
    assert identities.differences(ranker, "abu", case, ids) == {"everything": 0.0, "union": 0.0}
    assert identities.flip_difference(opened.denoiser, case) == 0.0
    monkeypatch.setattr(identities, "as_mask", lambda query: case.query("a"))
    found = identities.differences(ranker, "abu", case, ids)
    assert found["everything"] == 0.0 < found["union"]
