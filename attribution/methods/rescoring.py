"""The second half of an unlearning method: with Δθ in hand, candidates, races and exact scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from attribution import defaults
from attribution.jobs import result
from attribution.methods.answers import ranked, region_params
from attribution.methods.candidates import Candidates, choose
from attribution.methods.context import Context
from attribution.methods.probing import settle
from attribution.methods.tracking import Tracked, Tracks, tracked
from attribution.precision import Probe
from attribution.racing import Race, Waves, check_waves, plan
from attribution.reduce import reduce_cells, score_cells, score_noise, timesteps_seen
from attribution.scoring import Scores, score_records
from attribution.types import Attribution, Progress, Query
from attribution.unlearning import UnlearnConfig, Unlearned

KIND = "unlearning"
# A noise floor above this part of the scores' spread: both sides are computed afresh.
FLOOR_SHARE = 0.05


def check_racing(waves: Any) -> None:
    """UserError for a `racing` that is neither a switch nor a schedule."""
    if waves is not None and not isinstance(waves, bool):
        check_waves(waves)


@dataclass
class Rescoring:
    """One run of a method on one query; `options` as in UnlearningAttributor.run, `racing` being
    the schedule where they say nothing of it."""

    context: Context
    method: str
    query: Query
    config: UnlearnConfig
    k: int
    options: dict[str, Any]
    tracks: Tracks
    racing: Waves
    seconds: dict[str, float] = field(default_factory=dict)

    def steps(
        self, unlearning: Iterator[Progress | Unlearned], ids: Sequence[str] | None
    ) -> Iterator[Progress | Attribution]:
        """Progress, with partial answers while scoring; the Attribution last."""
        context, objective = self.context, self.config.objective
        began = time.perf_counter()
        found = yield from result(unlearning, Unlearned)
        self.seconds["unlearn"] = time.perf_counter() - began
        probe = self._timed("precision", lambda: settle(context, self.config, found.delta))
        limit = None if self.options.get("exhaustive") else self._limit()
        began = time.perf_counter()
        candidates = yield from choose(context, self.query, found.delta, ids, limit, objective)
        self.seconds["shortlist"] = time.perf_counter() - began
        watched = self._timed("noise floor", lambda: tracked(context, self.config, self.tracks))
        race = self._race(len(candidates.rows), ids)
        facts = _Facts(found, probe, candidates, race, watched)
        scores = yield from self._scores(facts)
        yield self._answer(scores, facts)

    def _limit(self) -> int | None:
        """Candidates to choose, no fewer than are to be shown; None for all."""
        limit = self.options.get("shortlist", defaults.SHORTLIST)
        return max(limit, self.k) if isinstance(limit, int) else limit

    def _race(self, candidates: int, ids: Sequence[str] | None) -> Race | None:
        """The race of this run, None where every cell is wanted."""
        waves = self.options.get("racing")
        whole = self.options.get("exhaustive") or self.options.get("columns") is not None
        if whole or waves is False or (waves is None and ids is not None):
            return None
        waves = self.racing if waves in (None, True) else waves
        return plan(
            waves,
            self.context.index.timesteps,
            self.context.base_loss(self.config.objective),
            self.k,
            candidates,
            defaults.RACING_CONFIDENCE,
            defaults.TOP_K,
        )

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        self.seconds[stage] = time.perf_counter() - began
        return result

    def _scores(self, facts: _Facts) -> Generator[Progress | Attribution, None, Scores]:
        context, index = self.context, self.context.index
        fresh = self.options.get("fresh_base")

        def stale(scores: Scores) -> bool:
            share = _floor_share(scores, facts.tracked.floor)
            return share > FLOOR_SHARE if fresh is None else bool(fresh)

        job = score_records(
            facts.tracked.denoiser,
            index,
            facts.tracked.base,
            facts.candidates.rows,
            facts.found.delta,
            index.timesteps,
            index.seed,
            also=context.training_rows(self.options.get("also") or ()),
            race=facts.race,
            columns=self.options.get("columns"),
            stale=stale if facts.tracked.cached else None,
            keep_maps=self.k,
            texts=context.texts,
            partial=lambda scores: self._answer(scores, facts),
        )
        scores = yield from result(job, Scores)
        self.seconds["score"] = scores.seconds
        return scores

    def _answer(self, scores: Scores, facts: _Facts) -> Attribution:
        """The candidates, best first, and the records scored beside them."""
        rows, cells = scores.rows[: scores.rivals], scores.cells[: scores.rivals]
        tau, error, flip = score_cells(cells)
        # base losses that were computed here have no other machine's noise
        floor = 0.0 if scores.fresh else facts.tracked.floor
        whole = int((timesteps_seen(cells) == len(self.context.index.timesteps)).sum())
        return ranked(
            self.method,
            KIND,
            self.context.index,
            rows,
            tau,
            standard_error=error,
            flip=flip,
            cells=cells,
            maps=scores.maps,
            timesteps=self.context.index.timesteps,
            noise_floor=floor,
            seconds=dict(self.seconds),
            params=self._params(scores, facts, finalists=whole),
            candidate_source=facts.source,
            evaluated_cells=scores.evaluated,
            control=self._control(scores, floor) if self.options.get("also") else None,
        )

    def _control(self, scores: Scores, floor: float) -> Attribution:
        """The records asked for along, as an answer of their own."""
        cells = scores.cells[scores.rivals :]
        tau, error, flip = reduce_cells(cells)
        return ranked(
            self.method,
            KIND,
            self.context.index,
            scores.rows[scores.rivals :],
            tau,
            standard_error=error,
            flip=flip,
            cells=cells,
            timesteps=self.context.index.timesteps,
            noise_floor=floor,
            candidate_source="control",
        )

    def _params(self, scores: Scores, facts: _Facts, finalists: int) -> dict[str, Any]:
        """What reproduces the run, and what it reached."""
        candidates, found, race = facts.candidates, facts.found, facts.race
        return {
            **asdict(self.config),
            "tracks": self.tracks,
            "reached": found.reached,
            "alpha_over_n": found.alpha_over_n,
            "columns": self.options.get("columns"),
            "shortlist": candidates.shortlist,
            "sources": candidates.sources,
            "racing": None if race is None else self._raced(race, finalists),
            "precision": facts.probe.facts(),
            "noise_floor_share": _floor_share(scores, facts.tracked.floor),
            "fresh_base": scores.fresh,
            "note": found.note,
            **region_params(self.query, "loss"),
        }

    def _raced(self, race: Race, finalists: int) -> dict[str, Any]:
        """The schedule, and how many records ran to the end: the only exact scores."""
        timesteps = self.context.index.timesteps
        waves = [
            {"timesteps": [timesteps[column] for column in columns], "survivors": keep}
            for columns, keep in race.waves
        ]
        return {"waves": waves, "confidence": race.confidence, "finalists": finalists}


@dataclass(frozen=True)
class _Facts:
    """What is known before the first score."""

    found: Unlearned
    probe: Probe
    candidates: Candidates
    race: Race | None
    tracked: Tracked

    @property
    def source(self) -> str:
        """Which records were scored, and whether at every timestep."""
        chosen = "exhaustive" if self.candidates.shortlist is None else "shortlist"
        if self.race is None:
            return chosen
        return "racing" if self.candidates.shortlist is None else "shortlist, racing"


def _floor_share(scores: Scores, floor: float) -> float:
    """The noise floor of a score (a mean of cells) as a part of the scores' spread."""
    cells = scores.cells[: scores.rivals]
    tau, _, _ = score_cells(cells)
    spread = float(np.nanstd(tau)) if np.isfinite(tau).any() else 0.0
    return score_noise(floor, cells) / spread if spread > 0 else 0.0
