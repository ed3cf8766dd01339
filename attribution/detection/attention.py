"""The model's own attention: which part of the picture looked at which word of the prompt.

| code | meaning |
|---|---|
| A [B, heads, hw, L] | cross-attention probabilities of one layer, position against token |
| maps [words, h, w] | mean of A / mean_hw(A) over heads, layers, steps and a word's tokens |
| heat [h, w] | a phrase's map from its median, 0, to its greatest value, 1 |

Averaging the cross-attention over layers, heads and steps follows Tang et al. 2023, "What the DAAM:
Interpreting Stable Diffusion Using Cross Attention". Here each head's map is first divided by its
mean over the positions (1: this position looks at the word as much as positions do on average), for
in a small model most heads look at every word everywhere, and the few that point would drown. A
generated picture is generated once more (same prompt, same seed) while its attention is recorded;
for an upload the model looks at its noised latents, with noise keyed like every other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from attribution.denoiser import Denoiser
from attribution.detection import words
from attribution.detection.protocol import LOOKING, TEXT_THRESHOLD, THRESHOLD, Detection, Found
from attribution.detection.recording import TINY, recorded
from attribution.noise import keyed_noise
from attribution.regions import placement
from attribution.types import Progress, Query, UserError

NAME = "attention"
TIMESTEPS = tuple(range(100, 1000, 100))  # of an upload's noised latents
NAMESPACE, RECORD = "attention", "query"
STARTS = 1  # tokens before the prompt's first word: the start of text


@dataclass(frozen=True, eq=False)
class WordMaps:
    """Where the model looked for each white-space separated word of a prompt.

    maps: float32 [words, h, w] on the latent grid, 1 where a position looks at a word as positions
    do on average; size: (width, height) of
    the picture in pixels, which lies on the square that the grid covers.
    """

    prompt: str
    maps: np.ndarray
    size: tuple[int, int]

    @property
    def words(self) -> tuple[str, ...]:
        """The words that have a map; those beyond the model's text length have none."""
        return tuple(self.prompt.split()[: len(self.maps)])

    def places(self, phrase: str) -> list[int]:
        """Which words a phrase means; UserError where the prompt has none of them."""
        found = [place for place in words.find(phrase, self.prompt) if place < len(self.maps)]
        if not found:
            known = ", ".join(self.words[:12])
            raise UserError(f"the prompt does not say {phrase!r}: attention knows only {known}")
        return found

    def grid(self, places: Sequence[int]) -> np.ndarray:
        """Heat on the latent grid, float32 [h, w] in 0..1; 0 everywhere for an even map."""
        mean = self.maps[list(places)].mean(axis=0)
        above = (mean - np.median(mean)).clip(min=0.0)
        peak = float(above.max())
        return (above / peak if peak > TINY else np.zeros_like(above)).astype(np.float32)

    def heat(self, places: Sequence[int]) -> np.ndarray:
        """Heat over the picture's own pixels, float32 [height, width] in 0..1."""
        side, left, top = placement(self.size)
        grid = torch.from_numpy(self.grid(places))[None, None]
        square = F.interpolate(grid, (side, side), mode="bilinear")[0, 0].clamp(0, 1).numpy()
        width, height = self.size
        return np.ascontiguousarray(square[top : top + height, left : left + width])

    def mask(self, places: Sequence[int], threshold: float) -> Image.Image:
        """White where the heat reaches `threshold` of its greatest value: 8-bit grey, as
        `Region.mask`. At least one pixel is white.
        """
        heat = self.heat(places)
        inside = heat >= min(threshold * heat.max(), heat.max())
        return Image.fromarray(inside.astype(np.uint8) * 255)


def token_spans(tokenizer: Any, prompt: str, length: int) -> list[list[int]]:
    """Positions of each word's tokens in the text states of a prompt, [words] of [tokens].

    A CLIP tokenizer splits at white space first, so a word has the same tokens wherever it stands.
    Words that do not fit into `length` tokens, the end of text included, are left out.
    """
    spans, position = [], STARTS
    for word in prompt.split():
        count = len(tokenizer(word, add_special_tokens=False)["input_ids"])
        if position + count > length - 1:
            break
        spans.append(list(range(position, position + count)))
        position += count
    return spans


def word_maps(denoiser: Denoiser, query: Query) -> Iterator[Progress | WordMaps]:
    """One Progress per step, then the maps of the query's prompt over its picture."""
    _, height, width = denoiser.latent_shape
    began = time.perf_counter()
    with recorded(denoiser.unet, keep=1) as recording:
        for done, total in _steps(denoiser, query):
            seconds = time.perf_counter() - began
            yield Progress(LOOKING, done, total, seconds, seconds / done * (total - done))
    tokens = recording.maps(height, width).numpy()
    spans = token_spans(denoiser.tokenizer, query.prompt, len(tokens))
    if not spans:
        raise UserError("the prompt is too long for the model's text encoder")
    yield WordMaps(
        query.prompt, np.stack([tokens[span].mean(axis=0) for span in spans]), query.image.size
    )


