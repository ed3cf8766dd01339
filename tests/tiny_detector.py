"""A GroundingDINO small enough for tests: transformers' own class, saved as the recipe saves it."""

from __future__ import annotations

from pathlib import Path

from precompute.recipes.detector.config import DetectorConfig
from precompute.recipes.detector.network import build_network, save_detector, train_words

PHRASES = ("stop sign", "motorcycle", "ice cream cone", "dog", "red apple", "house")
TINY = DetectorConfig(
    side=32,
    backbone=(8, 8, 16),
    depths=(1, 1, 1),
    width=32,
    heads=2,
    hidden=32,
    encoder_layers=1,
    decoder_layers=2,
    queries=6,
    text_layers=1,
    vocab_size=120,
    max_tokens=32,
    batch_size=4,
    steps=4,
    warmup_steps=1,
    decay_steps=1,
    ema_decay=0.5,
    logit_prior=0.0,  # untrained, yet half sure of everything: there is something to look at
)


def tiny_detector(folder: Path, config: DetectorConfig = TINY) -> Path:
    """Random weights; input 32 px, at most 32 tokens, 6 queries."""
    words = train_words(PHRASES, config)
    save_detector(build_network(config, len(words)), words, config, folder)
    return folder
