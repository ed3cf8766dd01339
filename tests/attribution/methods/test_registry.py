"""One file and one line add a method; several methods answer without harming one another."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from attribution.__main__ import main
from attribution.methods import abu, control
from attribution.methods.registry import METHODS, register
from attribution.types import Attribution, Query, UserError
from tests.attribution.methods.novel import NAME, registered
from tests.tiny import tiny_images


@pytest.fixture
def novel(tmp_path):
    with registered(tmp_path) as name:
        yield name


@pytest.fixture(scope="module")
def query():
    return Query("ab by 2", tiny_images(3)[2], seed=1)


class Broken:
    """A method that begins and fails."""

    def __init__(self, error):
        self.error = error

    def run(self, query, ids=None, k=24, **options):
        raise self.error
        yield


@pytest.fixture
def broken(monkeypatch):
    """The name of a method that fails."""
    method = replace(METHODS["random"], name="broken", build=lambda _: Broken(UserError("no luck")))
    monkeypatch.setitem(METHODS, "broken", method)
    return "broken"


def ask(tiny_index, tmp_path, methods):
    arguments = ["--index", str(tiny_index), "--prompt", "ak by 0", "--seed", "1", "--top-k", "2"]
    out = tmp_path / "answer"
    code = main([*arguments, "--device", "cpu", "--method", methods, "--out", str(out)])
    return code, out / "result.json"


def test_a_method_of_one_file_is_listed_and_answers(novel, engine, query, tiny_index, tmp_path):
    (listed,) = [entry for entry in engine.methods() if entry["name"] == novel]
    assert listed["available"] and listed["title"] == "Longest caption"
    (found,) = engine.attribute(query, (novel,), top_k=3)
    assert isinstance(found, Attribution) and found.method == novel
    longest = [max(map(len, texts)) for texts in engine.index.captions(found.rows)]
    assert longest == sorted(longest, reverse=True) == found.scores.tolist()
    code, path = ask(tiny_index, tmp_path, f"random,{novel}")
    assert code == 0
    methods = json.loads(path.read_text(encoding="utf-8"))["methods"]
    assert [m["name"] for m in methods] == ["random", novel]


def test_a_name_is_given_once(novel):
    with pytest.raises(ValueError, match=f"'{NAME}' already"):
        register((METHODS[novel],))


def test_an_option_not_all_methods_have_stops_before_the_first_answers(engine, query):
    job = engine.attribute(query, ("random", "abu-sgd"), top_k=2, steps=2)
    with pytest.raises(UserError, match="method random has no option 'steps'; it has seed"):
        next(job)
    bad = (
        {"relative_increase": -1.0},
        {"shortlist": 2.5},
        {"curvature": "none"},
        {"steps": 0},
    )
    for options in bad:
        with pytest.raises(UserError):
            next(engine.attribute(query, ("abu-sgd", "abu"), top_k=2, **options))


@pytest.mark.parametrize("method", [*abu.METHODS, *control.METHODS], ids=lambda m: m.name)
def test_lessons_are_three_sentences_and_formulas_balance(method):
    assert len(re.findall(r"[.?](?= [A-Z]|$)", method.lesson)) == 3, method.lesson
    assert method.formula.count("{") == method.formula.count("}") > 0 and "$" not in method.formula
    assert method.formula.isascii()


def test_one_methods_failure_leaves_the_others_answers(broken, engine, query):
    job, answers = engine.attribute(query, ("random", broken, "clip"), top_k=2), []
    with pytest.raises(UserError, match="method broken: no luck"):
        answers.extend(item for item in job)
    assert [a.method for a in answers if isinstance(a, Attribution)] == ["random", "clip"]


def test_a_fault_of_ours_keeps_its_own_words(broken, engine, query, monkeypatch):
    monkeypatch.setitem(engine._attributors, broken, Broken(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        list(engine.attribute(query, (broken, "random"), top_k=2))
    with pytest.raises(RuntimeError, match="out of memory"):
        list(engine.attribute(query, (broken,), top_k=2))


def test_the_command_line_keeps_what_was_finished(broken, tiny_index, tmp_path, capsys):
    code, path = ask(tiny_index, tmp_path, f"random,{broken}")
    assert code == 2 and capsys.readouterr().err == "attribution: method broken: no luck\n"
    methods = json.loads(path.read_text(encoding="utf-8"))["methods"]
    assert [m["name"] for m in methods] == ["random"]


def test_options_that_are_named_are_taken(engine, query):
    for name in ("random", "abu-sgd"):
        attributor = engine._attributor(name)
        named = dict.fromkeys(METHODS[name].options)
        *_, found = attributor.run(query, engine.index.ids(engine.index.train_rows[:2]), 2, **named)
        assert isinstance(found, Attribution) and np.isfinite(found.scores).all()
