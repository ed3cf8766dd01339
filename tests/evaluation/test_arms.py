"""Arms: which options they have, one way to write each, and those that were recorded."""

from __future__ import annotations

import pytest

from attribution.types import UserError
from evaluation.counterfactual import frozen
from evaluation.counterfactual.arms import Arm
from evaluation.counterfactual.ledger import VERB
from evaluation.results import FOLDER, read_lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("abu:exhaustive=true", "no option 'exhaustive'; abu's: relative_increase, steps"),
        ("abu:shortlist=8", "no option 'shortlist'"),
        ("abu-shift:racing=false", "no option 'racing'"),
        ("abu:also=x", "no option 'also'"),
        ("abu:columns=[0]", "no option 'columns'"),
        ("abu:fresh_base=true", "no option 'fresh_base'"),
        ("trak:exhaustive=true", "no option 'exhaustive'; trak's: damping, draws, seed$"),
        ("clip:shortlist=8", "no option 'shortlist'; clip's: none$"),
        ("random:seed=x", "the seed"),
        ("abu:damping=abc", "finite number"),
        ("abu:steps=2.5", "whole number"),
        ("abu:steps=2.0", "whole number"),
        ("abu:damping=1" + 400 * "0", "finite number"),
        ("trak:damping=1" + 400 * "0", "a number above 0"),
    ],
)
def test_an_arm_has_the_options_of_its_method_alone(text, words):
    with pytest.raises(UserError, match=words):
        Arm.parse(text)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("abu:damping=1", "abu:damping=1.0"),
        ("abu:relative_increase=1:steps=5", "abu:steps=5:relative_increase=1e0"),
        ("abu:preset=paper:alpha=1", "abu:alpha=1.0:preset=paper"),
        ("trak@wide:damping=10:draws=4", "trak@wide:draws=4:damping=10.0"),
    ],
)
def test_a_whole_number_for_a_real_one_is_the_same_arm(text, same):
    assert Arm.parse(text) == Arm.parse(same) and Arm.parse(text).text == Arm.parse(same).text


def test_other_numbers_stay_as_they_are():
    assert Arm.parse("abu:ewc=true:steps=5").asked == {"ewc": True, "steps": 5}
    assert Arm.parse("abu:steps=5").text == "abu:steps=5"
    assert Arm.parse("abu:flips=mean:timesteps=equal:damping=1").text == (
        "abu:damping=1.0:flips=mean:timesteps=equal"
    )


def test_what_was_recorded_is_written_as_ever():
    units = read_lines(FOLDER / f"{VERB}.jsonl")
    recorded = {arm for unit in units if unit.get("unit") == "digests" for arm in unit["arms"]}
    recorded |= set(frozen.read(frozen.PATH).values())
    assert recorded and all(Arm.parse(text).text == text for text in recorded)
