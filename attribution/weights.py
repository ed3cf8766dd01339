"""Which weights unlearning may move, by name (paper Table 2): `kv` is the paper's choice."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from attribution.types import UserError

_SETS: dict[str, Callable[[str], bool]] = {
    "kv": lambda name: name.endswith((".attn2.to_k.weight", ".attn2.to_v.weight")),
    "cross-attn": lambda name: ".attn2." in name,
    "attn": lambda name: ".attn1." in name or ".attn2." in name,
    "full": lambda name: True,
}
WEIGHT_SETS = tuple(_SETS)
# Of an index's own EK-FAC; its diagonal Fisher may cover more.
OWN_EKFAC = "kv"


def parameter_names(unet: nn.Module, weight_set: str) -> tuple[str, ...]:
    """Names of the UNet parameters in a weight set, in the UNet's own order.

    kv: keys and values of cross-attention. cross-attn, attn: whole attention layers (with queries,
    outputs and biases). full: everything, convolutions and norms too. Raises UserError when the set
    is unknown or empty.
    """
    if weight_set not in _SETS:
        raise UserError(f"unknown weight set {weight_set!r}: not in {', '.join(WEIGHT_SETS)}")
    names = tuple(name for name, _ in unet.named_parameters() if _SETS[weight_set](name))
    if not names:
        raise UserError(f"this model has no {weight_set!r} weights: no cross-attention in its UNet")
    return names


def reads_text(module_name: str) -> bool:
    """True for keys and values of cross-attention: their input is the text states, whatever t."""
    return module_name.endswith((".attn2.to_k", ".attn2.to_v"))
