"""The command line: which training images made this picture?

python -m attribution --index assets/openclipart --prompt "an ice cream cone" --seed 7 --out answer
python -m attribution --index assets/openclipart --prompt "an ice cream cone" --image mine.png
--method abu,clip --region 0,0,32,64 --out answer
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from tqdm import tqdm

from attribution import defaults, report, validate
from attribution.commands import Parser, one_line, quiet_libraries
from attribution.detection import words
from attribution.detection.protocol import THRESHOLD, Found
from attribution.images import read_image
from attribution.types import Attribution, Progress, Query, Region, UserError

if TYPE_CHECKING:  # loading torch takes seconds that bad input need not wait for
    from attribution.engine import Engine

T = TypeVar("T")


def main(argv: list[str] | None = None) -> int:
    """0 when the answer is written, 2 for bad input with one line on stderr, 130 interrupted."""
    try:
        _quiet()
        _run(_parser().parse_args(argv))
    except UserError as error:
        print("attribution:", one_line(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("attribution: stopped, nothing written", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("python -m attribution", description="Which training images made this picture?")
    add = parser.add_argument
    add("--index", required=True, metavar="DIR", help="the index: model, records, base losses")
    add("--prompt", required=True, metavar="TEXT", help="what the picture was made from")
    picture = parser.add_mutually_exclusive_group(required=True)
    picture.add_argument("--seed", metavar="N", help="generate the picture from this seed")
    picture.add_argument("--image", metavar="FILE", help="attribute this picture instead")
    add("--region", action="append", metavar="x0,y0,x1,y1", help="a box in pixels; repeatable")
    add(
        "--called",
        metavar="TEXT",
        help="what the region shows, as in 'a stop sign': asked about in the place of the prompt",
    )
    add("--mask", metavar="FILE", help="an image of the picture's proportions, white = region")
    add(
        "--detect",
        metavar="TEXT",
        help="what to look for, as in 'stop sign': its boxes, the 16 best, are regions",
    )
    add("--detector", metavar="NAME", help="default: the first that can be used")
    least = f"least score of a detected box, default {THRESHOLD}"
    add("--threshold", type=float, metavar="T", help=least)
    add("--method", default=defaults.METHOD, metavar="NAME[,NAME...]")
    add("--top-k", metavar="K", help=f"default {defaults.TOP_K}, or all records if there are fewer")
    add("--exhaustive", action="store_true", help="score every training record, no shortlist")
    add("--scores", action="store_true", help="also write scores_<method>.npy, float32 [N]")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--out", required=True, metavar="DIR", help="a new folder for result.json and the images")
    return parser


def _run(args: argparse.Namespace) -> None:
    """Cheap checks first: nothing is loaded for input that cannot work."""
    out = report.check_new_folder(args.out)
    prompt = validate.prompt(args.prompt)
    named = bool(args.region or args.mask or args.detect)
    called = validate.called(args.called, named)
    detecting = _detecting(args)
    if args.seed is not None:
        validate.seed(args.seed)
    picture = None if args.image is None else read_image(args.image)
    if not Path(args.index).is_dir():
        raise UserError(f"no index at {args.index}: make one with python -m precompute index")

    from attribution.engine import Engine

    engine = Engine(args.index, args.device)
    top_k = engine.top_k(args.top_k)
    methods = validate.methods(args.method, {entry["name"]: entry for entry in engine.methods()})
    size = picture.size if picture else (engine.resolution, engine.resolution)
    regions = _regions(args, size)
    if args.detect is not None:
        words.phrases(args.detect)
        validate.threshold(detecting.get("threshold", THRESHOLD))
        engine.detector(detecting.get("detector", ""))
    if picture is not None:
        query = engine.upload(picture, prompt)
    else:
        query = _last(engine.generate(prompt, validate.seed(args.seed)), Query)[0]
    if args.detect is not None:
        free = validate.MAX_REGIONS - len(regions)
        found = (*regions, *_detected(engine, query, args.detect, detecting)[:free])
        regions = validate.regions(found, size)
    query = replace(query, regions=regions, called=called)
    answers: list[Attribution] = []
    try:
        _last(engine.attribute(query, methods, top_k, args.exhaustive), Attribution, answers)
    except Exception:
        if answers:  # one method of several failed: the others' answers are kept
            _write(engine, out, query, answers, top_k, args.scores)
        raise
    _write(engine, out, query, answers, top_k, args.scores)


def _regions(args: argparse.Namespace, size: tuple[int, int]) -> tuple[Region, ...]:
    """The boxes and the mask, for a picture of `size` (width, height); their union counts."""
    boxes = [text.split(",") for text in args.region or ()]
    masks = () if args.mask is None else (validate.mask(args.mask, size),)
    return validate.regions((*boxes, *masks), size)


def _detecting(args: argparse.Namespace) -> dict[str, Any]:
    """The options that say how to detect, as far as they are given; refused with nothing to
    detect."""
    options = {name: getattr(args, name) for name in ("detector", "threshold")}
    given = {name: value for name, value in options.items() if value is not None}
    if given and args.detect is None:
        raise UserError(f"there is nothing to detect: --{next(iter(given))} goes with --detect")
    return given


def _detected(engine: Engine, query: Query, wanted: str, how: dict[str, Any]) -> list[Region]:
    """A region for each box found, the best first; UserError where nothing was."""
    boxes = [one.box for one in _last(engine.detect(query, wanted, **how), Found)[0].detections]
    if not boxes:
        raise UserError(f"no {wanted!r} found in the picture: try a lower --threshold")
    return [Region(box) for box in boxes]


def _write(
    engine: Engine, out: Path, query: Query, answers: list[Attribution], top_k: int, scores: bool
) -> None:
    result = engine.result(query, answers, top_k)
    arrays: dict[str, np.ndarray] = {}
    if scores:
        arrays = {a.method: report.full_scores(a, engine.n_records) for a in answers}
    with report.new_folder(out) as folder:
        report.write_folder(folder, result, query, engine.records, arrays)
    print(out / report.RESULT)


def _last(steps: Iterator[Progress | T], kind: type[T], into: list[T] | None = None) -> list[T]:
    """The items of `kind` of a job, joined to `into`; its Progress as a bar where somebody
    watches.
    """
    found: list[T] = [] if into is None else into
    bars = _Bars() if sys.stderr.isatty() else None
    for item in steps:
        if isinstance(item, kind):
            found.append(item)
        elif bars is not None and isinstance(item, Progress):
            bars.show(item)
    if bars is not None:
        bars.close()
    return found


class _Bars:
    """One bar on stderr for the stage that runs."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None
        self.stage = ""

    def show(self, progress: Progress) -> None:
        if self.bar is None or self.stage != progress.stage:
            self.close()
            self.stage = progress.stage
            self.bar = tqdm(total=progress.total, desc=self.stage, file=sys.stderr, leave=False)
        self.bar.total = progress.total
        self.bar.update(progress.done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _quiet() -> None:
    quiet_libraries()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore")
    logging.captureWarnings(True)
    logging.getLogger().setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
