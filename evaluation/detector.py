"""How well the embedded GroundingDINO finds what it is told to: AP50 on collages, whose boxes are
known.

python -m evaluation detector           # collages held out, as many seen, drawings held out
python -m evaluation detector --report

Every picture is shown with a prompt of the phrases of its caption. A detection is right when it
overlaps the box of its own phrase by half or more (IoU) and no better one did; all detections of
all pictures, ranked by score, give one precision-recall curve, whose area is AP50. "with three
others" adds names of three other drawings to each prompt: whatever is found for those is wrong.
"boxes alone" asks only where something is, whatever it is called. What is not there is asked for by
a name of another drawing: found by the page's thresholds, without and with the caption's own nouns,
which the page looks for along (attribution/detection/desk.py).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from attribution.arguments import count
from attribution.detection import words
from attribution.detection.boxes import iou
from attribution.detection.grounding_dino import GroundingDino
from attribution.detection.protocol import TEXT_THRESHOLD, THRESHOLD, Box
from attribution.detection.registry import ENCODER
from attribution.extras import Extras
from attribution.pipelines import choose_device
from attribution.types import UserError
from evaluation.data import HELD_OUT, Records, records_files
from evaluation.results import Figure, Summary
from evaluation.statistics import bootstrap, wilson
from evaluation.world import world_of
from precompute.recipes.detector.data import ink_box

TARGET = 0.5
LEAST = 0.01  # score of the detections that are kept: below, precision is gone
OTHERS = 3
IOU = 0.5
SETS = ("held-out collages", "training collages", "held-out drawings")
UNSEEN = "held-out collages, the unseen drawings alone"
PROMPTS = ("own phrases", "with three others", "each phrase alone")
ABSENT = ("what is not there", "what is not there, own phrases along")


@dataclass(frozen=True)
class Case:
    """A picture with the box and the phrase of each of its objects, and whether the detector never
    saw that drawing."""

    id: str
    image: Image.Image
    boxes: tuple[Box, ...]
    phrases: tuple[str, ...]
    unseen: tuple[bool, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `detector`."""
    parser.add_argument(
        "--most", type=count(), help="pictures of each set; default: all held-out ones"
    )
    parser.add_argument("--model", type=Path, metavar="DIR", help="default: the index's own")


def run(args: argparse.Namespace) -> None:
    """One unit for each picture and prompt: its detections, so that any figure can be made anew."""
    world = world_of(args)
    model, sha256 = _model_of(args)
    detector = GroundingDino(model, choose_device(world.device))
    results = world.results(args, "detector", {"model": sha256, "least": LEAST}, of="data")
    table = cases(world.records, args.index, args.most)
    names = sorted({p for c in table["training collages"] for p in c.phrases})
    work = [(kind, case) for kind in SETS for case in table[kind]]
    for kind, case in tqdm(work, desc="detector", disable=None):
        for prompt in PROMPTS:
            key = f"{kind}/{prompt}/{case.id}"
            if key not in results.units:
                asked = asked_for(case, names if prompt == PROMPTS[1] else ())
                at_once = [(name,) for name in asked] if prompt == PROMPTS[2] else [asked]
                results.add(key, set=kind, prompt=prompt, **_looked(detector, case, at_once))
        for prompt, key in ((prompt, f"{kind}/{prompt}/{case.id}") for prompt in ABSENT):
            if key not in results.units and (absent := absent_from(case, names)):
                asked = (absent, *(case.phrases if prompt == ABSENT[1] else ()))
                looked = _looked(detector, case, [asked], (THRESHOLD, TEXT_THRESHOLD))
                results.add(key, set=kind, prompt=prompt, absent=absent, **looked)


def _model_of(args: argparse.Namespace) -> tuple[Path, str]:
    """(folder, hash of its files); UserError where the index ships none."""
    if args.model is not None:
        from attribution.integrity import model_table, table_hash

        return args.model, table_hash(model_table(args.model))
    entry = Extras.read(args.index, "", 0).encoders.get(ENCODER, {})
    if "path" not in entry:
        raise UserError(
            f"{args.index} ships no detector: `python -m precompute train detector` makes one"
        )
    return args.index / entry["path"], str(entry["sha256"])


