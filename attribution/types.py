"""The values that travel through Whence: small frozen dataclasses, no behaviour, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image


class UserError(ValueError):
    """Bad input from a user: one clear line, shown by the page as is and by the CLI with exit code
    2.
    """


class Cancelled(Exception):
    """The caller asked to stop; every weight is back as it was."""


@dataclass(frozen=True)
class Region:
    """A part of the query image, in its pixels, origin at the top left.

    box: x0 < x1 and y0 < y1, inside the image. mask: None for the box itself; for a free form 8-bit
    grey ("L") of the image's size, 255 inside, of which `box` is the bounding box.
    """

    box: tuple[float, float, float, float]
    mask: Image.Image | None = None


@dataclass(frozen=True)
class Query:
    """One picture to attribute: the decoded 8-bit RGB image and the prompt that conditions it.

    `seed` is None for an upload; steps, guidance and scheduler describe how a generated image was
    made. called: what the regions show, in words of their own, which condition the query in the
    place of the prompt; "" for the prompt.
    """

    prompt: str
    image: Image.Image
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    scheduler: str | None = None
    regions: tuple[Region, ...] = ()
    called: str = ""


@dataclass(frozen=True)
class Attribution:
    """Scores of one method for one query. Higher is more influential, for every method.

    ids: the scored records' ids, best first, length M (all scored candidates, not only the top k).
    scores: float32 [M], best first. standard_error: float32 [M] over cells, NaN where undefined.
    cells: float32 [M, captions, flips, T] loss change per cell, NaN where not evaluated; None for
    methods without cells. flip: int8 [M], 1 where the mirrored training image gave the maximum.
    timesteps: the T timesteps of `cells`. noise_floor: standard deviation of (fresh - cached) base
    losses per cell. rows: int64 [M], the records' row numbers in the index.
    heatmaps: record id -> float32 [h, w] change of squared error per latent cell, for the top
    records only. seconds: stage name -> seconds. params: what reproduces the run. candidates: how
    many records were scored; candidate_source: how they were chosen, `"exhaustive"` or
    `"shortlist"`, and `"racing"` where only the best of them were scored at every timestep: the
    scores of the others are estimates below those. control: records that were scored at every
    timestep beside the candidates, and have no part in their ranking.
    """

    method: str
    kind: str
    ids: tuple[str, ...]
    rows: np.ndarray
    scores: np.ndarray
    standard_error: np.ndarray
    flip: np.ndarray
    cells: np.ndarray | None = None
    timesteps: tuple[int, ...] = ()
    noise_floor: float | None = None
    heatmaps: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    candidates: int = 0
    candidate_source: str = "exhaustive"
    evaluated_cells: int = 0
    control: Attribution | None = None


@dataclass(frozen=True)
class Progress:
    """One step of a running job: `done` of `total` in `stage`, seconds so far in it, seconds left
    if known.

    `partial` is the best answer so far, sorted, when there is one.
    """

    stage: str
    done: int
    total: int
    seconds: float = 0.0
    remaining: float | None = None
    partial: Attribution | None = None


@dataclass(frozen=True)
class Record:
    """One training record as shown: `row` is its number in the index, `image` the display image
    (RGB).

    `parts` are a collage's pieces as (record id, (x0, y0, x1, y1) in display pixels); empty for a
    drawing.
    """

    id: str
    row: int
    image: Image.Image
    captions: tuple[str, ...]
    artists: tuple[str, ...]
    title: str
    category: str
    split: str
    source: str
    licence: str
    parts: tuple[tuple[str, tuple[float, float, float, float]], ...] = ()


@dataclass(frozen=True)
class OtherPrompt:
    """An unrelated prompt before and after forgetting; `change` is the mean squared error on [0,
    1].
    """

    prompt: str
    seed: int
    before: Image.Image
    after: Image.Image
    change: float


@dataclass(frozen=True)
class Forgetting:
    """The same prompt and seed at growing strengths of unlearning, beside unrelated prompts.

    strengths: the relative loss increases asked for, 0 first (the model as it is). reached: those
    measured on the line-search draws. scales: multiples of the query's delta that gave them.
    images: one per strength. changes: mean squared error on [0, 1] of each image against the first.
    others: unrelated prompts at strength 0 and at the greatest. note: one sentence for the reader
    where something needs saying (an upload has no seed), or "".
    """

    prompt: str
    seed: int
    strengths: tuple[float, ...]
    reached: tuple[float, ...]
    scales: tuple[float, ...]
    images: tuple[Image.Image, ...]
    changes: tuple[float, ...]
    others: tuple[OtherPrompt, ...] = ()
    note: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtistShare:
    """One artist's part of the influence above the noise floor: `share` in 0..1, `records` with
    any, best first.
    """

    artist: str
    share: float
    records: tuple[str, ...]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho of two methods' scores over the `common` records that both scored; NaN where
    it says nothing.
    """

    rho: float
    common: int


@dataclass(frozen=True)
class Example:
    """A saved query with its answers, ready to show; `slug` names its folder.

    The first answer is whole, further ones may hold their best records only; correlations: pairs of
    method names, computed while all were whole.
    """

    slug: str
    query: Query
    attributions: tuple[Attribution, ...]
    correlations: Mapping[tuple[str, str], Correlation] = field(default_factory=dict)
