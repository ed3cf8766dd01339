"""What there is to do, in order: one task is one training or one answer, and the smallest thing a
killed run can lose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from attribution.integrity import canonical_hash
from attribution.types import UserError
from precompute.recipes.model.config import UnetConfig

# Methods whose results come first, at the middle K; the others follow, then the other Ks.
FIRST = ("abu", "abu-ekfac", "abu-shift", "dtrak", "dino", "trak", "clip")
THEN = (
    "abu-ekfac-full",
    "abu-kfac",
    "pixel",
    "clip-text",
    "dinov2",
    "journeytrak",
    "datainf",
    "clip-abc",
    "dino-abc",
)
# Table 2, Table 5, and the mean over image and flip.
ABLATIONS = (
    *("abu-sgd", "abu-sgd:steps=1", "abu-full", "abu-attn", "abu-crossattn"),
    *("abu:steps=1", "abu:ewc=true", "abu:flips=mean"),
    *("abu-eps2:relative_increase=1.0:steps=5", "abu-eps2"),  # AbU's steps; the small one it has
)
REMOVED = (5, 10, 35)
# Of the random curve, besides those: shares of the training set.
SHARES = (0.07, 0.14, 0.28, 0.42, 0.57, 0.71, 0.85)
RANDOM_SEED = 51
# Of the gallery: pictures, pictures whose losses are measured, queries that settings are tuned on
# and never reported, and the first of those that were asked about when the methods and their
# settings had been chosen.
GALLERY, MEASURED, TUNING, UNSEEN = 48, 24, 4, 16
# What a comparison is made on.
TUNED, REPORTED = slice(TUNING), slice(TUNING, None)
SEEN, CHECK = slice(TUNING, UNSEEN), slice(UNSEEN, None)


@dataclass(frozen=True)
class Entry:
    """One picture of the gallery: a held-out record's caption, drawn with the record's own seed."""

    id: str
    prompt: str
    seed: int
    category: str


@dataclass(frozen=True)
class BaseTask:
    """Draw the gallery with the model as it is, and measure its losses."""

    key: str = "base"


@dataclass(frozen=True)
class AnswerTask:
    """Rank the training records for a picture of the gallery; arm: as written. whole: keep every
    score, not the top ranks."""

    query: int
    arm: str
    key: str
    whole: bool = False


@dataclass(frozen=True)
class TrainingTask:
    """Train without some records, int rows of the index; seed: of weights, batches and noise.

    panels: draw the gallery with other noise and with other prompts too. keep: keep the weights.
    """

    removed: tuple[int, ...]
    seed: int
    key: str
    panels: bool = False
    keep: bool = False


Task = BaseTask | AnswerTask | TrainingTask


def training(
    removed: Iterable[int], recipe: UnetConfig, seed: int | None = None, **flags: bool
) -> TrainingTask:
    """The task of a removal: the same set in any order, by whatever method, is the same task."""
    rows = tuple(sorted({int(row) for row in removed}))
    chosen = recipe.seed if seed is None else seed
    identity = {"removed": rows, "recipe": asdict(replace(recipe, seed=chosen))}
    return TrainingTask(rows, chosen, canonical_hash(identity)[:16], **flags)


@dataclass
class Job:
    """A task and what it is for: (query's id, arm as written, K), "random" and "seed" ones too."""

    task: TrainingTask
    wanted: list[tuple[str, str, int]] = field(default_factory=list)


class WorkList:
    """Trainings in the order they are to be done; identical removals are one job."""

    def __init__(self, recipe: UnetConfig) -> None:
        self.recipe = recipe
        self.jobs: dict[str, Job] = {}

    def add(
        self,
        removed: Iterable[int],
        query: str,
        arm: str,
        k: int,
        seed: int | None = None,
        **flags: bool,
    ) -> None:
        """Want a removal for something; its place is that of its first mention."""
        task = training(removed, self.recipe, seed, **flags)
        job = self.jobs.setdefault(task.key, Job(task))
        wants = (task.panels or job.task.panels, task.keep or job.task.keep)
        job.task = replace(job.task, panels=wants[0], keep=wants[1])
        job.wanted.append((query, arm, k))

    def lines(self, done: Iterable[str]) -> list[dict]:
        """The list as it is kept on disk."""
        finished = set(done)
        return [
            {
                "key": key,
                "done": key in finished,
                "removed": len(job.task.removed),
                "seed": job.task.seed,
                "for": [list(wanted) for wanted in job.wanted],
            }
            for key, job in self.jobs.items()
        ]


def seeds(work: WorkList, n: int) -> None:
    """n trainings that differ in nothing but their seed; the first is the index's own model."""
    for number in range(n):
        seed = work.recipe.seed + number
        work.add((), "", "seed", number, seed, panels=True, keep=True)


def random_order(train_rows: np.ndarray, draw: int) -> list[int]:
    """The training records in the order that a draw removes them: its removals are nested."""
    order = np.random.default_rng([RANDOM_SEED, draw]).permutation(train_rows)
    return [int(row) for row in order]


def random_removals(work: WorkList, orders: Sequence[Sequence[int]], ks: Sequence[int]) -> None:
    """A random removal of each draw at each K; small Ks come first."""
    for k in sorted(ks):
        for order in orders:
            work.add(order[:k], "", "random", k)


def random_sizes(n_train: int, ks: Sequence[int]) -> list[int]:
    """Ks of the random curve."""
    shares = {round(share * n_train) for share in SHARES}
    return sorted({k for k in {*ks, *shares} if 0 < k < n_train})


def removals(
    work: WorkList,
    answers: Mapping[tuple[str, str], Sequence[int]],
    queries: Sequence[str],
    arms: Sequence[str],
    ks: Sequence[int],
) -> None:
    """The top K of every answer there is, query by query: each finished query is a whole paired
    comparison."""
    for k in ks:
        for query in queries:
            for arm in arms:
                if rows := answers.get((query, arm)):
                    if k > len(rows):
                        raise UserError(f"K = {k}: answers are kept to rank {len(rows)}")
                    work.add(rows[:k], query, arm, k)


def middle_first(ks: Sequence[int]) -> list[int]:
    """The middle K, then the others in their order."""
    ordered = sorted(set(ks))
    middle = ordered[len(ordered) // 2]
    return [middle, *(k for k in ordered if k != middle)]
