"""A method of one file, as somebody else would write it, for the proof that the registry needs no
more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from attribution.methods.registry import METHODS, register

NAME = "longest-caption"
SOURCE = '''
"""Attribution by length: whose caption is longest."""

import numpy as np

from attribution.methods.answers import ranked
from attribution.methods.method import Method


class Longest:
    def __init__(self, context):
        self.context = context

    def run(self, query, ids=None, k=24, **options):
        index, rows = self.context.index, self.context.training_rows(ids)
        lengths = [max(len(text) for text in texts) for texts in index.captions(rows)]
        scores = np.array(lengths, dtype=np.float32)
        yield ranked("longest-caption", "control", index, rows, scores)


METHODS = (
    Method(
        "longest-caption", "control", "Longest caption", "Who wrote most.", "A test", (), Longest
    ),
)
'''


@contextmanager
def registered(folder: Path) -> Iterator[str]:
    """The method's name, while it is one of the registry's."""
    path = folder / "longest.py"
    path.write_text(SOURCE, encoding="utf-8")
    spec = spec_from_file_location("longest", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    register(module.METHODS)
    try:
        yield NAME
    finally:
        del METHODS[NAME]
