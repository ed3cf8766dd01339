"""What an index lacks is said with a command that exists and takes its arguments, index and all."""

from __future__ import annotations

import argparse
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from attribution.index import Index
from attribution.methods import needs
from attribution.methods.registry import METHODS
from precompute.__main__ import VERBS

NEEDS = sorted({need for method in METHODS.values() for need in method.needs})


@pytest.fixture(scope="module")
def bare(tiny_index) -> Index:
    """The tiny index as if it had its records, model and base losses only."""
    index = Index.open(tiny_index)
    own = [model for model in index.manifest["models"] if model["role"] == "pipeline"]
    index.manifest = {**index.manifest, "models": own, "curvature": {"weights": "none of them"}}
    index.__dict__["_core_files"] = set()
    return index


def command_of(why: str) -> list[str]:
    """Arguments of the one command between backticks."""
    (text,) = re.findall(r"`([^`]*)`", why)
    python, flag, module, *arguments = shlex.split(text)
    assert (python, flag, module) == ("python", "-m", "precompute")
    return arguments


@pytest.mark.parametrize(
    "need",
    [*NEEDS, "rows:pixel", "curvature:diagonal:full:eps2", "encoder:dino"],
)
def test_every_need_names_a_command_that_parses(bare, need):
    why = needs.lacks(bare, need)
    if need in ("base:eps2", "curvature:ekfac", "made:pixel"):
        assert why == ""  # every index has them, or pictures to make them from
        return
    assert why.startswith("this index has no ") and "\n" not in why
    verb, *arguments = command_of(why)
    parser = argparse.ArgumentParser()
    import_module(VERBS[verb][0]).add_arguments(parser)
    assert parser.parse_args(arguments).out == Path(bare.path)


def test_what_is_there_is_not_lacking(tiny_index):
    index = Index.open(tiny_index)
    there = ("clip", "rows:clip", "rows:gradients", "curvature:diagonal", "curvature:ekfac")
    assert [need for need in (*there, "base:loss") if needs.lacks(index, need)] == []
    assert "`" in needs.lacks(index, "curvature:ekfac:kv:eps2")


def test_a_need_of_no_kind_is_a_mistake_of_ours(tiny_index):
    with pytest.raises(ValueError, match="one of clip, encoder"):
        needs.lacks(Index.open(tiny_index), "colour:red")
