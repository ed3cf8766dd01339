"""The detectors of one engine: opened when first asked for, then kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from attribution.detection import words
from attribution.detection.attention import NAME as ATTENTION
from attribution.detection.attention import Attention, WordMaps
from attribution.detection.protocol import TEXT_THRESHOLD, THRESHOLD, Detector, Found
from attribution.detection.registry import AUTO, DETECTORS, Setup, choose, listed
from attribution.images import ImageSource, read_image
from attribution.jobs import result
from attribution.types import Progress, Query, UserError
from attribution.validate import threshold as checked


class Desk:
    """Takes a picture and words, asks the detector of that name."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._open: dict[str, Detector] = {}

    def listed(self) -> list[dict[str, Any]]:
        """See `registry.listed`."""
        return listed(self.setup)

    def detect(
        self,
        picture: Query | ImageSource,
        text: str = "",
        threshold: float = THRESHOLD,
        text_threshold: float | None = None,
        detector: str = AUTO,
    ) -> Iterator[Progress | Found]:
        """Progress, then what was found. text: empty for the nouns of the query's prompt.
        text_threshold: None for the usual one, or the threshold where that is lower.

        A prompt's other nouns are looked for along with what `text` names, and left out of what was
        found: those things, which are probably there, are not taken for it then. Where that leaves
        nothing, what is found without them counts, and the Found says what it is `rather`.

        Everything given is checked before anything runs; UserError for what cannot work.
        """
        name = choose(detector, self.setup)
        # the mean over a name's words is never above their best: a lower threshold would be none
        least = checked(threshold)
        floors = (
            least,
            min(least, TEXT_THRESHOLD) if text_threshold is None else checked(text_threshold),
        )
        if isinstance(picture, Query):
            query, wanted = picture, wanted_in(picture, text)
            others = () if name == ATTENTION else beside(query, wanted)
        else:
            wanted, others = words.phrases(text), ()
            query = Query(", ".join(wanted), read_image(picture))
        opened = self._detector(name)

        def looked(phrases: Sequence[str]) -> Iterator[Progress | Found]:
            return opened.run(query, words.as_prompt(phrases), *floors)

        return _apart(looked, wanted, others) if others else looked(wanted)

    def word_maps(self, query: Query) -> Iterator[Progress | WordMaps]:
        """Progress, then where the model looked for each word of the query's prompt."""
        detector = self._detector(ATTENTION)
        assert isinstance(detector, Attention)
        return detector.maps(query)

    def _detector(self, name: str) -> Detector:
        if name not in self._open:
            self._open[name] = DETECTORS[name].build(self.setup)
        return self._open[name]


def beside(query: Query, wanted: Sequence[str]) -> tuple[str, ...]:
    """The prompt's nouns that share no word with what is wanted, as many as may be asked along."""
    said = {stem for phrase in wanted for stem in words.stems(phrase)}
    others = [noun for noun in words.nouns(query.prompt) if not said & words.stems(noun)]
    return tuple(others[: words.MAX_PHRASES - len(wanted)])


def _apart(
    looked: Callable[[Sequence[str]], Iterator[Progress | Found]],
    wanted: tuple[str, ...],
    others: tuple[str, ...],
) -> Iterator[Progress | Found]:
    """What is wanted, found along with others and without these; without them from the start where
    nothing of it is left.
    """
    found: Found = yield from result(looked((*wanted, *others)), Found)
    kept = tuple(one for one in found.detections if one.label in wanted)
    hidden = dict.fromkeys(one.label for one in found.detections if one.label not in wanted)
    rather: tuple[str, ...] = ()
    if hidden and not kept:
        found = yield from result(looked(wanted), Found)
        kept, rather = found.detections, tuple(hidden) if found.detections else ()
    yield replace(found, phrases=wanted, detections=kept, rather=rather)


def wanted_in(query: Query, text: str) -> tuple[str, ...]:
    """The phrases asked for, by default the nouns of the prompt; UserError where it has none."""
    if text.strip():
        return words.phrases(text)
    found = words.nouns(query.prompt)
    if not found:
        raise UserError("the prompt names nothing to look for: type what to detect")
    return found
