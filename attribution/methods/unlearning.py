"""Attribution by unlearning: Δθ of the query, candidates, exact scores against cached losses."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from attribution import defaults, regions
from attribution.methods.answers import ranked, refuse_unknown, region_params
from attribution.methods.candidates import Candidates, check_limit, choose
from attribution.methods.context import Context
from attribution.reduce import reduce_cells
from attribution.scoring import Scores, score_records
from attribution.types import Attribution, Progress, Query
from attribution.unlearning import UnlearnConfig, Unlearned, unlearn

KIND = "unlearning"
# A noise floor above this part of the scores' spread: both sides are computed afresh.
FLOOR_SHARE = 0.05
CONFIGURABLE = (
    *("relative_increase", "steps", "preset", "alpha", "damping", "stride", "draws"),
    *("search_draws", "ewc", "seed"),
)
OTHER_OPTIONS = ("exhaustive", "shortlist", "fresh_base", "columns")
OPTIONS = (*OTHER_OPTIONS, *CONFIGURABLE)


def configured(config: Mapping[str, Any], options: Mapping[str, Any]) -> UnlearnConfig:
    """A method's own configuration with those options that are given; UserError for bad values."""
    chosen = {n: v for n, v in options.items() if n in CONFIGURABLE and v is not None}
    return UnlearnConfig(**{**config, **chosen})


