"""TRAK's and DataInf's solvers against dense linear algebra, by hand and without shortcuts."""

from __future__ import annotations

import pytest
import torch

from attribution.datainf import MeanInverses
from attribution.ridge import Ridge

SLICES, SIZES = [slice(0, 4), slice(4, 7)], [40, 6]


@pytest.fixture(scope="module")
def rows():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(13, 7, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def queries():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 7, generator=generator, dtype=torch.float64)


def ridge_of(rows, batch=5):
    ridge = Ridge(rows.shape[1])
    for part in rows.split(batch):
        ridge.add(part)
    return ridge


def inverses_of(rows, damping, batch=5):
    made = MeanInverses(SLICES, SIZES, damping)
    for take in (made.measure, made.add):
        for part in rows.split(batch):
            take(part)
    return made


@pytest.mark.parametrize("damping", [0.01, 1.0, 10.0])
def test_ridge_is_the_dense_inverse(rows, queries, damping):
    gram = rows.T @ rows
    penalty = damping * gram.trace() / 7
    expected = queries @ torch.linalg.inv(gram + penalty * torch.eye(7, dtype=torch.float64))
    ridge = ridge_of(rows)
    assert ridge.count == 13
    assert torch.allclose(ridge.solve(queries, damping), expected)
    # the same through the kernel of the rows: no d × d matrix at all
    kernel = rows @ rows.T + penalty * torch.eye(13, dtype=torch.float64)
    scores = queries @ rows.T @ torch.linalg.inv(kernel)
    assert torch.allclose(ridge.solve(queries, damping) @ rows.T, scores)


def test_another_damping_is_another_answer_and_the_first_comes_back(rows, queries):
    ridge = ridge_of(rows)
    first = ridge.solve(queries, 0.1)
    assert not torch.allclose(ridge.solve(queries, 1.0), first)
    assert torch.equal(ridge.solve(queries, 0.1), first)


@pytest.mark.parametrize("damping", [0.1, 2.0])
def test_datainf_is_the_mean_of_dense_inverses(rows, queries, damping):
    """Kwon et al.: per layer, (1/n) Σ (g gᵀ + λ_l I)⁻¹ with every inverse written out."""
    expected = torch.zeros_like(queries)
    for part, size in zip(SLICES, SIZES, strict=True):
        g = rows[:, part]
        eye = torch.eye(g.shape[1], dtype=torch.float64)
        penalty = damping * g.square().sum(1).mean() / size
        inverses = [torch.linalg.inv(torch.outer(row, row) + penalty * eye) for row in g]
        expected[:, part] = queries[:, part] @ torch.stack(inverses).mean(0)
    assert torch.allclose(inverses_of(rows, damping).solve(queries), expected)


def test_datainf_has_the_opposite_sign_of_the_papers_influence(rows, queries):
    """Their closed form, term by term: the change of the query's loss per weight of record k."""
    made, n = inverses_of(rows, 0.1), len(rows)
    scores = made.solve(queries) @ rows.T
    for k in (0, 7):
        influence = 0.0
        for part, penalty in zip(SLICES, made.penalties, strict=True):
            v, g = queries[0, part], rows[:, part]
            for i in range(n):
                weight = (v @ g[i]) / (penalty + g[i] @ g[i])
                influence += (weight * (g[i] @ g[k]) - v @ g[k]) / (n * penalty)
        assert float(scores[0, k]) == pytest.approx(-float(influence))


def test_a_rows_influence_on_itself_is_positive(rows):
    """Higher is more influential: the sign, which differs between papers."""
    for solved in (ridge_of(rows).solve(rows, 0.1), inverses_of(rows, 0.1).solve(rows)):
        assert ((solved * rows).sum(1) > 0).all()


def test_one_factor_for_rows_and_queries_changes_no_score(rows, queries):
    """So rows may be scaled to fit half precision."""
    for scale in (2.0**-10, 2.0**9):
        solvers = (
            (ridge_of(rows), ridge_of(rows * scale)),
            (
                inverses_of(rows, 0.1),
                inverses_of(rows * scale, 0.1),
            ),
        )
        for kind, (one, other) in zip(((0.1,), ()), solvers, strict=True):
            scores = one.solve(queries, *kind) @ rows.T
            assert torch.allclose(scores, other.solve(queries * scale, *kind) @ (rows * scale).T)


def test_batches_change_nothing(rows, queries):
    one, other = ridge_of(rows, 13), ridge_of(rows, 2)
    assert torch.allclose(one.solve(queries, 0.1), other.solve(queries, 0.1))
    first, second = inverses_of(rows, 0.1, 13), inverses_of(rows, 0.1, 2)
    assert torch.allclose(first.solve(queries), second.solve(queries))


def test_a_layer_without_gradients_counts_for_nothing(rows, queries):
    still = rows.clone()
    still[:, SLICES[1]] = 0.0
    solved = inverses_of(still, 0.1).solve(queries)
    assert (solved[:, SLICES[1]] == 0).all() and (solved[:, SLICES[0]] != 0).all()
    assert (ridge_of(torch.zeros(3, 7)).solve(queries, 0.1) == 0).all()
