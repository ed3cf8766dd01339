"""The detectors of one engine: opened when first asked for, then kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from attribution.detection import words
from attribution.detection.attention import NAME as ATTENTION
from attribution.detection.attention import Attention, WordMaps
from attribution.detection.protocol import TEXT_THRESHOLD, THRESHOLD, Detector, Found
from attribution.detection.registry import AUTO, DETECTORS, Setup, choose, listed
from attribution.images import ImageSource, read_image
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
        """Progress, then what was found. text: empty for the nouns of the query's prompt, whose
        other nouns are looked for along with what it names, and left out of what was found: else
        those things, which are probably there, would be taken for it. text_threshold: None for the
        usual one, or the threshold where that is lower.

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
            asked = (*wanted, *(() if name == ATTENTION else beside(query, wanted)))
        else:
            asked = wanted = words.phrases(text)
            query = Query(", ".join(wanted), read_image(picture))
        job = self._detector(name).run(query, words.as_prompt(asked), *floors)
        return _only(wanted, job)

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
    said = {word for phrase in wanted for word in phrase.split()}
    others = [noun for noun in words.nouns(query.prompt) if not said & set(noun.split())]
    return tuple(others[: words.MAX_PHRASES - len(wanted)])


def _only(wanted: tuple[str, ...], job: Iterator[Progress | Found]) -> Iterator[Progress | Found]:
    """A run's findings of these phrases, without those that were asked along."""
    for item in job:
        if isinstance(item, Found):
            kept = tuple(one for one in item.detections if one.label in wanted)
            maps = {phrase: heat for phrase, heat in item.heatmaps.items() if phrase in wanted}
            item = replace(item, phrases=wanted, detections=kept, heatmaps=maps)
        yield item


def wanted_in(query: Query, text: str) -> tuple[str, ...]:
    """The phrases asked for, by default the nouns of the prompt; UserError where it has none."""
    if text.strip():
        return words.phrases(text)
    found = words.nouns(query.prompt)
    if not found:
        raise UserError("the prompt names nothing to look for: type what to detect")
    return found
