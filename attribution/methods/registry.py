"""Names of methods → how to build them. The page, the command line and the tests read this alone.

A new method is one file that exports `METHODS` and one line in `_FAMILIES`; from outside the
package, `register(module.METHODS)`.

>>> method = METHODS["abu"]
>>> attributor = method.build(Context(denoiser, index, clip))
>>> *_, attribution = attributor.run(query, k=24)
"""

from __future__ import annotations

from collections.abc import Iterable

from attribution.methods import abc, abu, control, gradient, needs, similarity
from attribution.methods.context import Context
from attribution.methods.method import Method

__all__ = ["METHODS", "Context", "Method", "register", "why_not"]

_FAMILIES = (
    abu.METHODS,
    gradient.METHODS,
    similarity.METHODS,
    abc.METHODS,
    control.METHODS,
)

METHODS: dict[str, Method] = {}


def register(methods: Iterable[Method]) -> None:
    """Add methods to those that page, command line and API offer; ValueError for a name taken."""
    for method in methods:
        if method.name in METHODS:
            raise ValueError(f"there is a method {method.name!r} already")
        METHODS[method.name] = method


for _family in _FAMILIES:
    register(_family)


def why_not(method: Method, context: Context) -> str:
    """Why a method cannot run on an index, in a line; '' where it can."""
    return needs.why_not(context.index, method.needs)
