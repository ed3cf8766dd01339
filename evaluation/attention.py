"""Where the model's own attention points: share of a word's heat inside the box of what it names,
on collages, whose boxes are known, against the box's share of the picture.

python -m evaluation attention
python -m evaluation attention --report

The collages are shown as uploads: the model looks at their noised latents with their own captions.
Training collages: what it was to learn; held-out ones: what it makes of pictures it never saw.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution.arguments import count
from attribution.detection.attention import WordMaps, hottest, word_maps
from attribution.detection.boxes import iou
from attribution.detection.protocol import Box
from attribution.types import Query, UserError
from evaluation.detector import SETS, Case, cases
from evaluation.results import Figure, Summary
from evaluation.statistics import mean_error
from evaluation.world import world_of

MOST = 100
THRESHOLD = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `attention`."""
    parser.add_argument("--most", type=count(), default=MOST, help="collages of each set")


def run(args: argparse.Namespace) -> None:
    """One unit for each collage: figures of both its phrases."""
    world = world_of(args)
    results = world.results(args, "attention", {"threshold": THRESHOLD}, of="model")
    table = cases(world.records, args.index, args.most)
    work = [(kind, case) for kind in SETS[:2] for case in table[kind]]
    for kind, case in tqdm(work, desc="attention", disable=None):
        if f"{kind}/{case.id}" in results.units:
            continue
        row = world.records.ids.index(case.id)
        query = Query(world.records.captions[row], case.image)
        *_, maps = word_maps(world.denoiser, query)
        results.add(f"{kind}/{case.id}", set=kind, phrases=measured(maps, case))


def measured(maps: WordMaps, case: Case) -> list[dict[str, Any]]:
    """For each phrase that the prompt says: mass, area, peak and iou of `figures_of`."""
    found = []
    for phrase, box in zip(case.phrases, case.boxes, strict=True):
        try:
            heat = maps.heat(maps.places(phrase))
        except UserError:
            continue  # beyond the text encoder's length
        found.append({"phrase": phrase, **figures_of(heat, phrase, box)})
    return found


def figures_of(heat: np.ndarray, phrase: str, box: Box) -> dict[str, Any]:
    """mass: share of the heat [h, w] inside the box (whole pixels); area: share of pixels; peak:
    whether the greatest is inside; iou: of the box a click would select.
    """
    x0, y0, x1, y1 = (round(v) for v in box)
    inside = np.zeros(heat.shape, dtype=bool)
    inside[y0:y1, x0:x1] = True
    total = float(heat.sum())
    clicked = hottest(heat, phrase, THRESHOLD)
    return {
        "mass": round(float(heat[inside].sum()) / total, 5) if total else 0.0,
        "area": round(float(inside.mean()), 5),
        "peak": bool(inside.flat[int(heat.argmax())]) if total else False,
        "iou": round(iou(clicked.box, box), 5) if clicked else 0.0,
    }


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Mean share of heat in the box against its area, and where the peak lies, by set."""
    figures = []
    rows = [("set", "phrases", "heat in box", "area of box", "ratio", "peak in box", "mean IoU")]
    for kind in SETS[:2]:
        table = [phrase for unit in units if unit["set"] == kind for phrase in unit["phrases"]]
        if not table:
            continue
        mass, error = mean_error([one["mass"] for one in table])
        area = float(np.mean([one["area"] for one in table]))
        peak = float(np.mean([one["peak"] for one in table]))
        overlap = float(np.mean([one["iou"] for one in table]))
        value = f"{mass:.3f} ± {error:.3f} on {area:.3f} of the area"
        figures.append(Figure(f"heat inside the box, {kind}", value, "> area", mass > area))
        cells = (f"{mass:.3f}", f"{area:.3f}", f"{mass / area:.2f}", f"{peak:.1%}")
        rows.append((kind, str(len(table)), *cells, f"{overlap:.3f}"))
    note = (
        "Heat is a phrase's attention above its median; the box that a click selects surrounds the "
        f"part around the peak where heat reaches {THRESHOLD:g} of it. Collages shown as uploads."
    )
    return Summary(tuple(figures), tuple(rows), (note,))
