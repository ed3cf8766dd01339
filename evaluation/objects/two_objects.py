"""Pictures of two objects, each found again: prompts of collages, drawn, and kept where a separate
classifier names both objects on the two halves.

The classifier (evaluation/recogniser.py) is trained on the training drawings of the categories and
on the parts of training collages, whose boxes are known; it judges the drawn parts of held-out
collages, and then the halves of generated pictures, all cut out and laid on white alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from attribution.detection.words import nouns
from attribution.integrity import canonical_hash
from attribution.types import Query, Region, UserError
from evaluation import generated, recogniser
from evaluation.data import HELD_OUT, Records, data_hash, records_files
from evaluation.generated import Sampling, seed_of
from evaluation.objects.cutting import Box, content, cut_out, halves, ink
from evaluation.recogniser import Recogniser, Training
from evaluation.world import World

LEAST_MEMBERS = 48
# Pictures of one pair of categories, so that the common pairs of the collages do not fill the set.
PER_PAIR = 4
SEEDS = 4
SEED = 41
WEIGHTS = "two-objects.safetensors"
# What is asked about each picture.
PARTS = ("a", "b", "whole")


@dataclass(frozen=True)
class Case:
    """A picture with both objects. boxes: (x0, y0, x1, y1) in pixels, of `categories` in turn, as
    are `parts`, the ids of the drawings that the prompt names, and `names`, what it calls them.
    seed: None for a picture that was not generated.
    """

    prompt: str
    seed: int | None
    image: Image.Image
    categories: tuple[str, str]
    boxes: tuple[Box, Box]
    parts: tuple[str, str]
    names: tuple[str, str]

    @property
    def key(self) -> str:
        """A name for lines, the same in every run."""
        return f"{seed_of(self.prompt):08x}-{self.seed or 0:08x}"

    def query(self, part: str) -> Query:
        """One of PARTS asked about: the first object's region, the second's, the whole picture."""
        regions = () if part == "whole" else (self._region(PARTS.index(part)),)
        return Query(self.prompt, self.image, seed=self.seed, regions=regions)

    def worded(self, which: int, whole: bool = False) -> Query:
        """The first or the second object's region in words of its own; `whole`: these words of the
        whole picture.
        """
        query = self.query("whole" if whole else PARTS[which])
        return replace(query, called=self.names[which])

    def _region(self, which: int) -> Region:
        """The object's box with a pixel around it, as one would draw it."""
        x0, y0, x1, y1 = self.boxes[which]
        width, height = self.image.size
        corners = max(x0 - 1, 0), max(y0 - 1, 0), min(x1 + 1, width), min(y1 + 1, height)
        return Region(tuple(map(float, corners)))


@dataclass(frozen=True)
class Wanted:
    """A prompt of two objects, a collage's caption, and the categories and ids of its parts."""

    prompt: str
    categories: tuple[str, str]
    parts: tuple[str, str]


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


def names_of(records: Records, parts: Sequence[str]) -> tuple[str, ...]:
    """What the captions of drawings call them: their first noun, as in a collage's caption."""
    captions = dict(zip(records.ids, records.captions, strict=True))
    return tuple((*nouns(captions[part]), captions[part])[0] for part in parts)


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
            first, second = records.parts[row]
            found.setdefault(prompt, Wanted(prompt, (names[0], names[1]), (first, second)))
    return list(found.values())


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
            ids, boxes = zip(*pair, strict=True)
            caption, called = records.captions[row], names_of(records, ids)
            found.append(Case(caption, None, picture, names, boxes, ids, called))
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
                called = names_of(world.records, wanted.parts)
                found[prompt] = Case(
                    prompt, seed, shown, wanted.categories, boxes, wanted.parts, called
                )
    return list(found.values())
