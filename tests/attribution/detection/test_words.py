"""Nouns of prompts, phrases of users, words in prompts."""

from __future__ import annotations

import pytest

from attribution.detection import words
from attribution.types import UserError


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a motorcycle and a stop sign, by Ann Other and Bob", ("motorcycle", "stop sign")),
        ("queen of hearts, playing card, by Nicu Buculei", ("queen of hearts", "playing card")),
        ("white and black swans, bird, by Francesco", ("white and black swans", "bird")),
        ("tree, black and white, evergreen, plant, by X", ("tree", "evergreen", "plant")),
        (
            "a treble staff with notes and an ice cream bar",
            ("treble staff with notes", "ice cream bar"),
        ),
        ("A dog with a hat on the grass", ("dog", "hat", "grass")),
        ("cat and dog", ("cat", "dog")),
        ("grapes and a dolphin, by Gerald G. and Enrique", ("grapes", "dolphin")),
        ("a house by the sea, by Ann", ("house by the sea",)),
        ("a dog and a dog", ("dog",)),
        ("by Gerald G.", ()),
        (" , . ", ()),
        ("hund und katze", ("hund und katze",)),
    ],
)
def test_nouns(prompt, named):
    assert words.nouns(prompt) == named


def test_a_user_s_phrases_are_parted_and_bounded():
    assert words.phrases("A Stop sign. a motorcycle.") == ("a stop sign", "a motorcycle")
    assert words.phrases("dog, cat;dog\nhorse") == ("dog", "cat", "horse")
    for bad in ("", " . ,", None, "x" * 300, ". ".join(f"dog {i}" for i in range(17))):
        with pytest.raises(UserError) as error:
            words.phrases(bad)
        assert "\n" not in str(error.value)


def test_the_prompt_of_a_detector_ends_every_phrase_with_a_dot():
    assert words.as_prompt(("Stop sign", "dog.")) == "stop sign. dog."


def test_a_phrase_is_found_in_a_row_else_by_its_words():
    prompt = 'A red "stop sign", a signpost and a Stop light'
    assert words.find("stop sign", prompt) == [2, 3]
    assert words.find("stop light", prompt) == [8, 9]
    assert words.find("light sign", prompt) == [3, 9]
    assert words.find("zebra", prompt) == []
    assert words.find("", prompt) == []
