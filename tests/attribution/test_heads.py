"""Tuned heads: a map that is saved and read, and the identity that changes nothing."""

from __future__ import annotations

import pytest
import torch

from attribution.features import unit
from attribution.heads import Head
from attribution.types import UserError


def rows(count: int, dim: int = 6) -> torch.Tensor:
    return unit(torch.randn(count, dim, generator=torch.Generator().manual_seed(count)))


def test_the_identity_leaves_cosines_as_they_are():
    head = Head.identity(6)
    a, b = rows(3), rows(8)
    torch.testing.assert_close(head.apply(a) @ head.apply(b).T, a @ b.T)


def test_a_head_by_hand():
    head = Head(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(
        head.apply(torch.tensor([[1.0, 0.5]])), unit(torch.tensor([[2.0, 1.5]]))
    )
    assert head.apply(rows(4, 2).view(2, 2, 2)).shape == (2, 2, 2)


def test_what_is_saved_is_read_again(tmp_path):
    head = Head(rows(6), rows(1)[0], {"features": "clip", "penalty": "identity"})
    head.save(tmp_path / "head")
    read = Head.load(tmp_path / "head")
    assert torch.equal(read.weight, head.weight) and torch.equal(read.bias, head.bias)
    assert read.about == head.about and read.dim == 6


def test_a_head_that_is_not_there_is_said_in_a_line(tmp_path):
    with pytest.raises(UserError, match="cannot read the head"):
        Head.load(tmp_path)
