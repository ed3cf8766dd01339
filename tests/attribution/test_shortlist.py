"""The shortlist's inner products are first-order scores; several orders join in turn."""

from __future__ import annotations

import numpy as np
import torch

from attribution.fisher import DiagonalFisher
from attribution.projection import Projection
from attribution.shortlist import GradientQuery, join, sources_of


def test_inner_products_of_rows_and_query_are_first_order_scores():
    """Eq. 16 through the metric and a full-dimensional projection: exact."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (6, 5), "b": (4, 5)}
    gradients = {n: torch.randn(9, *s, generator=generator) for n, s in shapes.items()}
    delta = {n: torch.randn(*s, generator=generator) for n, s in shapes.items()}
    fisher = DiagonalFisher()
    fisher.accumulate(gradients)
    metric = fisher.damped(0.1)
    rows = Projection(shapes, 64, seed=3).apply(metric.sqrt_inv(gradients)).numpy()
    more = {**delta, "elsewhere": torch.randn(2, 2)}
    products = rows @ GradientQuery(metric, 64, seed=3).vector(more)
    exact = sum((gradients[n] * delta[n]).flatten(1).sum(1) for n in shapes).numpy()
    assert np.allclose(products, exact, rtol=1e-3, atol=1e-3)


def test_orders_join_in_turn_without_repeats():
    first, second = np.array([5, 1, 7, 2]), np.array([1, 9])
    assert join([first, second], 10).tolist() == [5, 1, 9, 7, 2]
    assert join([first, second], 3).tolist() == [5, 1, 9]
    assert join([first], 2).tolist() == [5, 1]
    assert join([], 3).tolist() == []


def test_sources_count_what_each_offered():
    orders = {"gradient": np.array([5, 1, 7, 2]), "clip": np.array([1, 9, 4, 3])}
    chosen = join(list(orders.values()), 3)
    assert sources_of(chosen, orders) == {"gradient": 2, "clip": 2}
