"""Which methods a verb asks, in which order, and what their answers are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from attribution import defaults, layout
from attribution.integrity import canonical_hash
from attribution.methods.candidates import candidate_rows, default_sources
from attribution.methods.needs import curvature_named, curvature_path
from attribution.methods.registry import METHODS, Context, why_not
from attribution.types import UserError
from attribution.unlearning import UnlearnConfig
from attribution.validate import listed

ALL = "all"
UNLEARNING = "unlearning"
# Cheap kinds first, so that a run that is stopped has most of the methods; the headliners before
# their ablations.
_KINDS = ("control", "similarity", "gradient", UNLEARNING)
_FIRST = ("abu-ekfac", "abu")


def place(name: str, kind: str) -> tuple[int, int]:
    """A method's place in the order in which methods are asked and listed; sorts stably."""
    of_kind = _KINDS.index(kind) if kind in _KINDS else len(_KINDS)
    return of_kind, _FIRST.index(name) if name in _FIRST else len(_FIRST)


def chosen(names: str, context: Context) -> list[str]:
    """The methods "all" (that the index can run) or "name,name", in the order of `place`; UserError
    for a name that is not there or cannot run.
    """
    wanted = listed(names)
    if wanted == [ALL]:
        wanted = [name for name, method in METHODS.items() if not why_not(method, context)]
    return sorted(able(wanted, context), key=lambda name: place(name, METHODS[name].kind))


def able(wanted: Sequence[str], context: Context) -> list[str]:
    """Methods as they are named, each once; UserError for one that is not there or cannot run, or
    for none."""
    for name in wanted:
        if name not in METHODS:
            raise UserError(f"no method {name!r}; there are {', '.join(METHODS)}")
        if why := why_not(METHODS[name], context):
            raise UserError(f"method {name}: {why}")
    if not wanted:
        raise UserError("no method is named")
    return list(dict.fromkeys(wanted))


def basis(name: str, context: Context) -> str:
    """What a method's default answers on this index depend on beside the index's hash, in short:
    defaults, and the settings of what was made beside the core. A change makes new answers due.
    """
    method = METHODS[name]
    facts: dict[str, Any] = {need: _behind(need, context) for need in method.needs}
    if method.kind == UNLEARNING:
        attributor = method.build(context)
        facts["config"] = asdict(UnlearnConfig(**attributor.config))
        rows = {name: _behind(f"rows:{name}", context) for name in candidate_rows(context.index)}
        facts["candidates"] = [defaults.SHORTLIST, *default_sources(context.index), rows]
        facts["racing"] = [*map(list, attributor.racing), defaults.RACING_CONFIDENCE]
    elif method.kind == "gradient":
        facts["options"] = list(method.build(context).config.values())
    return canonical_hash(facts)[:8]


def _behind(need: str, context: Context) -> Mapping[str, Any] | str | None:
    """Settings or hash of what serves a need; None for what the index's hash vouches for."""
    index, (kind, _, name) = context.index, need.partition(":")
    if kind == "rows":
        step = index.extras.step_of(f"{layout.ROWS}/{layout.rows_name(name)}")
        return index.extra(step) if step else None
    if kind == "encoder":
        return str(index.extras.encoders.get(name, {}).get("sha256"))
    if kind == "curvature":
        path = curvature_path(index, *curvature_named(name))
        beside = path is not None and layout.EXTRA_FILES in path.relative_to(index.path).parts
        return index.extra(path.stem) if path is not None and beside else None
    return None
