"""AbU and its ablations by name: one attributor, other weights, curvatures and losses."""

from __future__ import annotations

from typing import Any

from attribution.methods.context import Context
from attribution.methods.method import Method
from attribution.methods.unlearning import UnlearningAttributor

_ABU = "Wang, Hertzmann, Efros, Zhu, Zhang. Data Attribution by Unlearning (NeurIPS 2024)"
_DIAGONAL = "curvature:diagonal"


def _unlearning(
    name: str, title: str, explanation: str, needs: tuple[str, ...], **config: Any
) -> Method:
    def build(context: Context) -> UnlearningAttributor:
        return UnlearningAttributor(context, name, **config)

    return Method(name, "unlearning", title, explanation, _ABU, needs, build)


METHODS: tuple[Method, ...] = (
    _unlearning(
        "abu",
        "AbU",
        "Unlearn the picture with one Newton step on the text keys and values, then see which "
        "training drawings the model has become worse at.",
        (_DIAGONAL, "weights:kv"),
    ),
    _unlearning(
        "abu-ekfac",
        "AbU+",
        "AbU with a finer curvature (EK-FAC) in the place of the diagonal Fisher.",
        ("curvature:ekfac",),
        curvature="ekfac",
    ),
    _unlearning(
        "abu-sgd",
        "SGD ablation",
        "The same increase of loss by plain gradient ascent, without curvature: expected to lose.",
        (),
        curvature="none",
    ),
    _unlearning(
        "abu-full",
        "AbU, all weights",
        "AbU moving every weight of the UNet.",
        (_DIAGONAL, "weights:full"),
        weight_set="full",
    ),
    _unlearning(
        "abu-attn",
        "AbU, attention",
        "AbU moving all attention weights, self-attention too.",
        (_DIAGONAL, "weights:attn"),
        weight_set="attn",
    ),
    _unlearning(
        "abu-crossattn",
        "AbU, cross-attention",
        "AbU moving all cross-attention weights, not only keys and values.",
        (_DIAGONAL, "weights:cross-attn"),
        weight_set="cross-attn",
    ),
    Method(
        "abu-eps2",
        "unlearning",
        "AbU on the squared output",
        "AbU with the size of the predicted noise in the place of the loss (Table 5).",
        _ABU,
    ),
)
