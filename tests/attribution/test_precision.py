"""Which precision is chosen, from work of known cost; and that it reaches the layers and ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from attribution.cells import Batch, batch_errors
from attribution.precision import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    TF32,
    Precision,
    choose,
    lower,
    named,
)
from attribution.types import UserError

EXACT = np.linspace(-1.0, 1.0, 40)


def made_of(seconds, changes):
    """Work that takes given seconds, differences that a precision changes, and the clock."""
    asked, now = [], [0.0]

    def few(precision):
        now[0] += seconds[precision]

    def differences(precision):
        asked.append(precision)
        return changes[precision](EXACT)

    return few, differences, asked, lambda: now[0]


def same(values):
    return values


def shuffled(values):
    return np.random.default_rng(0).permutation(values)


@pytest.mark.parametrize(
    ("seconds", "changes", "expected"),
    [
        # fastest of those that rank alike
        ((0.04, 0.02, 0.005), (same, same, same), FLOAT16),
        # the fastest ranks otherwise
        ((0.04, 0.02, 0.005), (same, same, shuffled), BFLOAT16),
        # none is clearly faster
        ((0.02, 0.02, 0.04), (same, same, same), FLOAT32),
        ((0.04, 0.02, 0.005), (same, shuffled, shuffled), FLOAT32),
    ],
)
def test_the_fastest_that_ranks_alike_is_chosen(seconds, changes, expected):
    kinds = (FLOAT32, BFLOAT16, FLOAT16)
    few, differences, asked, clock = made_of(
        dict(zip(kinds, seconds, strict=True)), dict(zip(kinds, changes, strict=True))
    )
    found = choose((BFLOAT16, FLOAT16), few, differences, clock)
    assert found.chosen == expected
    assert set(found.tried) == {"bfloat16", "float16"}
    facts = found.facts()
    assert facts["name"] == expected.name and facts["seconds"] > 0
    if expected is FLOAT32 and changes[1] is same:
        assert asked == []  # what is not faster is not looked at


def test_with_nothing_to_try_nothing_runs():
    found = choose((), lambda p: pytest.fail("ran"), lambda p: pytest.fail("ran"))
    assert found.chosen == FLOAT32 and found.tried == {}


def test_a_cpu_that_emulates_half_types_is_not_probed(monkeypatch):
    for capability, expected in (("AVX2", ()), ("DEFAULT", ()), ("AVX512", (BFLOAT16,))):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda c=capability: c)
        assert lower(torch.device("cpu")) == expected
    assert TF32 in lower(torch.device("cuda"))


def test_names():
    assert named("auto") is None and named("float32") == FLOAT32 and named("tf32") == TF32
    with pytest.raises(UserError, match="precision is one of"):
        named("float8")


def batch(denoiser):
    torch.manual_seed(0)
    z, noise = torch.randn(2, 3, *denoiser.latent_shape)
    cond = denoiser.encode_text(["a", "b", "c"])
    return Batch(np.zeros((4, 3), dtype=np.int64), z, cond, noise, torch.tensor([100, 500, 900]))


def test_scoring_forwards_run_in_the_denoisers_precision(denoiser):
    cells = batch(denoiser)
    exact = batch_errors(denoiser, cells)
    low = batch_errors(replace(denoiser, precision=BFLOAT16), cells)
    assert low.dtype == exact.dtype == torch.float32
    assert not torch.equal(low, exact) and torch.allclose(low, exact, rtol=0.2, atol=0.1)
    assert torch.equal(batch_errors(denoiser, cells), exact)


def test_switches_are_as_before_also_after_an_exception():
    flags = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for precision in (TF32, BFLOAT16, Precision("float32")):
        with pytest.raises(OSError), precision.running(torch.device("cpu")):
            assert torch.is_autocast_enabled("cpu") == (precision is BFLOAT16)
            assert torch.backends.cudnn.allow_tf32 == (precision is TF32 or flags[1])
            raise OSError
        assert not torch.is_autocast_enabled("cpu")
        now = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        assert now == flags
