"""Detectors by name, and the engine, the command line over them."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from functools import partial

import pytest

from attribution.__main__ import main
from attribution.detection import registry
from attribution.detection.desk import beside
from attribution.detection.grounding_dino import GroundingDino
from attribution.detection.protocol import LOADING, Detection, Found
from attribution.detection.registry import DEFAULT, SOURCE, Setup, choose, listed
from attribution.engine import Engine
from attribution.types import Progress, Query, UserError
from precompute import options
from precompute.build import Build
from tests.attribution.worlds import finished
from tests.tiny import tiny_images


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_index, detector_folder):
    """An index that ships a detector of its own."""
    out = shutil.copytree(tiny_index, tmp_path_factory.mktemp("own") / "index")
    parser = argparse.ArgumentParser()
    options.add_common(parser)
    options.add_settings(parser)
    job = Build.begin(parser.parse_args(["--out", str(out)]))
    job.install_encoder(registry.ENCODER, detector_folder)
    return out


@pytest.fixture(scope="module")
def detecting(world) -> Engine:
    return Engine(world, "cpu")


def test_the_index_s_own_detector_is_the_default(detecting):
    entries = {entry["name"]: entry for entry in detecting.detectors()}
    assert set(entries) == {
        *("grounding-dino", "grounding-dino-tiny", "groundingdino-py", "attention")
    }
    assert entries["grounding-dino"]["available"] and entries["grounding-dino"]["default"]
    assert not entries["groundingdino-py"]["available"] and entries["groundingdino-py"]["why"]
    assert [entry["default"] for entry in entries.values()].count(True) == 1


def test_without_one_and_offline_attention_is_left(engine, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    setup = Setup(engine.denoiser)
    monkeypatch.setenv(SOURCE, "/no/such/folder")
    with pytest.raises(UserError, match="grounding-dino: there is no folder /no/such/folder"):
        choose("grounding-dino", setup)
    with pytest.raises(UserError, match="there is no folder"):  # what is asked for by name
        choose("auto", setup)
    monkeypatch.setenv(SOURCE, "nobody/no-such-detector")
    why = {entry["name"]: entry["why"] for entry in listed(setup)}
    assert "hub's cache" in why["grounding-dino"]
    monkeypatch.delenv(SOURCE)
    assert choose("auto", setup) == "attention"
    monkeypatch.setenv(SOURCE, "nobody/no-such-detector")
    with pytest.raises(UserError, match="grounding-dino: nobody/no-such-detector is not"):
        choose("grounding-dino", setup)
    with pytest.raises(UserError, match=r"unknown detector 'yolo'; there are grounding-dino, "):
        choose("yolo", setup)
    monkeypatch.setenv(SOURCE, str(tmp_path))
    assert setup.source == (str(tmp_path), None) and choose("auto", setup) == "grounding-dino"
    monkeypatch.setenv(DEFAULT, "attention")
    assert choose("auto", setup) == "attention" and choose("", setup) == "attention"


def test_a_low_threshold_is_one_for_names_too(detecting):
    """Else the names' own least score would go on keeping boxes out."""
    query = Query("a dog and a house, by e", tiny_images(1)[0].resize((50, 30)))
    both = finished(detecting.detect(query, threshold=0.0, text_threshold=0.0))
    assert finished(detecting.detect(query, threshold=0.0)).detections == both.detections != ()
    usual = finished(detecting.detect(query, threshold=0.4)).detections
    assert usual == finished(detecting.detect(query, threshold=0.4, text_threshold=0.25)).detections


def test_detect_takes_queries_and_plain_pictures(detecting):
    image = tiny_images(1)[0].resize((50, 30))
    query = Query("a dog and a house, by e", image)
    found = finished(detecting.detect(query, threshold=0.0, text_threshold=0.0))
    assert found.phrases == ("dog", "house") and found.detections
    assert all(one.box[2] <= 50 and one.box[3] <= 30 for one in found.detections)
    same = finished(detecting.detect(image, "dog. house", 0.0, 0.0, "grounding-dino"))
    assert same.detections == found.detections
    looked = finished(detecting.detect(query, "dog", 0.5, 0.0, "attention"))
    assert looked.heatmaps["dog"].shape == (30, 50)


def test_the_prompt_s_other_nouns_are_looked_for_along_and_left_out(detecting):
    """What is there is not taken for what was asked for: the same boxes as if all were wanted."""
    query = Query("a dog and a house, by e", tiny_images(1)[0].resize((50, 30)))
    both = finished(detecting.detect(query, threshold=0.0, text_threshold=0.0))
    assert {one.label for one in both.detections} == {"dog", "house"}
    for name in ("dog", "house"):
        found = finished(detecting.detect(query, name, 0.0, 0.0))
        assert found.phrases == (name,) and found.rather == ()
        same = [one for one in both.detections if one.label == name]
        near = partial(pytest.approx, rel=1e-4)  # another order of the phrases: float32 to rounding
        assert [one.box for one in found.detections] == [near(one.box) for one in same]
        assert [one.score for one in found.detections] == near([one.score for one in same])
    assert beside(query, ("spaceship",)) == ("dog", "house")
    assert beside(query, ("houses", "the dogs")) == ()  # other words for the same
    endless = replace(query, prompt=f"a {'very ' * 50}long thing and a house")
    assert beside(endless, ("dog",)) == ("house",)
    assert beside(query, ("big dog",)) == ("house",)  # its name is part of what is wanted
    many = tuple(f"thing{i}" for i in range(15))
    assert beside(query, many) == ("dog",)  # no more than may be asked for at once


