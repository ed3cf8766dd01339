"""Every method on the fixed queries: on a tiny index end to end, and its tables by hand."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from attribution.methods.registry import METHODS, register
from attribution.types import Query, UserError
from evaluation import queries
from evaluation.data import load_records
from evaluation.generated import Sampling
from evaluation.method_tables import answered, overlap, overlaps
from evaluation.methods import PICTURE, summarise
from evaluation.results import current, markdown, read_lines
from evaluation.world import World
from precompute.__main__ import main
from tests.evaluation.tiny_world import evaluate

SHORT = ("--steps", "2", "--guidance", "1", "--queries", "2", "--top", "4")
CHEAP = ["random", "pixel", "clip-text", "clip"]


def lines_of(place):
    return read_lines(place / "results" / "methods.jsonl")


def answers_of(place):
    return [line for line in lines_of(place) if "ids" in line]


@pytest.fixture(scope="module")
def place(full_index, tmp_path_factory):
    """A folder in which every method has answered."""
    folder = tmp_path_factory.mktemp("methods")
    assert evaluate("methods", full_index, folder, *SHORT) == 0
    return folder


def test_every_method_answers_the_cheap_ones_first(full_index, place, capsys):
    lines = answers_of(place)
    asked = list(dict.fromkeys(line["method"] for line in lines))
    assert len(lines) == 2 * len(METHODS) and set(asked) == set(METHODS)
    kinds = [METHODS[name].kind for name in asked]
    assert list(dict.fromkeys(kinds)) == ["control", "similarity", "gradient", "unlearning"]
    own = [name for name in asked if METHODS[name].kind == "unlearning"]
    assert own[:2] == ["abu-ekfac", "abu"]
    assert [line["first"] for line in lines] == [True, False] * len(METHODS)
    assert (place / "results" / PICTURE).stat().st_size > 0
    before = lines_of(place)
    assert evaluate("methods", full_index, place, *SHORT) == 0
    assert lines_of(place) == before
    out = capsys.readouterr().out
    assert "| overlap@4 | random | pixel |" in out and "| in the top 4 | same category |" in out
    assert "| cost | queries |" in out and "nan" not in out


def test_a_line_is_the_products_own_answer(full_index, place):
    world, sampling = World(full_index, "cpu"), Sampling(2, 1.0)
    asked = queries.queries(world, 2, sampling, place / "cache")
    lines = {(line["query"], line["method"]): line for line in answers_of(place)}
    for name in ("random", "clip", "journeytrak", "abu"):
        for one in asked:
            query = Query(one.prompt, one.image, one.seed, 2, 1.0)
            *_, answer = world.engine.attribute(query, (name,), 4)
            line = lines[one.key, name]
            assert tuple(line["ids"]) == answer.ids[:4]
            assert line["candidate_source"] == answer.candidate_source
            assert line["among"] == 16 and line["options"].keys() == answer.params.keys()


def test_shares_and_chance_by_hand(full_index, place):
    records = load_records(full_index)
    of = dict(zip(records.ids, records.categories, strict=True))
    category = {"benin, africa, flag, by Daniel McRae": "flag"}
    category["pink triangular led, by Jean-Victor Balin"] = "led"
    for line in answers_of(place):
        wanted = category[line["prompt"]]
        own = [of[name] == wanted for name in line["ids"]]
        assert line["share"] == {"category": np.mean(own)}  # nobody here has these artists
        assert line["chance"] == {"category": 2 / 16}  # eight categories in turn


def test_costs_are_those_of_the_index(full_index, place):
    engine = World(full_index, "cpu").engine
    about = {u["method"]: u for u in lines_of(place) if u.get("unit", "").startswith("method ")}
    assert set(about) == set(METHODS) and not any(unit["why"] for unit in about.values())
    for name, unit in about.items():
        found = engine.cost(name)
        assert unit["cost"]["parts"] == found.parts and unit["cost"]["memory"] == found.memory
        assert unit["cost"]["seconds"] == found.seconds


def test_without_what_a_method_needs_the_others_answer(tiny_index, tmp_path, capsys):
    one = (*SHORT, "--queries", "1")
    assert evaluate("methods", tiny_index, tmp_path, *one, "--methods", "clip,trak") == 2
    assert "no trak rows" in capsys.readouterr().err
    assert evaluate("methods", tiny_index, tmp_path, *one, "--methods", "nobody") == 2
    assert "no method 'nobody'" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
    assert evaluate("methods", tiny_index, tmp_path, *one) == 0
    assert "Not there: trak, for this index has no trak rows" in capsys.readouterr().out
    assert {line["method"] for line in answers_of(tmp_path)} >= {*CHEAP, "abu", "abu-ekfac"}


# ------------------------------------------------------------------------------------ interruptions


@contextmanager
def moody(*moods):
    """A method "moody": as random, but each run in turn raises what `moods` say; None: nothing."""
    left = list(moods)

    def build(context):
        own = METHODS["random"].build(context)
        plain = own.run

        def run(*arguments, **options):
            if left and (error := left.pop(0)):
                raise error
            return plain(*arguments, **options)

        own.run = run
        return own

    register([replace(METHODS["random"], name="moody", build=build)])
    try:
        yield
    finally:
        del METHODS["moody"]


def test_a_stopped_run_goes_on_where_it_was(tiny_index, tmp_path, capsys):
    arguments = (*SHORT, "--methods", "moody,random")
    with moody(None, KeyboardInterrupt()):
        assert evaluate("methods", tiny_index, tmp_path, *arguments) == 130
    kept = answers_of(tmp_path)
    assert [line["method"] for line in kept] == ["moody"]
    path = tmp_path / "results" / "methods.jsonl"
    with path.open("a") as file:
        file.write('{"unit": "half a li')  # a kill while writing
    with moody():
        assert evaluate("methods", tiny_index, tmp_path, *arguments) == 0
    lines = answers_of(tmp_path)
    assert lines[0] == kept[0]
    assert [line["method"] for line in lines] == ["moody", "moody", "random", "random"]
    assert len({line["unit"] for line in lines}) == 4


def test_one_methods_failure_stops_none_of_the_others(tiny_index, tmp_path, capsys):
    arguments = (*SHORT, "--methods", "moody,random")
    with moody(UserError("no luck")):
        assert evaluate("methods", tiny_index, tmp_path, *arguments) == 2
        assert "moody on 'benin, africa, flag, by Daniel McRae': no luck" in capsys.readouterr().err
        assert [line["method"] for line in answers_of(tmp_path)] == ["moody", "random", "random"]
        assert evaluate("methods", tiny_index, tmp_path, *arguments) == 0
    assert len(answers_of(tmp_path)) == 4


def test_rows_made_anew_are_asked_again_and_nothing_else(full_index, place, tmp_path):
    out = shutil.copytree(full_index, tmp_path / "index")
    shutil.copytree(place, tmp_path / "place")
    before = answers_of(tmp_path / "place")
    assert main(["trak", "--out", str(out), "--dim", "32", "--rebuild"]) == 0
    assert evaluate("methods", out, tmp_path / "place", *SHORT) == 0
    again = answers_of(tmp_path / "place")[len(before) :]
    assert {line["method"] for line in again} == {"trak", "journeytrak", "datainf"}
    ((head, units),) = current(tmp_path / "place" / "results", "methods")
    (dims,) = {unit["options"]["dim"] for unit in answered(units)["trak"].values()}
    assert dims == again[0]["options"]["dim"] != before[0]["options"].get("dim")
    assert len(answered(units)["trak"]) == 2 and head["settings"]["top"] == 4


# ------------------------------------------------------------------------------------------ by hand


def about(name, kind, seconds, **cost):
    facts = {"parts": {}, "memory": 0, **cost, "seconds": seconds}
    unit = {"unit": f"method {name}", "method": name, "kind": kind, "why": "", "basis": "b"}
    return {**unit, "cost": facts}


def answer(name, query, ids, seconds, share, *, first=False, basis="b"):
    unit = {"unit": f"{query} {name} {basis}", "method": name, "query": query, "basis": basis}
    unit |= {"ids": list(ids), "seconds": seconds, "first": first, "among": 50}
    unit |= {"candidates": 50, "candidate_source": "exhaustive"}
    chance = {"category": 0.1, "artist": 0.2}
    return {**unit, "share": share, "chance": {label: chance[label] for label in share}}


def made_up():
    """Two methods and the control on two queries, of which the second has no known artist."""
    return [
        about("abu", "unlearning", {"losses": 0.25, "latents": None}, parts={"a": 40, "b": 2}),
        about("clip", "similarity", {"features": 0.5}, parts={"clip rows": 512}),
        about("pixel", "similarity", {}, memory=9),
        answer("abu", "q1", "zyxw", 100.0, {"category": 0.0, "artist": 0.0}, basis="old"),
        answer("clip", "q1", "abcd", 9.0, {"category": 0.5, "artist": 0.25}, first=True),
        answer("clip", "q2", "efgh", 1.0, {"category": 1.0}),
        answer("abu", "q1", "badz", 30.0, {"category": 1.0, "artist": 0.75}, first=True),
        answer("abu", "q2", "zyhx", 20.0, {"category": 1.0}),
        answer("pixel", "q1", "dxyz", 2.0, {"category": 0.0, "artist": 0.0}),
    ]


def test_tables_by_hand():
    head = {"settings": {"top": 4}}
    text = markdown(summarise(head, made_up()))
    # clip and abu: {a, b, d} of 4 and {h} of 4; pixel answered the first query only
    assert "| overlap@4 | clip | pixel | abu |" in text
    assert "| clip | 1.00 | 0.25 | 0.50 |" in text and "| abu | 0.50 | 0.50 | 1.00 |" in text
    assert "| clip | 0.75 ± 0.25 | 0.100 | 2 | 0.25 | 0.200 | 1 |" in text
    assert "| abu | 1.00 ± 0.00 | 0.100 | 2 | 0.75 | 0.200 | 1 |" in text
    assert "| clip | 2 | 1.000 | 9.000 | 50 (exhaustive) | 512 (clip rows 512) | 0.500 " in text
    assert "| 42 (a 40, b 2) | not recorded (losses 0.250, latents not recorded) |" in text
    assert "| pixel | 1 | 2.000 |  | 50 (exhaustive) | 0, 9 in memory | 0 |" in text
    assert "| overlap@4 of two of 3 methods, mean | 0.42, most 0.50 (pixel and abu) |" in text
    assert "| same artist in the top 4, abu | 0.75, chance 0.200; 1 of 2 queries |" in text


def test_overlap_by_hand():
    assert overlap("abcd", "dcxy") == 0.5 and overlap("abcd", "a") == 1.0
    assert np.isnan(overlap("", "abc"))
    values = overlaps(answered(made_up()))
    assert np.array_equal(values, values.T) and np.array_equal(np.diag(values), np.ones(3))


def test_an_answer_made_in_another_way_is_left_out():
    found = answered(made_up())
    assert found["abu"]["q1"]["ids"] == list("badz") and list(found) == ["clip", "pixel", "abu"]
    only = [unit for unit in made_up() if unit["method"] == "abu" and unit["basis"] != "b"]
    assert answered([*made_up()[:3], *only]) == {}
