"""Pictures of two objects, each found again: prompts of collages, drawn, and kept where a separate
classifier names both objects on the two halves.

The classifier (evaluation/recogniser.py) is trained on the training drawings of the categories and
on the parts of training collages, whose boxes are known; it judges the drawn parts of held-out
collages, and then the halves of generated pictures, all cut out and laid on white alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from attribution.integrity import canonical_hash
from attribution.types import UserError
from evaluation import generated, recogniser
from evaluation.data import HELD_OUT, Records, data_hash, records_files
from evaluation.generated import Sampling, seed_of
from evaluation.recogniser import Recogniser, Training
from evaluation.world import World

LEAST_MEMBERS = 48
# Pictures of one pair of categories, so that the common pairs of the collages do not fill the set.
PER_PAIR = 4
SEEDS = 4
SEED = 41
WEIGHTS = "two-objects.safetensors"
# Of 255: what differs from the ground by more is drawn; less of a half than this share is nothing;
# where more of the line between the halves is drawn on, they are no two objects.
INK, LEAST_INK, MOST_SEAM = 40, 0.03, 0.15

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Case:
    """A picture with both objects. boxes: (x0, y0, x1, y1) in pixels, of `categories` in turn.
    seed: None for a picture that was not generated.
    """

    prompt: str
    seed: int | None
    image: Image.Image
    categories: tuple[str, str]
    boxes: tuple[Box, Box]

    @property
    def key(self) -> str:
        """A name for lines, the same in every run."""
        return f"{seed_of(self.prompt):08x}-{self.seed or 0:08x}"


@dataclass(frozen=True)
class Wanted:
    """A prompt of two objects, a collage's caption, and the categories of its parts."""

    prompt: str
    categories: tuple[str, str]


def categories(records: Records, least: int = LEAST_MEMBERS) -> tuple[str, ...]:
    """Categories of collage parts that at least `least` training drawings have; UserError for
    fewer than two.
    """
    counts = Counter(records.categories[row] for row in records.rows("train"))
    of = category_of(records)
    parts = {of[part] for ids in records.parts for part in ids if part in of}
    found = tuple(sorted(name for name in parts if counts[name] >= least))
    if len(found) < 2:
        raise UserError(f"fewer than two categories of collage parts have {least} drawings")
    return found


def category_of(records: Records) -> dict[str, str]:
    """Record id → category."""
    return dict(zip(records.ids, records.categories, strict=True))


def contains(records: Records, category: str) -> np.ndarray:
    """Which records show a category: its drawings, and collages with one as a part; bool [n]."""
    of = category_of(records)
    shown = (
        {own, *(of.get(part) for part in parts)}
        for own, parts in zip(records.categories, records.parts, strict=True)
    )
    return np.array([category in names for names in shown])


def prompts(records: Records, among: Sequence[str]) -> list[Wanted]:
    """Captions of collages of two different categories `among`, each once, in a seeded order."""
    of = category_of(records)
    found: dict[str, Wanted] = {}
    for row in np.random.default_rng(SEED).permutation(len(records)):
        names = tuple(of.get(part, "") for part in records.parts[row])
        if len(names) == 2 and names[0] != names[1] and set(names) <= set(among):
            prompt = records.captions[row]
            found.setdefault(prompt, Wanted(prompt, (names[0], names[1])))
    return list(found.values())


# ------------------------------------------------------------------------------ cutting objects out