def _steps(denoiser: Denoiser, query: Query) -> Iterator[tuple[int, int]]:
    """(done, total) after each forward: of the sampling once more, or over an upload's latents."""
    if query.seed is not None and query.steps is not None:
        guidance = query.guidance or 1.0
        for item in denoiser.sample(
            [query.prompt], [query.seed], steps=query.steps, guidance=guidance
        ):
            if isinstance(item, tuple):
                yield item
        return
    latents = denoiser.encode_images([query.image])
    cond = denoiser.encode_text([query.prompt])
    last = denoiser.n_train_timesteps - 1
    for done, t in enumerate(TIMESTEPS, start=1):
        noise = keyed_noise(
            denoiser.latent_shape, namespace=NAMESPACE, seed=0, record_id=RECORD, timestep=t
        )
        with torch.no_grad():
            denoiser.predict(latents, cond, noise[None], torch.tensor([min(t, last)]))
        yield done, len(TIMESTEPS)


class Attention:
    """The detector: phrases of the prompt → where the model looked for them.

    Text that is not in the prompt cannot be found. The maps of the last query are kept, so that
    another of its words costs nothing.
    """

    name = NAME

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self._last: tuple[Query, WordMaps] | None = None

    def detect(
        self,
        image: Image.Image,
        text: str,
        threshold: float = THRESHOLD,
        text_threshold: float = TEXT_THRESHOLD,
    ) -> list[Detection]:
        """See `protocol.Detector.detect`; the text is the prompt that the picture is shown with."""
        prompt = words.as_prompt(words.phrases(text)).replace(".", ",")
        *_, found = self.run(Query(prompt, image.convert("RGB")), text, threshold, text_threshold)
        return list(found.detections) if isinstance(found, Found) else []

    def run(
        self, query: Query, text: str, threshold: float, text_threshold: float
    ) -> Iterator[Progress | Found]:
        """See `protocol.Detector.run`. A box surrounds the hottest connected part of a phrase's
        map, where it reaches `threshold` of its peak; its score is the part's mean heat.
        """
        wanted = words.phrases(text)
        maps: WordMaps | None = None
        for item in self.maps(query):
            if isinstance(item, WordMaps):
                maps = item
            else:
                yield item
        assert maps is not None
        places = {phrase: maps.places(phrase) for phrase in wanted}
        heats = {phrase: maps.heat(place) for phrase, place in places.items()}
        found = [
            one
            for phrase, heat in heats.items()
            if (one := hottest(heat, phrase, threshold)) is not None and one.score > text_threshold
        ]
        found.sort(key=lambda one: -one.score)
        yield Found(self.name, wanted, tuple(found), heats)

    def maps(self, query: Query) -> Iterator[Progress | WordMaps]:
        """`word_maps`, kept for the query asked last; its regions make no difference."""
        if self._last is not None and _same(self._last[0], query):
            yield self._last[1]
            return
        for item in word_maps(self.denoiser, query):
            if isinstance(item, WordMaps):
                self._last = (query, item)
            yield item


def _same(a: Query, b: Query) -> bool:
    """Whether two queries have the same attention."""
    if (a.prompt, a.seed, a.steps, a.guidance) != (b.prompt, b.seed, b.steps, b.guidance):
        return False
    return a.image is b.image or (
        a.image.size == b.image.size and a.image.tobytes() == b.image.tobytes()
    )


def hottest(heat: np.ndarray, label: str, threshold: float) -> Detection | None:
    """The box around the connected part with the peak, where heat [h, w] reaches `threshold` of it;
    None for a map without heat.
    """
    peak = float(heat.max())
    if peak <= 0:
        return None
    part = connected(heat >= threshold * peak, np.unravel_index(int(heat.argmax()), heat.shape))
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    return Detection(box, float(heat[part].mean()), label)


def connected(inside: np.ndarray, seed: Sequence[Any]) -> np.ndarray:
    """The part of `inside`, bool [h, w], that hangs together with position `seed` (row, column)."""
    part = np.zeros_like(inside)
    part[tuple(seed)] = inside[tuple(seed)]
    before = 0
    while (now := int(part.sum())) != before:
        before = now
        for found, free in ((part, inside), (part.T, inside.T)):  # views: rows, then columns
            for row in range(1, len(found)):
                found[row] |= found[row - 1] & free[row]
            for row in range(len(found) - 1, 0, -1):
                found[row - 1] |= found[row] & free[row - 1]
    return part
