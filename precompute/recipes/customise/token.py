"""V*: one more word in a pipeline's tokenizer, one more row in its text encoder's table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution.denoiser import Denoiser
from attribution.types import UserError

DEFAULT = "<v1>"
# lower case, for CLIP's tokenizers lower every text; brackets, so that no other word contains it
_SHAPE = re.compile(r"<[a-z0-9][a-z0-9-]{0,30}>")


@dataclass(frozen=True)
class Token:
    """A new word: its text, and its row in the embedding table."""

    text: str
    row: int


def add_token(denoiser: Denoiser, text: str, word: str = "") -> Token:
    """Add V* to the model in memory; its embedding begins as that of `word` (its last one, if
    several), or as the mean of all without one.

    Raises UserError for a text of another form than <v1>, a text or part of it that the tokenizer
    has already, and a word that it has not.
    """
    if not _SHAPE.fullmatch(text):
        raise UserError(f"the token has to look like {DEFAULT} (lower case, digits), not {text!r}")
    if text in denoiser.tokenizer.get_vocab():
        raise UserError(f"the model has the token {text} already: choose another, e.g. <v2>")
    start = start_embedding(denoiser, word)
    denoiser.tokenizer.add_tokens([text])
    row = int(denoiser.tokenizer.convert_tokens_to_ids(text))
    if len(embeddings(denoiser).weight) <= row:
        denoiser.text_encoder.resize_token_embeddings(row + 1, mean_resizing=False)
        denoiser.text_encoder.requires_grad_(False)
    token = Token(text, row)
    set_row(denoiser, token, start)
    return token


def embeddings(denoiser: Denoiser) -> Any:
    """The text encoder's embedding table, an nn.Embedding [vocabulary, d]."""
    return denoiser.text_encoder.get_input_embeddings()


def start_embedding(denoiser: Denoiser, word: str = "") -> Tensor:
    """The embedding of `word` (the last of several), or the mean of all for none, [d].

    UserError where the tokenizer knows a word only in pieces: V* could not begin as it.
    """
    table = embeddings(denoiser).weight.detach()
    if not word.strip():
        return table[: len(denoiser.tokenizer)].mean(0)
    pieces: list[int] = []
    for part in word.split():
        pieces = denoiser.tokenizer(part, add_special_tokens=False).input_ids
        if len(pieces) != 1 or pieces[0] in denoiser.tokenizer.all_special_ids:
            raise UserError(
                f"the model does not know the word {part!r}: choose a plainer one, "
                "of those its captions use, or leave it out"
            )
    return table[pieces[0]].clone()


@torch.no_grad()
def set_row(denoiser: Denoiser, token: Token, value: Tensor) -> None:
    """Write V*'s embedding [d]; every other row stays bit-identical."""
    weight = embeddings(denoiser).weight
    weight[token.row] = value.to(weight)


@contextmanager
def learned_row(denoiser: Denoiser, token: Token) -> Iterator[nn.Parameter]:
    """V*'s embedding [d] as a parameter of its own: gradients reach it and no other row. It is
    written into the table at the end.
    """
    table = embeddings(denoiser)
    row = nn.Parameter(table.weight[token.row].detach().clone())
    handle = table.register_forward_hook(_substituting(token, row))
    try:
        yield row
    finally:
        handle.remove()
        set_row(denoiser, token, row.detach())


def _substituting(token: Token, row: nn.Parameter) -> Callable[[Any, Any, Tensor], Tensor]:
    def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
        return torch.where((inputs[0] == token.row)[..., None], row.to(output), output)

    return hook
