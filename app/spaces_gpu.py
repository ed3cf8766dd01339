"""`gpu`: Hugging Face ZeroGPU's decorator where the `spaces` package is installed, nothing
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

try:  # has to come before torch is imported, which is why app.launch imports this module first
    import spaces
except ImportError:
    spaces = None


def gpu(seconds: int) -> Callable[[F], F]:
    """Ask for an accelerator for at most `seconds` a call; works on plain functions and on
    generators.
    """

    def wrap(function: F) -> F:
        return function if spaces is None else spaces.GPU(duration=seconds)(function)

    return wrap