def check_options(config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """UserError for values that no run takes."""
    configured(config, options)
    check_limit(options.get("shortlist"))


class UnlearningAttributor:
    """One unlearning method of an index; keeps the last Δθ, for "see it forget" and reruns."""

    def __init__(self, context: Context, name: str, **config: Any) -> None:
        self.context, self.name = context, name
        self.config = {
            "relative_increase": defaults.RELATIVE_INCREASE,
            "draws": defaults.DRAWS,
            "n_records": max(1, len(context.index.train_rows)),
            **config,
        }
        self._last: tuple[str, Unlearned] | None = None

    def unlearn(self, query: Query, **options: Any) -> Iterator[Progress | Unlearned]:
        """Progress, then the Unlearned of a query; at once when the last one was the same."""
        config = self._configured(options)
        key = _key(query, config)
        if self._last is None or self._last[0] != key:
            latents, cond = self._encoded(query)
            curvature = self.context.curvature(
                config.curvature, config.weight_set, config.objective
            )
            weights = regions.query_weights(self.context.denoiser, query)
            job = unlearn(self.context.denoiser, latents, cond, curvature, config, weights)
            for item in job:
                if isinstance(item, Unlearned):
                    self._last = key, item
                else:
                    yield item
        assert self._last is not None
        yield self._last[1]

    def run(
        self, query: Query, ids: Sequence[str] | None = None, k: int = 24, **options: Any
    ) -> Iterator[Progress | Attribution]:
        """Progress with partial answers, then the Attribution; heat maps for the top k.

        ids: score exactly these training records. Options: exhaustive, shortlist (candidates),
        fresh_base (compute base losses here: True, False, or None to let the noise floor decide),
        columns (of the index's timesteps), and those of UnlearnConfig.
        """
        refuse_unknown(self.name, options, dict.fromkeys(OPTIONS))
        run = _Run(self, query, k, options)
        yield from run.steps(ids)

    def _configured(self, options: dict[str, Any]) -> UnlearnConfig:
        return configured(self.config, options)

    def _encoded(self, query: Query) -> tuple[Tensor, Tensor]:
        denoiser = self.context.denoiser
        return denoiser.encode_images([query.image]), denoiser.encode_text([query.prompt])


@dataclass
class _Run:
    """One run of a method on one query."""

    attributor: UnlearningAttributor
    query: Query
    k: int
    options: dict[str, Any]
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """What is raised is tracked too: the model and base values of the method's objective."""
        context, config = self.attributor.context, self.attributor._configured({})
        self.objective = config.objective
        self.denoiser = context.denoiser.with_objective(self.objective)
        self.base = context.base_loss(self.objective)

    def steps(self, ids: Sequence[str] | None) -> Iterator[Progress | Attribution]:
        context = self.attributor.context
        began = time.perf_counter()
        found = yield from _result(self.attributor.unlearn(self.query, **self._config()), Unlearned)
        self.seconds["unlearn"] = time.perf_counter() - began
        limit = None if self.options.get("exhaustive") else self._limit()
        candidates = self._timed(
            "shortlist",
            lambda: choose(context, self.query, found.delta, ids, limit, self.objective),
        )
        floor = self._timed("noise floor", lambda: context.floor(self.objective))

        def answer(scores: Scores, **more: Any) -> Attribution:
            return self._answer(scores, found, candidates, floor, **more)

        scores = yield from self._scores(found, candidates.rows, self.base, answer)
        fresh = self.options.get("fresh_base")
        if fresh is None:
            fresh = _floor_share(scores, floor) > FLOOR_SHARE
        if fresh:
            scores = yield from self._rebased(scores)
        yield answer(scores, fresh_base=bool(fresh))

    def _limit(self) -> int | None:
        """Candidates to choose, no fewer than are to be shown; None for all."""
        limit = self.options.get("shortlist", defaults.SHORTLIST)
        return max(limit, self.k) if isinstance(limit, int) else limit

    def _config(self) -> dict[str, Any]:
        return {name: v for name, v in self.options.items() if name in CONFIGURABLE}

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        self.seconds[stage] = time.perf_counter() - began
        return result

    def _scores(
        self,
        found: Unlearned,
        rows: np.ndarray,
        base_loss: np.ndarray,
        partial: Callable[[Scores], Attribution] | None,
    ) -> Generator[Progress | Attribution, None, Scores]:
        context, index = self.attributor.context, self.attributor.context.index
        job = score_records(
            self.denoiser,
            index,
            base_loss,
            rows,
            found.delta,
            index.timesteps,
            index.seed,
            keep_maps=self.k,
            columns=self.options.get("columns"),
            texts=context.texts,
            partial=partial,
        )
        scores = yield from _result(job, Scores)
        self.seconds["score"] = scores.seconds
        return scores

    def _rebased(self, scores: Scores) -> Generator[Progress | Attribution, None, Scores]:
        """The same scores against base losses computed on this machine, at twice the cost."""
        context, index = self.attributor.context, self.attributor.context.index
        zero = np.zeros((1,), dtype=np.float32)
        job = score_records(
            self.denoiser,
            index,
            np.broadcast_to(zero, self.base.shape),
            scores.rows,
            {},
            index.timesteps,
            index.seed,
            columns=self.options.get("columns"),
            texts=context.texts,
        )
        fresh = yield from _result(job, Scores)
        self.seconds["base"] = fresh.seconds
        cells = scores.cells + self.base[scores.rows] - fresh.cells
        return Scores(scores.rows, cells, scores.maps, scores.evaluated + fresh.evaluated)

    def _answer(
        self,
        scores: Scores,
        found: Unlearned,
        candidates: Candidates,
        floor: float,
        fresh_base: bool = False,
    ) -> Attribution:
        index = self.attributor.context.index
        tau, error, flip = reduce_cells(scores.cells)
        return ranked(
            self.attributor.name,
            KIND,
            index,
            scores.rows,
            tau,
            standard_error=error,
            flip=flip,
            cells=scores.cells,
            maps=scores.maps,
            timesteps=index.timesteps,
            noise_floor=floor,
            seconds=dict(self.seconds),
            params=self._params(scores, found, candidates, floor, fresh_base),
            candidate_source="exhaustive" if candidates.shortlist is None else "shortlist",
            evaluated_cells=scores.evaluated,
        )

    def _params(
        self,
        scores: Scores,
        found: Unlearned,
        candidates: Candidates,
        floor: float,
        fresh_base: bool,
    ) -> dict[str, Any]:
        """What reproduces the run, and what it reached."""
        config = asdict(self.attributor._configured(self._config()))
        return {
            **config,
            "reached": found.reached,
            "alpha_over_n": found.alpha_over_n,
            "columns": self.options.get("columns"),
            "shortlist": candidates.shortlist,
            "sources": candidates.sources,
            "noise_floor_share": _floor_share(scores, floor),
            "fresh_base": fresh_base,
            "note": found.note,
            **region_params(self.query, "loss"),
        }


def _result(job: Iterator[Any], kind: type[Any]) -> Generator[Progress | Attribution, None, Any]:
    """Pass on a job's Progress; return the item of `kind` that it ends with."""
    for item in job:
        if isinstance(item, kind):
            return item
        yield item
    raise RuntimeError(f"the job ended without {kind.__name__}")


def _floor_share(scores: Scores, floor: float) -> float:
    """The noise floor of a score (a mean of cells) as a part of the scores' spread."""
    tau, _, _ = reduce_cells(scores.cells)
    counted = np.isfinite(scores.cells).sum(axis=(1, 3)).max(initial=1)
    spread = float(np.nanstd(tau)) if np.isfinite(tau).any() else 0.0
    return floor / counted**0.5 / spread if spread > 0 else 0.0


def _key(query: Query, config: UnlearnConfig) -> str:
    picture = hashlib.sha256(query.image.convert("RGB").tobytes()).hexdigest()
    part = regions.key(query)
    return f"{picture} {query.image.size} {query.prompt!r} {part!r} {config}"