def test_what_is_rather_something_else_is_found_and_said(detecting, monkeypatch):
    """Asked along, the other noun has every box: they count all the same, with what they are."""
    query = Query("a house, by e", tiny_images(1)[0].resize((50, 30)))
    asked = []

    class Sees:
        def run(self, query, text, threshold, text_threshold):
            asked.append(text)
            label = "house" if "house" in text else "roof"
            yield Progress("detect", 0, 1)
            yield Found("sees", tuple(text.split()), (Detection((0, 0, 9, 9), 0.9, label),))

    monkeypatch.setattr(detecting._desk, "_detector", lambda name: Sees())
    found = finished(detecting.detect(query, "roof"))
    assert asked == ["roof. house.", "roof."] and found.rather == ("house",)
    assert [one.label for one in found.detections] == ["roof"] and found.phrases == ("roof",)


def test_bad_input_is_refused_before_the_model_is_taken(detecting):
    image = tiny_images(1)[0]
    bad = [
        ({"text": " "}, "empty"),
        ({"text": "dog", "threshold": 2}, "threshold"),
        ({"text": "dog", "text_threshold": "x"}, "threshold"),
        ({"text": "dog", "detector": "yolo"}, "unknown detector"),
    ]
    for arguments, why in bad:
        with pytest.raises(UserError, match=why):
            next(detecting.detect(image, **arguments))
    with pytest.raises(UserError, match="names nothing"):
        next(detecting.detect(Query("by e", image)))
    *_, query = detecting.generate("ab", 1, steps=2)
    assert query.seed == 1  # the lock is free


def test_word_maps_of_a_query(detecting):
    *_, query = detecting.generate("ab cd", 1, steps=2)
    *progress, maps = detecting.word_maps(query)
    assert maps.words == ("ab", "cd") and maps.maps.shape == (2, 8, 8) and len(progress) == 2


def test_command_line(world, tmp_path, capsys):
    base = ["--index", str(world), "--prompt", "ab cd", "--seed", "3", "--method", "pixel"]
    assert main([*base, "--detect", " ", "--out", str(tmp_path / "b")]) == 2
    assert "empty" in capsys.readouterr().err
    arguments = ["--detect", "ab", "--detector", "attention", "--threshold", "0.2"]
    assert main([*base, *arguments, "--out", str(tmp_path / "c")]) == 0
    regions = json.loads((tmp_path / "c" / "result.json").read_text())["query"]["regions"]
    assert len(regions) == 1
    assert main([*base, "--detect", "ab", "--threshold", "1", "--out", str(tmp_path / "d")]) == 2
    assert "no 'ab' found" in capsys.readouterr().err
    assert not (tmp_path / "d").exists()


def test_the_command_line_refuses_before_it_draws(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Engine, "generate", lambda *_: pytest.fail("drew a picture"))
    base = ["--index", str(world), "--prompt", "ab", "--seed", "3", "--out", str(tmp_path / "a")]
    for more, why in (
        (("--detector", "yolo"), "unknown detector 'yolo'"),
        (("--detector", "groundingdino-py"), "groundingdino-py"),
        (("--threshold", "nan"), "the threshold has to be a number"),
    ):
        assert main([*base, "--detect", "dog", *more]) == 2
        assert why in capsys.readouterr().err


def test_the_best_boxes_are_taken_where_there_are_too_many(world, tmp_path, monkeypatch):
    boxes = [Detection((i / 4, 0.0, 8.0 + i / 4, 8.0), 1 - i / 40, "dog") for i in range(20)]
    monkeypatch.setattr(GroundingDino, "detect", lambda *_: boxes)
    base = ["--index", str(world), "--prompt", "ab", "--seed", "3", "--method", "pixel"]
    more = ["--region", "0,9,4,12", "--detect", "dog", "--out", str(tmp_path / "a")]
    assert main([*base, *more]) == 0
    regions = json.loads((tmp_path / "a" / "result.json").read_text())["query"]["regions"]
    assert regions == [[0, 9, 4, 12], *(list(one.box) for one in boxes[:15])]


def test_loading_is_said_once(world):
    engine = Engine(world, "cpu")
    image = tiny_images(1)[0]
    stages = [i.stage for i in engine.detect(image, "dog") if isinstance(i, Progress)]
    assert LOADING in stages
    stages = [i.stage for i in engine.detect(image, "dog") if isinstance(i, Progress)]
    assert LOADING not in stages
