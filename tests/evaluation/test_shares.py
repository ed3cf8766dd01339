"""Categories and artists of queries, by hand on eight records of which two are collages."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import shares
from evaluation.data import Records

TRAIN = np.array([0, 1, 2, 3, 5, 6])


@pytest.fixture(scope="module")
def records() -> Records:
    """Two apples by Ann, a lion and a sign by Bob and Cy, a bat; an apple beside a lion."""
    rows = [
        ("d0", "apple, fruit, by Ann", "fruit", ("Ann",), ()),
        ("d1", "apple, fruit, by Ann", "fruit", ("Ann", "Bob"), ()),
        ("d2", "lion, mammal, by Bob and Cy", "mammal", ("Bob", "Cy"), ()),
        ("d3", "stop sign, by Cy", "map sign", ("Cy",), ()),
        ("d4", "bat, by Dee", "mammal", ("Dee",), ()),  # held out
        ("c5", "an apple and a lion, by Ann and Bob", "collage", ("Ann", "Bob"), ("d0", "d2")),
        ("c6", "a stop sign and a bat, by Cy and Dee", "collage", ("Cy", "Dee"), ("d3", "d4")),
        ("d7", "x", "", (), ()),  # held out
    ]
    ids, captions, categories, artists, parts = zip(*rows, strict=True)
    splits = tuple("train" if row in TRAIN else "held-out" for row in range(len(rows)))
    images = np.zeros((len(rows), 2, 2, 3), np.uint8)
    return Records(ids, captions, categories, artists, splits, parts, images)


@pytest.mark.parametrize(
    ("prompt", "category", "artist"),
    [
        ("apple, fruit, by Ann", {"fruit"}, {"Ann", "Bob"}),  # of both records
        ("an apple and a lion, by Ann and Bob", {"fruit", "mammal"}, {"Ann", "Bob"}),
        ("blue pear, fruit, by Cy", {"fruit"}, {"Cy"}),  # nobody's caption: read
        ("two old fruits, by Bob and Cy", {"fruit"}, {"Bob", "Cy"}),
        ("a fruit on a map sign, by Nobody", set(), set()),  # two categories, a stranger
        ("fruitful, by Ann and Nobody", set(), set()),
        ("a fruit by Ann", {"fruit"}, set()),  # not signed as captions are
        ("x", set(), set()),
    ],
)
def test_labels_of_a_prompt(records, prompt, category, artist):
    found = shares.labels_of(records, prompt)
    assert found == {"category": frozenset(category), "artist": frozenset(artist)}


def test_like_records_show_the_category_or_have_the_artist(records):
    like = shares.alike(records, "blue pear, fruit, by Cy", TRAIN)
    assert np.flatnonzero(like["category"]).tolist() == [0, 1, 5]  # with the collage of an apple
    assert np.flatnonzero(like["artist"]).tolist() == [2, 3, 6]
    both = shares.alike(records, "an apple and a lion, by Ann and Bob", TRAIN)
    assert np.flatnonzero(both["category"]).tolist() == [0, 1, 2, 4, 5, 6]
    assert both["artist"][TRAIN].mean() == 4 / 6


def test_what_no_candidate_has_is_not_asked(records):
    assert set(shares.alike(records, "a bat, mammal, by Dee", np.array([0, 1]))) == set()
    assert set(shares.alike(records, "a bat, mammal, by Dee", np.array([2]))) == {"category"}
    assert shares.alike(records, "x", TRAIN) == {}
