"""The fixed queries of the verbs on answers: pictures of the contact sheet, one of each kind in
turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from PIL import Image

from evaluation import generated
from evaluation.generated import Sampling, seed_of
from evaluation.model_sheet import load_prompts
from evaluation.world import World

N_QUERIES = 20


@dataclass(frozen=True)
class Asked:
    """One query: what its picture is made from, and the picture."""

    prompt: str
    seed: int
    kind: str
    image: Image.Image

    @property
    def key(self) -> str:
        """A name for files and lines, the same in every run."""
        return f"{self.seed:08x}"


def fixed_prompts(n: int) -> list[tuple[str, str]]:
    """(kind, prompt) of the first n queries: seen, new, style, two objects, and again."""
    kinds: dict[str, list[tuple[str, str]]] = {}
    for entry in load_prompts():
        kinds.setdefault(entry["kind"], []).append((entry["kind"], entry["prompt"]))
    turns = chain.from_iterable(zip_longest(*kinds.values()))
    return [pair for pair in turns if pair is not None][:n]


def queries(world: World, n: int, sampling: Sampling, cache: Path) -> list[Asked]:
    """The first n queries with their pictures, drawn where the cache lacks them."""
    chosen = fixed_prompts(n)
    pairs = [(prompt, seed_of(prompt)) for _, prompt in chosen]
    images = generated.draw(world, pairs, sampling, cache)
    return [
        Asked(prompt, seed_of(prompt), kind, Image.fromarray(image))
        for (kind, prompt), image in zip(chosen, images, strict=True)
    ]
