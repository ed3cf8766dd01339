"""Attribution by features tuned on customised models (AbC)."""

from __future__ import annotations

from attribution.methods.method import Method

METHODS: tuple[Method, ...] = (
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
)
