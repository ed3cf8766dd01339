"""Attribution by unlearning: Δθ of the query, candidates, exact scores against cached losses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from attribution import defaults, regions
from attribution.methods.answers import refuse_unknown
from attribution.methods.candidates import check_limit
from attribution.methods.context import Context
from attribution.methods.rescoring import Rescoring, check_racing
from attribution.methods.tracking import Tracks
from attribution.racing import Waves
from attribution.types import Attribution, Progress, Query
from attribution.unlearning import UnlearnConfig, Unlearned, unlearn

CONFIGURABLE = (
    *("relative_increase", "steps", "preset", "alpha", "damping", "stride", "draws"),
    *("search_draws", "ewc", "seed"),
)
# Of one run, whatever the method: what is scored, and how.
RUN_OPTIONS = ("exhaustive", "shortlist", "racing", "also", "fresh_base", "columns")
OPTIONS = (*RUN_OPTIONS, *CONFIGURABLE)


def configured(config: Mapping[str, Any], options: Mapping[str, Any]) -> UnlearnConfig:
    """A method's own configuration with those options that are given; UserError for bad values."""
    chosen = {n: v for n, v in options.items() if n in CONFIGURABLE and v is not None}
    return changed(config, chosen)


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> UnlearnConfig:
    """A method's own configuration with `changes`; a preset takes one step, as the paper's, unless
    they say how many. UserError for bad values, TypeError for unknown names.
    """
    steps = {"steps": 1} if changes.get("preset") else {}
    return UnlearnConfig(**{**config, **steps, **changes})


def check_options(config: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """UserError for values that no run takes."""
    configured(config, options)
    check_limit(options.get("shortlist"))
    check_racing(options.get("racing"))


def _of(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in CONFIGURABLE}


def measured_recall(answer: Attribution, index_hash: str) -> defaults.Recall | None:
    """defaults.SHORTLIST_RECALL where it speaks of such an answer of such an index: the default
    method's about a whole picture, unlearned, chosen and raced as by default."""
    found, params = defaults.SHORTLIST_RECALL, answer.params
    waves = (params.get("racing") or {}).get("waves", ())
    usual = UnlearnConfig()
    as_default = (
        answer.method == defaults.METHOD
        and all(params.get(name) == getattr(usual, name) for name in CONFIGURABLE)
        and "region" not in params
        and params.get("shortlist") in (None, defaults.SHORTLIST)
        and [(len(w["timesteps"]), w["survivors"]) for w in waves] == list(defaults.RACING)
    )
    return found if found and found.index_hash == index_hash and as_default else None


class UnlearningAttributor:
    """One unlearning method of an index; keeps the last Δθ, for "see it forget" and reruns.

    tracks: what is compared before and after. racing: waves of a run that names none,
    by default defaults.RACING.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        *,
        tracks: Tracks = "loss",
        racing: Waves | None = None,
        **config: Any,
    ) -> None:
        self.context, self.name = context, name
        self.tracks, self.racing = tracks, defaults.RACING if racing is None else racing
        self.config = {"n_records": max(1, len(context.index.train_rows)), **config}
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

        ids: score exactly these training records. Options: those of UnlearnConfig, and

        - exhaustive: every cell of every training record, whatever the next two say;
        - shortlist: how many candidates, None for all;
        - racing: waves of (timesteps, survivors), by default the method's own; False: every cell of
          every candidate, as when `ids` or `columns` are given;
        - also: ids to score beside the candidates, at every timestep: the answer's `control`;
        - fresh_base: compute base losses here: True, False, or None for as the noise floor says;
        - columns: positions in the index's timesteps to score at.
        """
        refuse_unknown(self.name, options, dict.fromkeys(OPTIONS))
        config = self._configured(options)
        run = Rescoring(
            self.context, self.name, query, config, k, options, self.tracks, self.racing
        )
        yield from run.steps(self.unlearn(query, **_of(options)), ids)

    def _configured(self, options: Mapping[str, Any]) -> UnlearnConfig:
        return configured(self.config, options)

    def _encoded(self, query: Query) -> tuple[Tensor, Tensor]:
        denoiser = self.context.denoiser
        return denoiser.encode_images([query.image]), denoiser.encode_text([regions.text(query)])


def _key(query: Query, config: UnlearnConfig) -> str:
    picture = hashlib.sha256(query.image.convert("RGB").tobytes()).hexdigest()
    part = regions.key(query)
    return f"{picture} {query.image.size} {query.prompt!r} {part!r} {config}"
