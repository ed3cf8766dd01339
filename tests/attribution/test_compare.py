"""Agreement between methods: overlap, rank correlation, ranks; and the guessing round."""

from __future__ import annotations

import math

import numpy as np
import pytest

from attribution.compare import (
    MIN_COMMON,
    correlation,
    correlation_matrix,
    correlations,
    mean_ranks,
    overlap_matrix,
    rank_of,
    ranks_of,
    spearman,
)
from attribution.guess import DRAWINGS, choose, verdicts
from attribution.types import Attribution, Correlation, UserError


def ordered(method: str, rows: list[int], scores: list[float] | None = None) -> Attribution:
    """An answer that ranks `rows` in this order."""
    values = scores or [float(len(rows) - i) for i in range(len(rows))]
    return Attribution(
        method=method,
        kind="similarity",
        ids=tuple(f"r{row}" for row in rows),
        rows=np.array(rows, dtype=np.int64),
        scores=np.array(values, dtype=np.float32),
        standard_error=np.full(len(rows), np.nan, dtype=np.float32),
        flip=np.zeros(len(rows), dtype=np.int8),
        candidates=len(rows),
    )


UP = ordered("up", list(range(20)))
DOWN = ordered("down", list(range(19, -1, -1)))
SHORT = ordered("short", [3, 2, 1])
NEARLY = ordered("nearly", [1, 0, *range(2, 20)])


def test_overlap_counts_the_common_top() -> None:
    matrix = overlap_matrix([UP, NEARLY, DOWN, SHORT], k=4)
    expected = [[1, 1, 0, 2 / 3], [1, 1, 0, 2 / 3], [0, 0, 1, 0], [2 / 3, 2 / 3, 0, 1]]
    np.testing.assert_allclose(matrix, expected)
    assert overlap_matrix([UP, DOWN], k=20).tolist() == [[1, 1], [1, 1]]
    # the top 3 of SHORT are 3, 2, 1; those of UP 0, 1, 2: a list of three is compared at three
    assert overlap_matrix([UP, SHORT], k=1).tolist() == [[1, 0], [0, 1]]


def test_overlap_with_nothing_is_not_a_number() -> None:
    nothing = ordered("nothing", [1, 2], [math.nan, math.nan])
    assert np.isnan(overlap_matrix([UP, nothing], k=4)[0, 1])


def test_rank_correlation_by_hand_and_by_definition() -> None:
    assert correlation(UP, DOWN).rho == pytest.approx(-1)
    n = 20  # without ties rho = 1 - 6 Σd² / n(n² - 1); two neighbours changed places
    assert correlation(UP, NEARLY).rho == pytest.approx(1 - 6 * 2 / (n * (n * n - 1)))
    np.testing.assert_array_equal(mean_ranks(np.array([5.0, 1.0, 5.0])), [2.5, 1.0, 2.5])
    assert math.isnan(spearman(np.ones(4), np.arange(4)))


def test_only_common_records_with_scores_count() -> None:
    scores = [float(20 - i) for i in range(20)]
    half = ordered("half", list(range(20, 8, -1)))  # 20..9; 11 of them in UP
    pair = correlation(UP, half)
    assert pair.common == 11 and pair.rho == pytest.approx(-1)
    unscored = ordered("unscored", list(range(20)), [*scores[:12], *[math.nan] * 8])
    assert correlation(UP, unscored) == Correlation(pytest.approx(1), 12)
    few = correlation(UP, SHORT)
    assert few.common == 3 < MIN_COMMON and math.isnan(few.rho)


def test_pairs_known_before_an_answer_was_shortened_are_used() -> None:
    known = correlations([UP, DOWN])
    assert list(known) == [("up", "down")]
    matrix = correlation_matrix([DOWN, ordered("up", [0, 1])], known)
    assert matrix[0][1] == matrix[1][0] == known["up", "down"]
    assert matrix[0][0] == Correlation(1.0, 20)
    assert math.isnan(correlation_matrix([DOWN, ordered("up", [0, 1])])[0][1].rho)


def test_ranks_of_one_record() -> None:
    assert ranks_of([UP, DOWN, SHORT], "r3") == {"up": 4, "down": 17, "short": 1}
    assert rank_of(SHORT, "r9") is None
    assert rank_of(ordered("x", [1, 2], [1.0, math.nan]), "r2") is None


def test_a_round_holds_the_first_and_five_from_further_down() -> None:
    answer = ordered("abu", list(range(100)))
    seen = set()
    for seed in range(40):
        game = choose(answer, seed)
        assert game == choose(answer, seed)
        rows = sorted(int(name[1:]) for name in game.ids)
        assert len(set(rows)) == DRAWINGS and rows[0] == 0 and rows[1] >= 5
        assert game.truth == "r0" and game.method == "abu"
        seen.add(game.ids.index("r0"))
    assert seen == set(range(DRAWINGS))  # the first stands everywhere in turn


@pytest.mark.parametrize("count", [6, 7, 11, 36])
def test_a_round_of_few(count: int) -> None:
    assert len(set(choose(ordered("abu", list(range(count))), seed=1).ids)) == DRAWINGS


def test_look_alikes_that_mattered_less_are_among_the_six() -> None:
    answer = ordered("abu", list(range(100)))
    alike, other = ordered("clip", [0, 1, 60, 61]), ordered("pixel", [2, 3, 60, 90])
    for seed in range(10):
        rows = {int(name[1:]) for name in choose(answer, seed, [alike, other]).ids}
        assert len(rows) == DRAWINGS and 0 in rows and not rows & {1, 2, 3}
        assert rows & {60, 61} and rows & {60, 90} and len(rows & {60, 61, 90}) >= 2


def test_too_few_for_a_round() -> None:
    with pytest.raises(UserError, match="not 5"):
        choose(ordered("abu", list(range(5))), seed=0)


def test_every_method_gives_its_verdict() -> None:
    game = choose(UP, seed=3)
    first, other, none = verdicts(game, [UP, DOWN, ordered("none", [77])])
    assert first.pick == game.truth and first.ranks[game.truth] == 1
    last = max(game.ids, key=lambda name: int(name[1:]))
    assert other.pick == last and other.ranks[game.truth] == 20
    assert none.pick is None and set(none.ranks.values()) == {None}