def asked_for(case: Case, others: Sequence[str]) -> tuple[str, ...]:
    """The case's phrases, and with `others` three of those that share no word with them."""
    own = {word for phrase in case.phrases for word in phrase.split()}
    apart = [name for name in others if not own & set(name.split())]
    extra = random.Random(case.id).sample(apart, min(OTHERS, len(apart))) if apart else []
    return tuple(dict.fromkeys((*case.phrases, *extra)))


def absent_from(case: Case, names: Sequence[str]) -> str:
    """A name of another drawing that shares no word with the case's; "" where all do."""
    return next(iter(asked_for(case, names)[len(case.phrases) :]), "")


def _looked(
    detector: GroundingDino,
    case: Case,
    at_once: Sequence[Sequence[str]],
    floors: tuple[float, float] = (LEAST, 0.0),
) -> dict[str, Any]:
    """What is found, asked for some phrases at once and then for the next ones. floors: least
    scores of a box and of its name.
    """
    found = [
        one
        for asked in at_once
        for one in detector.detect(case.image, words.as_prompt(asked), *floors)
    ]
    return {
        "asked": [list(asked) for asked in at_once],
        "unseen": list(case.unseen),
        "true": [[phrase, *box] for phrase, box in zip(case.phrases, case.boxes, strict=True)],
        "found": [
            [one.label, round(one.score, 5), *(round(v, 2) for v in one.box)] for one in found
        ],
    }


def cases(records: Records, root: Path, most: int | None) -> dict[str, list[Case]]:
    """The three sets; as many training collages as held-out ones, chosen by a fixed seed."""
    boxes = _part_boxes(root)
    rows = {name: row for row, name in enumerate(records.ids)}
    said = {name: words.nouns(records.captions[row])[:1] for name, row in rows.items()}
    new = {name: split == HELD_OUT for name, split in zip(records.ids, records.splits, strict=True)}

    def collage(row: int) -> Case | None:
        parts = records.parts[row]
        phrases = tuple(phrase for part in parts for phrase in said.get(part, ()))
        if len(phrases) != len(parts) or len(set(phrases)) != len(phrases):
            return None  # two of a name cannot be told apart by it
        image = Image.fromarray(records.images[row])
        unseen = tuple(new[part] for part in parts)
        return Case(records.ids[row], image, boxes[records.ids[row]], phrases, unseen)

    def single(row: int) -> Case | None:
        box, phrases = ink_box(records.images[row]), said[records.ids[row]]
        if box is None or not phrases:
            return None
        x0, y0, x1, y1 = (float(v) for v in box)
        image = Image.fromarray(records.images[row])
        return Case(records.ids[row], image, ((x0, y0, x1, y1),), phrases, (new[records.ids[row]],))

    held_out, train = records.rows(HELD_OUT), records.rows("train")
    found = {
        SETS[0]: [case for row in held_out if records.parts[row] and (case := collage(row))],
        SETS[1]: [case for row in train if records.parts[row] and (case := collage(row))],
        SETS[2]: [case for row in held_out if not records.parts[row] and (case := single(row))],
    }
    random.Random(0).shuffle(found[SETS[1]])
    found[SETS[1]] = found[SETS[1]][: len(found[SETS[0]])]
    return {kind: chosen[:most] for kind, chosen in found.items()}


def _part_boxes(root: Path) -> dict[str, tuple[Box, ...]]:
    """Boxes of every collage's parts, in pixels of the training image."""
    found = {}
    for path in records_files(root):
        for row in pq.read_table(path, columns=["id", "parts"]).to_pylist():
            found[row["id"]] = tuple(tuple(part["box"]) for part in row["parts"] or ())
    return found


Hits = list[tuple[float, bool]]


def average_precision(found: Sequence[tuple[Hits, int]]) -> float:
    """AP over pictures of (detections as score and right or wrong, number of objects): the area
    under precision (made non-increasing) against recall.
    """
    total = sum(objects for _, objects in found)
    ranked = sorted((hit for hits, _ in found for hit in hits), key=lambda one: -one[0])
    if not total or not ranked:
        return 0.0
    right = np.cumsum([hit for _, hit in ranked])
    precision = right / np.arange(1, len(right) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best * np.diff(right, prepend=0)).sum() / total)


