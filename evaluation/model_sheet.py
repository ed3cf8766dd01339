"""A contact sheet of 64 fixed prompts, eight to a row: seen captions, new combinations, artists'
styles, two objects.

python -m evaluation model-sheet        # evaluation/results/contact_sheet.png
"""

from __future__ import annotations

import argparse
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from attribution.arguments import count
from evaluation import generated
from evaluation.results import Figure, Summary
from evaluation.world import world_of

PROMPTS = Path(__file__).with_name("prompts.json")
SHEET = "contact_sheet.png"
COLUMNS = 8
PICTURE = 128  # px on the sheet
CAPTION = 40  # px below each picture
MARGIN = 8
FONT_SIZE = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `model-sheet`."""
    generated.add_arguments(parser)
    parser.add_argument("--limit", type=count(), help="only the first prompts")


def run(args: argparse.Namespace) -> None:
    """Draw what the cache lacks, write the sheet."""
    world = world_of(args)
    prompts = load_prompts()[: args.limit]
    sampling = generated.sampling_of(args, world)
    settings = {"steps": sampling.steps, "guidance": sampling.guidance, "prompts": len(prompts)}
    results = world.results(args, "model-sheet", settings, of="model")
    pairs = [(entry["prompt"], generated.seed_of(entry["prompt"])) for entry in prompts]
    images = generated.draw(world, pairs, sampling, args.cache)
    path = args.results / SHEET
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(images, [prompt for prompt, _ in pairs]).save(path, optimize=True)
    results.add(SHEET, sha256=sha256(path.read_bytes()).hexdigest(), pictures=len(images))


def load_prompts() -> list[dict[str, Any]]:
    """The fixed prompts as {kind, prompt, seen}; `seen` where the prompt is a training caption."""
    return json.loads(PROMPTS.read_text(encoding="utf-8"))


def contact_sheet(images: np.ndarray, captions: list[str]) -> Image.Image:
    """Images uint8 [n, px, px, 3] in rows of eight on white, each above its caption."""
    rows = -(-len(images) // COLUMNS)
    wide, high = PICTURE + MARGIN, PICTURE + CAPTION + MARGIN
    sheet = Image.new("RGB", (COLUMNS * wide + MARGIN, rows * high + MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    for n, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = MARGIN + n % COLUMNS * wide, MARGIN + n // COLUMNS * high
        picture = Image.fromarray(pixels).resize((PICTURE, PICTURE), Image.Resampling.NEAREST)
        sheet.paste(picture, (x, y))
        pen.rectangle((x, y, x + PICTURE - 1, y + PICTURE - 1), outline=(200, 200, 200))
        text = "\n".join(wrapped(caption, PICTURE, font))
        pen.multiline_text((x, y + PICTURE + 2), text, "black", font, spacing=1)
    return sheet


def wrapped(text: str, width: float, font: Any, most: int = 3) -> list[str]:
    """`text` in at most `most` lines no wider than `width` px, cut off with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1] + " …"]


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Where the sheet is."""
    settings = head["settings"]
    value = f"[{SHEET}]({SHEET}), {units[0]['pictures']} pictures" if units else "not drawn"
    note = (
        f"{settings['steps']} DDIM steps, guidance scale {settings['guidance']:g}; prompts in "
        "`evaluation/prompts.json`."
    )
    return Summary((Figure("contact sheet", value),), notes=(note,))
