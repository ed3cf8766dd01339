"""What a method may need of an index, whether it is there, and the command that makes it.

| need | what it is |
|---|---|
| `clip` | the index's CLIP |
| `encoder:<name>` | an extra encoder: dino, dinov2, clip-abc, ... |
| `rows:<name>` | a row for each record and flip: clip, gradients, trak, ... |
| `made:<name>` | such rows, made from the pictures and held in memory where the index has none |
| `curvature:<name>[:<set>[:<objective>]]` | diagonal, ekfac, kfac; by default of kv and the loss |
| `base:<objective>` | base values of every cell: of the loss, or of ‖ε_θ‖² (eps2) |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from attribution import layout
from attribution.index import Index
from attribution.weights import OWN_EKFAC, WEIGHT_SETS

# What makes rows and encoders: arguments of `python -m precompute`; by default, a verb of the name.
_CLIP = "index --clip DIR_OR_HUB_ID --rebuild"
ROW_COMMANDS = {
    "pixel": "features --encoder pixel",
    "dino": "features --encoder dino",
    "dinov2": "features --encoder dinov2",
    "gradients": "gradients",
    "clip": _CLIP,
    "clip-text": _CLIP,
}
ENCODER_COMMANDS: dict[str, str] = {
    "dino": "features --encoder dino",
    "dinov2": "features --encoder dinov2",
    "clip-abc": "abc",
    "dino-abc": "abc",
}


def lacks(index: Index, need: str) -> str:
    """Why the index cannot serve `need`, in a line with the command that mends it; '' if it can.

    ValueError for a need of another kind: a method's mistake.
    """
    kind, _, name = need.partition(":")
    if kind not in _KINDS:
        raise ValueError(f"no need {need!r}: its kind is one of {', '.join(_KINDS)}")
    return _KINDS[kind](index, name)


def why_not(index: Index, wanted: Iterable[str]) -> str:
    """What `lacks` says of the first of these needs that the index cannot serve; '' for none."""
    return next((why for need in wanted if (why := lacks(index, need))), "")


def curvature_named(name: str) -> tuple[str, str, str]:
    """(kind, weight set, objective) of what follows `curvature:` in a need."""
    kind, *rest = name.split(":")
    weights, objective = (*rest, *("kv", "loss")[len(rest) :])
    return kind, weights, objective


def curvature_path(index: Index, kind: str, weights: str, objective: str) -> Path | None:
    """The smallest stored curvature of a kind, "diagonal", "ekfac" or "kfac", that covers a weight
    set; None for no file."""
    wider = WEIGHT_SETS[WEIGHT_SETS.index(weights) :]
    if objective == "loss" and _own_weights(index, kind) in wider:
        name = {"diagonal": layout.FISHER_DIAGONAL, "ekfac": layout.EKFAC}[kind]
        path = index.path / layout.CURVATURE / name
        return path if path.is_file() else None
    for covering in wider:
        name = layout.curvature_file(kind, covering, objective)
        step = layout.curvature_step(kind, covering, objective)
        # begun but not finished: settings without the file
        if index.extra(step) is not None and name in index.extras.steps[step]["files"]:
            return index.path / name
    return None


def _own_weights(index: Index, kind: str) -> str:
    """The weight set of an index's own curvature; '' where it has none of that kind."""
    if kind != "diagonal":
        return OWN_EKFAC if kind == "ekfac" else ""
    return str(index.manifest.get("curvature", {}).get("weights", "kv"))


def _clip(index: Index, _: str) -> str:
    return "" if index.clip_path else _missing(index, "CLIP model", _CLIP)


def _encoder(index: Index, name: str) -> str:
    if index.encoder(name) is not None:
        return ""
    return _missing(index, f"{name} encoder", ENCODER_COMMANDS.get(name, name))


def _rows(index: Index, name: str) -> str:
    if index.has_rows(name):
        return ""
    return _missing(index, f"{name} rows", ROW_COMMANDS.get(name, name))


def _made(index: Index, name: str) -> str:
    return ""


def _curvature(index: Index, name: str) -> str:
    kind, weights, objective = curvature_named(name)
    if curvature_path(index, kind, weights, objective) is not None:
        return ""
    if kind != "kfac" and (weights, objective) == ("kv", "loss"):
        return _missing(index, f"{kind} curvature", "fisher")
    options = f" --curvature {kind}" * (kind != "diagonal")
    options += f" --weights {weights}" * (weights != "kv")
    options += f" --objective {objective}" * (objective != "loss")
    what = {"diagonal": "Fisher", "ekfac": "EK-FAC", "kfac": "K-FAC"}[kind]
    what += {"loss": "", "eps2": " of the squared output"}[objective]
    of = {"full": "all weights", "kv": "keys and values"}.get(weights, f"{weights} weights")
    return _missing(index, f"{what} of {of}", f"variants{options}")


def _base(index: Index, objective: str) -> str:
    if objective == "loss" or index.base_loss_eps2 is not None:
        return ""
    return _missing(index, "squared outputs beside its base losses", "losses")


def _missing(index: Index, what: str, command: str) -> str:
    verb, _, options = command.partition(" ")
    words = f"python -m precompute {verb} --out {index.path} {options}".rstrip()
    return f"this index has no {what}: run `{words}`"


_KINDS: dict[str, Callable[[Index, str], str]] = {
    "clip": _clip,
    "encoder": _encoder,
    "rows": _rows,
    "made": _made,
    "curvature": _curvature,
    "base": _base,
}