def judged(unit: Mapping[str, Any], *, named: bool = True) -> tuple[Hits, int]:
    """((score, right) of each detection of a picture, number of its objects); a box is found once,
    by the surest detection that overlaps it by half. named: that has to carry its phrase, too.
    """
    free = list(unit["true"])
    out = []
    for label, score, *box in sorted(unit["found"], key=lambda one: -one[1]):
        fits = [t for t in free if not named or t[0] == label]
        best = max(fits, key=lambda t: iou(tuple(t[1:]), tuple(box)), default=None)
        hit = best is not None and iou(tuple(best[1:]), tuple(box)) >= IOU
        if hit:
            free.remove(best)
        out.append((float(score), bool(hit)))
    return out, len(unit["true"])


def of_unseen(unit: Mapping[str, Any]) -> dict[str, Any]:
    """A unit of the drawings that the detector never saw alone: their boxes, and what carries their
    phrases."""
    true = [one for one, unseen in zip(unit["true"], unit["unseen"], strict=True) if unseen]
    names = {phrase for phrase, *_ in true}
    return {**unit, "true": true, "found": [one for one in unit["found"] if one[0] in names]}


def pointed(unit: Mapping[str, Any]) -> tuple[int, int]:
    """(phrases whose best detection is right, phrases) of a picture: what one click gives."""
    right = 0
    for phrase, *box in unit["true"]:
        mine = [one for one in unit["found"] if one[0] == phrase]
        if mine:
            best = max(mine, key=lambda one: one[1])
            right += iou(tuple(box), tuple(best[2:])) >= IOU
    return right, len(unit["true"])


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """AP50 by set and prompt, with a 95 % interval over pictures, boxes alone, and best boxes."""
    figures, rows = [], [("set", "prompt", "pictures", "AP50", "boxes alone", "best box right")]
    for kind, prompt in product((SETS[0], UNSEEN, *SETS[1:]), PROMPTS):
        own = SETS[0] if kind == UNSEEN else kind
        chosen = [u for u in units if u["set"] == own and u["prompt"] == prompt]
        chosen = [of_unseen(unit) for unit in chosen] if kind == UNSEEN else chosen
        if not chosen:
            continue
        value, shown = _interval([judged(unit) for unit in chosen])
        if prompt == PROMPTS[0]:
            aim = kind in (SETS[0], UNSEEN)
            target, passed = (f">= {TARGET}", value >= TARGET) if aim else ("", None)
            figures.append(Figure(f"detector AP50, {kind}", shown, target, passed))
        alone = average_precision([judged(unit, named=False) for unit in chosen])
        right, total = np.sum([pointed(unit) for unit in chosen], axis=0)
        best = f"{right / total:.1%} of {total}"
        rows.append((kind, prompt, str(len(chosen)), shown, f"{alone:.3f}", best))
    figures += [figure for prompt in ABSENT for figure in _imagined(units, prompt)]
    note = (
        "The model that the index ships (encoders/detector), on the 64-pixel training images. Of a "
        "held-out collage at least one drawing, and its name where no other drawing has it, was "
        "never seen. Each phrase alone: asked for one at a time, as one who looks for one thing "
        "does; the other drawing is then often taken for it. Intervals: bootstrap over pictures."
    )
    return Summary(tuple(figures), tuple(rows), (note,))


def _imagined(units: Sequence[Mapping[str, Any]], prompt: str) -> list[Figure]:
    """In how many held-out pictures something is found that is not there."""
    asked = [u for u in units if u["prompt"] == prompt and u["set"] in (SETS[0], SETS[2])]
    if not asked:
        return []
    found = sum(any(label == u["absent"] for label, *_ in u["found"]) for u in asked)
    low, high = wilson(found, len(asked))
    value = f"{found / len(asked):.2f} ({low:.2f} to {high:.2f}) of {len(asked)} held-out pictures"
    return [Figure(f"detector finds {prompt}", value)]


def _interval(found: Sequence[tuple[Hits, int]]) -> tuple[float, str]:
    value = average_precision(found)
    pick = np.arange(len(found))
    low, high = bootstrap(lambda rows: average_precision([found[r] for r in rows]), pick, draws=500)
    return value, f"{value:.3f} ({low:.3f} to {high:.3f})"
