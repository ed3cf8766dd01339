"""Names of methods → how to build them. The page, the command line and the tests read this alone.

>>> method = METHODS["abu"]
>>> attributor = method.build(Context(denoiser, index, clip))
>>> *_, attribution = attributor.run(query, k=24)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from attribution.methods.context import Context
from attribution.methods.control import RandomAttributor
from attribution.methods.similarity import SimilarityAttributor, clip_image, clip_text, pixels
from attribution.methods.unlearning import UnlearningAttributor

__all__ = ["METHODS", "Context", "Method", "why_not"]

Build = Callable[[Context], Any]
NOT_YET = "not available yet"
_ABU = "Wang, Hertzmann, Efros, Zhu, Zhang. Data Attribution by Unlearning (NeurIPS 2024)"


@dataclass(frozen=True)
class Method:
    """One method. build: None where it is not written yet. needs: what the index must hold, as in
    `Context.lacks`. source: whose idea it is.
    """

    name: str
    kind: str
    title: str
    explanation: str
    source: str
    needs: tuple[str, ...] = ()
    build: Build | None = None


def _unlearning(
    name: str, title: str, explanation: str, needs: tuple[str, ...], **config: Any
) -> Method:
    def build(context: Context) -> UnlearningAttributor:
        return UnlearningAttributor(context, name, **config)

    return Method(name, "unlearning", title, explanation, _ABU, needs, build)


def _similarity(
    name: str, title: str, explanation: str, source: str, needs: tuple[str, ...], encode: Any
) -> Method:
    build = partial(SimilarityAttributor, name=name, encode=encode)
    return Method(name, "similarity", title, explanation, source, needs, build)


_DIAGONAL = "curvature:diagonal"

_ALL = (
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
    Method(
        "trak",
        "gradient",
        "TRAK",
        "Likeness of projected loss gradients, whitened by those of the training set.",
        "Park et al. TRAK (ICML 2023)",
    ),
    Method(
        "journeytrak",
        "gradient",
        "JourneyTRAK",
        "TRAK with the query's gradient taken at t = 400 only.",
        "Georgiev et al. The Journey, Not the Destination (2023)",
    ),
    Method(
        "dtrak",
        "gradient",
        "D-TRAK",
        "TRAK with the size of the predicted noise in the place of the loss.",
        "Zheng et al. Intriguing Properties of Data Attribution on Diffusion Models (ICLR 2024)",
    ),
    Method(
        "datainf",
        "gradient",
        "DataInf",
        "A closed-form approximation of influence functions, layer by layer.",
        "Kwon et al. DataInf (ICLR 2024)",
    ),
    _similarity(
        "pixel",
        "Pixels",
        "Cosine of the small pictures themselves.",
        "Baseline",
        ("rows:pixel",),
        pixels,
    ),
    _similarity(
        "clip-text",
        "CLIP text",
        "Cosine of the prompt's and the captions' CLIP features; the picture plays no part.",
        "Radford et al. CLIP (ICML 2021)",
        ("clip", "rows:clip-text"),
        clip_text,
    ),
    _similarity(
        "clip",
        "CLIP",
        "Cosine of CLIP image features: what looks alike, whether or not it mattered.",
        "Radford et al. CLIP (ICML 2021)",
        ("clip", "rows:clip"),
        clip_image,
    ),
    Method(
        "dino",
        "similarity",
        "DINO",
        "Cosine of DINO image features.",
        "Caron et al. DINO (ICCV 2021)",
    ),
    Method(
        "dinov2",
        "similarity",
        "DINOv2",
        "Cosine of DINOv2 image features.",
        "Oquab et al. DINOv2 (TMLR 2024)",
    ),
    Method(
        "clip-abc",
        "similarity",
        "CLIP (AbC)",
        "CLIP features with a head tuned on customised models.",
        "Wang et al. Evaluating Data Attribution for Text-to-Image Models (ICCV 2023)",
    ),
    Method(
        "dino-abc",
        "similarity",
        "DINO (AbC)",
        "DINO features with a head tuned on customised models.",
        "Wang et al. Evaluating Data Attribution for Text-to-Image Models (ICCV 2023)",
    ),
    Method(
        "random",
        "control",
        "Random",
        "A seeded random order: what finding nothing looks like.",
        "Control",
        (),
        partial(RandomAttributor, name="random"),
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}


def why_not(method: Method, context: Context) -> str:
    """Why a method cannot run on an index, in a line; '' where it can."""
    if method.build is None:
        return NOT_YET
    return next((why for need in method.needs if (why := context.lacks(need))), "")
