"""What every verb has in common: an exit code and a line for whatever stops it."""

from __future__ import annotations

import errno

import pytest

from attribution.types import UserError
from evaluation import seed_consistency, verbs

VERBS = {"seed-consistency": ("evaluation.seed_consistency", "any verb")}


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "No space left on device"),
        (UserError("there is no index\nat all"), "there is no index at all"),
    ],
)
def test_what_stops_a_verb_is_a_line(monkeypatch, capsys, error, words):
    def stop(args):
        raise error

    monkeypatch.setattr(seed_consistency, "run", stop)
    assert verbs.main("evaluation", VERBS, ["seed-consistency"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evaluation seed-consistency: ") and words in line