def ink(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the ground's colour uint8 [3], what is drawn on it bool [H, W]) of an image [H, W, 3]."""
    frame = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    ground = np.median(frame, axis=0).astype(np.uint8)
    return ground, np.abs(image.astype(np.int16) - ground).max(axis=2) > INK


def content(drawn: np.ndarray, within: Box) -> Box | None:
    """The box of what is drawn inside `within`, single stray pixels left out; None for too little.

    drawn: bool [H, W].
    """
    x0, y0, x1, y1 = within
    part = drawn[y0:y1, x0:x1]
    columns, rows = np.flatnonzero(part.sum(0) > 1), np.flatnonzero(part.sum(1) > 1)
    if part.mean() < LEAST_INK or not len(columns) or not len(rows):
        return None
    return (
        x0 + int(columns[0]),
        y0 + int(rows[0]),
        x0 + int(columns[-1]) + 1,
        y0 + int(rows[-1]) + 1,
    )


def cut_out(image: np.ndarray, box: Box, ground: np.ndarray) -> np.ndarray:
    """The box on white, square and as large as the image, uint8 [H, W, 3]."""
    x0, y0, x1, y1 = box
    lift = 255 - ground.astype(np.int16)
    part = Image.fromarray((image[y0:y1, x0:x1] + lift).clip(0, 255).astype(np.uint8))
    side = max(part.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return np.asarray(square.resize(image.shape[1::-1], Image.Resampling.BICUBIC))


def halves(image: np.ndarray) -> Iterator[tuple[Box, Box]]:
    """The two boxes of what is drawn, left and right, and above and below: where both are there and
    the line between them is nearly free, the freer line first.

    image: uint8 [H, W, 3].
    """
    (height, width), (_, drawn) = image.shape[:2], ink(image)
    x, y = width // 2, height // 2
    splits = [
        (drawn[:, x - 1 : x + 1].mean(), (0, 0, x, height), (x, 0, width, height)),
        (drawn[y - 1 : y + 1].mean(), (0, 0, width, y), (0, y, width, height)),
    ]
    for seam, first, second in sorted(splits, key=lambda split: split[0]):
        found = content(drawn, first), content(drawn, second)
        if seam <= MOST_SEAM and found[0] is not None and found[1] is not None:
            yield found[0], found[1]


# ----------------------------------------------------------------------------------- the classifier


def parts_of(root: Path) -> dict[str, list[tuple[str, Box]]]:
    """Collage id → (part id, its box in pixels of the training image)."""
    found: dict[str, list[tuple[str, Box]]] = {}
    for path in records_files(root):
        for row in pq.read_table(path, columns=["id", "parts"]).to_pylist():
            for part in row["parts"] or ():
                if part.get("box"):
                    x0, y0, x1, y1 = (round(value) for value in part["box"])
                    found.setdefault(row["id"], []).append((part["id"], (x0, y0, x1, y1)))
    return found


def examples(world: World, among: Sequence[str], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Cut-outs uint8 [n, px, px, 3] of a split's drawings and collage parts, and their class
    numbers int64 [n].
    """
    records, of = world.records, category_of(world.records)
    parts, images, labels = parts_of(world.root), [], []
    for row in records.rows(split):
        image = records.images[row]
        ground, drawn = ink(image)
        whole = content(drawn, (0, 0, image.shape[1], image.shape[0]))
        own = [] if whole is None else [(records.ids[row], whole)]
        for name, box in parts.get(records.ids[row], own):
            if of.get(name) in among:
                images.append(cut_out(image, box, ground))
                labels.append(among.index(of[name]))
    if not images:
        return np.zeros((0, *records.images.shape[1:]), np.uint8), np.zeros(0, np.int64)
    return np.stack(images), np.array(labels)


def classifier(world: World, among: Sequence[str], training: Training, cache: Path) -> Recogniser:
    """The classifier of these categories: from the cache, or trained now."""
    data = canonical_hash([data_hash(world.records), list(among)])
    path = cache / WEIGHTS
    if (model := recogniser.load(path, data, training)) is not None:
        return model
    images, labels = examples(world, among, "train")
    with tqdm(total=training.steps, desc="training", disable=None) as bar:
        model = recogniser.train(images, labels, training, lambda *_: bar.update())
    recogniser.save(model, path, data, training)
    return model


def accuracy(world: World, among: Sequence[str], model: Recogniser) -> tuple[int, int]:
    """(named right, of how many) drawings and parts of collages that nothing was trained on."""
    images, labels = examples(world, among, HELD_OUT)
    return int((recogniser.predict(model, images) == labels).sum()), len(labels)


def locate(
    model: Recogniser, among: Sequence[str], image: np.ndarray, wanted: tuple[str, str]
) -> tuple[Box, Box] | None:
    """The boxes of both wanted objects, first and second, where each half is named as one of them;
    None where not.
    """
    ground, _ = ink(image)
    for boxes in halves(image):
        cuts = np.stack([cut_out(image, box, ground) for box in boxes])
        named = tuple(among[number] for number in recogniser.predict(model, cuts))
        if named == wanted:
            return boxes
        if named == wanted[::-1]:
            return boxes[::-1]
    return None


# ------------------------------------------------------------------------------------- the pictures


def collage_cases(world: World, among: Sequence[str], count: int) -> list[Case]:
    """The first `count` held-out collages of two different categories `among`, with their parts'
    own boxes: pictures of the data that the model never saw.
    """
    records, of, parts = world.records, category_of(world.records), parts_of(world.root)
    found = []
    for row in records.rows(HELD_OUT):
        pair = parts.get(records.ids[row], [])
        names = tuple(of.get(name, "") for name, _ in pair)
        if len(pair) == 2 and names[0] != names[1] and set(names) <= set(among):
            (picture,) = records.pictures([row])
            boxes = pair[0][1], pair[1][1]
            found.append(Case(records.captions[row], None, picture, (names[0], names[1]), boxes))
    return found[:count]


def generated_cases(
    world: World,
    model: Recogniser,
    among: Sequence[str],
    count: int,
    sampling: Sampling,
    cache: Path,
) -> list[Case]:
    """The first `count` prompts whose picture shows both objects, at most PER_PAIR of a pair of
    categories; fewer where SEEDS pictures of every prompt give no more.
    """
    found: dict[str, Case] = {}
    pairs: Counter[frozenset[str]] = Counter()
    listed = prompts(world.records, among)
    for attempt, start in product(range(SEEDS), range(0, len(listed), sampling.batch_size)):
        batch = [
            wanted
            for wanted in listed[start : start + sampling.batch_size]
            if wanted.prompt not in found and pairs[frozenset(wanted.categories)] < PER_PAIR
        ]
        if len(found) >= count or not batch:
            continue
        asked = [(wanted.prompt, seed_of(f"{attempt}|{wanted.prompt}")) for wanted in batch]
        images = generated.draw(world, asked, sampling, cache)
        for wanted, (prompt, seed), image in zip(batch, asked, images, strict=True):
            boxes = locate(model, among, image, wanted.categories)
            pair = frozenset(wanted.categories)
            if boxes is not None and len(found) < count and pairs[pair] < PER_PAIR:
                pairs[pair] += 1
                shown = Image.fromarray(image)
                found[prompt] = Case(prompt, seed, shown, wanted.categories, boxes)
    return list(found.values())
