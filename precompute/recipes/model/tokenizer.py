"""A CLIPTokenizer whose byte-level BPE vocabulary is learned from the captions."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(captions: Sequence[str], vocab_size: int, max_tokens: int) -> CLIPTokenizer:
    """Deterministic for the same captions; any other text still encodes, byte by byte if need
    be."""
    blank = CLIPTokenizer(vocab={BOS: 0, EOS: 1}, merges=[]).backend_tokenizer
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    blank.train_from_iterator(sorted(captions), trainer)
    model = json.loads(blank.to_str())["model"]
    return CLIPTokenizer(
        vocab=_with_word_ends(model["vocab"]),
        merges=[tuple(m) for m in model["merges"]],
        model_max_length=max_tokens,
    )


def _with_word_ends(vocab: dict[str, int]) -> dict[str, int]:
    """Adds every byte as the end of a word, so that unseen words never turn into the end-of-text
    token."""
    full = dict(vocab)
    for byte in sorted(ByteLevel.alphabet()):
        full.setdefault(byte + "</w>", len(full))
    return full
