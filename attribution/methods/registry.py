"""Names of methods → how to build them. The page, the command line and the tests read this alone.

A new method is one file that exports `METHODS` and one line in `_FAMILIES`.

>>> method = METHODS["abu"]
>>> attributor = method.build(Context(denoiser, index, clip))
>>> *_, attribution = attributor.run(query, k=24)
"""

from __future__ import annotations

from attribution.methods import abc, abu, control, gradient, similarity
from attribution.methods.context import Context
from attribution.methods.method import Method

__all__ = ["METHODS", "NOT_YET", "Context", "Method", "why_not"]

NOT_YET = "not available yet"

_FAMILIES = (
    abu.METHODS,
    gradient.METHODS,
    similarity.METHODS,
    abc.METHODS,
    control.METHODS,
)

METHODS: dict[str, Method] = {m.name: m for family in _FAMILIES for m in family}


def why_not(method: Method, context: Context) -> str:
    """Why a method cannot run on an index, in a line; '' where it can."""
    if method.build is None:
        return NOT_YET
    return next((why for need in method.needs if (why := context.lacks(need))), "")
