"""Random records scored beside the candidates, and the engine's precision."""

from __future__ import annotations

import json

import numpy as np
import pytest

from attribution import report
from attribution.engine import Engine
from attribution.types import Attribution, UserError


def attributed(engine, query, methods=("abu",), **options):
    items = engine.attribute(query, methods, top_k=3, **options)
    return [item for item in items if isinstance(item, Attribution)]


def test_random_records_are_scored_beside_the_candidates(engine, query) -> None:
    (found,) = attributed(engine, query, shortlist=4, control=3)
    (again,) = attributed(engine, query, shortlist=4, control=3)
    assert len(found.control.ids) == 3 and found.control.ids == again.control.ids
    assert np.isfinite(found.control.scores).all() and len(found.ids) == 4
    (plain,) = attributed(engine, query, shortlist=4)
    assert plain.control is None and plain.ids == found.ids
    train = set(engine.index.ids(engine.index.train_rows))
    assert set(found.control.ids) <= train
    told = json.loads(report.json_text(engine.result(query, [found], 3)))
    assert len(told["methods"][0]["results"]) == 3
    assert told["methods"][0]["params"]["precision"]["name"] == "float32"


def test_methods_that_score_everything_need_no_control(engine, query) -> None:
    found = attributed(engine, query, ("clip", "abu", "random"), control=2)
    assert [a.method for a in found if a.control is not None] == ["abu"]


def test_a_precision_without_a_name_is_refused(tiny_index) -> None:
    with pytest.raises(UserError, match="precision is one of"):
        Engine(tiny_index, "cpu", precision="float8")
