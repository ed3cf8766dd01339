"""EDGE: the composition root. One `Engine` serves the page, the command line and the tests.

>>> engine = Engine("assets/openclipart")
>>> *_, query = engine.generate("an ice cream cone", seed=7)
>>> *_, attribution = engine.attribute(query, methods=("abu",), top_k=24)
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from attribution import catalogue, defaults, sampling, validate
from attribution.denoiser import Denoiser
from attribution.detection.attention import WordMaps
from attribution.detection.desk import Desk
from attribution.detection.protocol import THRESHOLD, Found
from attribution.detection.registry import AUTO, ENCODER, Setup, choose
from attribution.features import ClipEncoder
from attribution.forgetting import Drawing, forget_query
from attribution.images import ImageSource, read_image
from attribution.index import Index
from attribution.methods.registry import METHODS, Context, why_not
from attribution.precision import Probe, named
from attribution.reader import Reader
from attribution.types import (
    Attribution,
    Cancelled,
    Forgetting,
    Progress,
    Query,
    Region,
    UserError,
)
from attribution.unlearning import UnlearnConfig

T = TypeVar("T")
WAITING = "waiting"
_TOLD = ("name", "kind", "title", "explanation", "source", "lesson", "formula")


class Engine(Reader):
    """An opened index with its model: loaded once, then asked many times.

    Every generator holds the engine's one lock while it runs; closing it (or a `Cancelled` thrown
    into it) stops the job within a step and leaves the weights as they were. One that is neither
    exhausted nor closed keeps the lock: the next job waits, yielding Progress of the stage
    "waiting".

    Attributes, beside a Reader's: denoiser (attribution.denoiser.Denoiser), resolution (px of
    generated images).
    """

    def __init__(
        self,
        index_dir: str | Path,
        device: str = "auto",
        *,
        verify: str = "auto",
        precision: str = "auto",
    ) -> None:
        """Open `index_dir` and load its model; UserError if that fails.

        device: "auto", "cpu" or "cuda". verify: how to check the index, as in Index.open.
        precision: what scores are computed in, as in attribution.precision; "auto" probes the
        machine when the first picture is attributed.
        """
        asked = named(precision)
        index = Index.open(index_dir, verify)
        self.denoiser = Denoiser.load(
            index.model_path, device=device, revision=index.model_revision
        )
        super().__init__(index, str(self.denoiser.device))
        self.resolution: int = self.denoiser.resolution
        self._advice = sampling.recommended(self.index.model_path)
        self._lock = threading.Lock()
        self._context = Context(self.denoiser, self.index)
        self._context.probe = None if asked is None else Probe(asked)
        self._attributors: dict[str, Any] = {}

    # ---------------------------------------------------------------------------------------- jobs

    def methods(self) -> list[dict[str, Any]]:
        """Every method as {name, kind, title, available, why, ...}; why: a line, "" if available.

        Also explanation (a line), source, lesson (three sentences), formula (LaTeX without $).
        """
        found = []
        for m in METHODS.values():
            why = why_not(m, self._context)
            fields = {name: getattr(m, name) for name in _TOLD}
            found.append({**fields, "available": not why, "why": why})
        return found

    def generate(
        self, prompt: str, seed: int, *, steps: int | None = None, guidance: float | None = None
    ) -> Iterator[Progress | Query]:
        """One Progress for each sampling step, then the Query with the decoded 8-bit image."""
        prompt, seed = validate.prompt(prompt), validate.seed(seed)
        steps, guidance = sampling.settings(self._advice, self.denoiser, steps, guidance)
        job = sampling.generate(self.denoiser, prompt, seed, steps, guidance)
        yield from self._alone(job)

    def upload(self, source: ImageSource, prompt: str, *, regions: Sequence[Region] = ()) -> Query:
        """A picture from outside, with the prompt to condition it on; its seed is None."""
        image = read_image(source)
        chosen = validate.regions(tuple(regions), image.size)
        return Query(validate.prompt(prompt), image, regions=chosen)

    def attribute(
        self,
        query: Query,
        methods: Sequence[str] = (defaults.METHOD,),
        top_k: int | None = None,
        exhaustive: bool = False,
        control: int = 0,
        **params: Any,
    ) -> Iterator[Progress | Attribution]:
        """Run the methods one after another: Progress with partial answers, then the Attribution.

        top_k: as in `Reader.top_k`. params: `shortlist` (int), `relative_increase` (float), and
        others that the methods name; UserError before anything runs for one that some chosen method
        does not have. A method that fails keeps none of the others from answering: its error is
        raised after the last of them. control: how many random training records to score beside the
        candidates of a method that has a shortlist, as the answer's `control`.
        """
        names = validate.methods(methods, {entry["name"]: entry for entry in self.methods()})
        k = self.top_k(top_k)
        query = _checked(query)
        for name in names:
            METHODS[name].check_options({"exhaustive": exhaustive, **params})
        failures: list[tuple[str, Exception]] = []
        for name in names:
            try:
                more = self._beside(name, query, control)
                yield from self._alone(self._run(name, query, k, exhaustive, {**params, **more}))
            except Exception as error:
                if isinstance(error, Cancelled) or len(names) == 1:
                    raise
                failures.append((name, error))
        if failures:
            raise _joined(failures)

    def forget(
        self,
        query: Query,
        strengths: Sequence[float] = defaults.FORGET_STRENGTHS,
        other_prompts: Sequence[str] | None = None,
    ) -> Iterator[Progress | Forgetting]:
        """The query's prompt and seed at each strength, and unrelated prompts before and after.

        strengths: relative loss increases; 0, the model as it is, always comes first. Reuses the
        delta of the default method's last answer for the same query; else unlearns first.
        """
        query, strengths = _checked(query), _strengths(strengths)
        if other_prompts is None:
            n = defaults.FORGET_OTHERS
            other_prompts = catalogue.prompts(self.index, n, seed=1, unlike=query.prompt)
        others = [validate.prompt(text) for text in other_prompts]
        steps, guidance = sampling.settings(
            self._advice, self.denoiser, query.steps, query.guidance
        )
        drawing = Drawing.of(query, others, steps, guidance)
        job = self._attributor(defaults.METHOD).unlearn(query)
        # those of the unlearning's own line search, whose increase is known
        timesteps = UnlearnConfig().timesteps(self.denoiser.n_train_timesteps)
        yield from self._alone(
            forget_query(self.denoiser, query, job, timesteps, strengths, drawing)
        )

    def detectors(self) -> list[dict[str, Any]]:
        """Every detector as {name, title, explanation, source, available, why, default}."""
        return self._desk.listed()

    def detector(self, name: str = AUTO) -> str:
        """The detector that a name means; UserError for one unknown, or of no use here."""
        return choose(name, self._desk.setup)

    def detect(
        self,
        picture: Query | ImageSource,
        text: str = "",
        threshold: float = THRESHOLD,
        text_threshold: float | None = None,
        detector: str = AUTO,
    ) -> Iterator[Progress | Found]:
        """Progress, then the boxes in pixels of what `text` names, by default the prompt's nouns.

        picture: a query or any image. UserError before anything runs for bad input.
        """
        job = self._desk.detect(picture, text, threshold, text_threshold, detector)
        yield from self._alone(job)

    def word_maps(self, query: Query) -> Iterator[Progress | WordMaps]:
        """Progress, then where the model looked for each word of the query's prompt."""
        yield from self._alone(self._desk.word_maps(query))

    def suggest_captions(self, image: Image.Image, k: int = 5) -> list[str]:
        """The k training captions nearest to an image in the embedded CLIP; empty where the index
        has no CLIP.
        """
        if self.clip is None:
            return []
        features = self.clip.images([read_image(image)]).numpy()
        return catalogue.nearest_captions(self.index, features, k)

    @cached_property
    def clip(self) -> ClipEncoder | None:
        """The index's CLIP, loaded when first asked for; None where it has none."""
        index = self.index
        if index.clip_path is None:
            return None
        return ClipEncoder.load(index.clip_path, self.denoiser.device, index.clip_revision)

    # -------------------------------------------------------------------------------------- inside

    @cached_property
    def _desk(self) -> Desk:
        own = self.index.encoder(ENCODER)
        revision = self.index.extras.encoders.get(ENCODER, {}).get("revision")
        return Desk(Setup(self.denoiser, own, revision))

    def _alone(self, job: Iterator[T]) -> Iterator[Progress | T]:
        """The items of `job` while nobody else uses the model."""
        began = time.perf_counter()
        # briefly: where one thread does all the work, the job waited for stands still meanwhile
        while not self._lock.acquire(timeout=0.02):
            yield Progress(WAITING, 0, 1, time.perf_counter() - began)
        try:
            yield from job
        finally:
            self._lock.release()

    def _run(
        self, name: str, query: Query, k: int, exhaustive: bool, params: dict[str, Any]
    ) -> Iterator[Progress | Attribution]:
        return self._attributor(name).run(query, k=k, exhaustive=exhaustive, **params)

    def _beside(self, name: str, query: Query, control: int) -> dict[str, Any]:
        """The option that has random records scored along, the same for the same picture."""
        if not control or METHODS[name].kind != "unlearning":
            return {}
        seed = zlib.crc32(f"{query.prompt}|{query.seed}".encode())
        rows = catalogue.random_rows(self.index, control, seed)
        return {"also": tuple(self.index.ids(rows))}

    def _attributor(self, name: str) -> Any:
        """The method's object, built when first asked for; it keeps what its next run can reuse."""
        if name not in self._attributors:
            self._context.clip = self.clip
            self._attributors[name] = METHODS[name].build(self._context)
        return self._attributors[name]


def _checked(query: Query) -> Query:
    """With regions inside the picture, and clean words; UserError for what cannot be."""
    chosen = validate.regions(query.regions, query.image.size)
    return replace(query, regions=chosen, called=validate.called(query.called, bool(chosen)))


def _joined(failures: Sequence[tuple[str, Exception]]) -> Exception:
    """What some of the methods failed of, as one error: a fault of ours before a user's."""
    faults = [error for _, error in failures if not isinstance(error, UserError)]
    if faults:
        return faults[0]
    return UserError("; ".join(f"method {name}: {error}" for name, error in failures))


def _strengths(values: Sequence[float]) -> tuple[float, ...]:
    """Relative loss increases in growing order, 0 first."""
    return tuple(sorted({0.0, *(validate.strength(value) for value in values)}))
