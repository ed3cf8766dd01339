"""SVG → a tightly cropped RGBA image → squares of 64 and 192 px."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

TRAIN_PX = 64
DISPLAY_PX = 192
MARGIN = 3 / 64  # of the side, on each edge
WHITE = (255, 255, 255)
TINT = (143, 179, 207)  # ground for drawings that are white on transparent
FONTS = Path("/usr/share/fonts/truetype/dejavu")
DPI = 90  # what Inkscape and Sodipodi meant by a point and a millimetre when these were drawn
_PROBE_PX = 256
_WORK_PX = 400  # longest side of the cropped drawing
_LARGEST_PX = 3000
_INVISIBLE = 0.03  # fraction of covered pixels that must differ from white


@dataclass(frozen=True)
class Art:
    """A drawing cropped to its ink: `image` RGBA, longest side about 400 px; `ground` RGB."""

    image: Image.Image
    ground: tuple[int, int, int]


def _raster(svg: str, width: int, fonts: Path) -> Image.Image:
    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        width=width,
        dpi=DPI,
        skip_system_fonts=True,
        font_dirs=[str(fonts)],
        sans_serif_family="DejaVu Sans",
        serif_family="DejaVu Serif",
    )
    return Image.open(io.BytesIO(png)).convert("RGBA")


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1) of the True pixels of `mask` [h, w]; None if there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def ink_box(image: Image.Image, trim_white: bool) -> tuple[int, int, int, int] | None:
    """Where an RGBA image has ink, in pixels; a white page that fills it counts as no ink
    when `trim_white`."""
    pixels = np.asarray(image).astype(np.int16)
    covered = pixels[..., 3] > 12
    box = _bounds(covered)
    if box is None or not trim_white or not covered[[0, 0, -1, -1], [0, -1, 0, -1]].all():
        return box
    return _bounds(covered & ((255 - pixels[..., :3]).max(-1) > 12))


def choose_ground(image: Image.Image) -> tuple[int, int, int]:
    """White, or a tint when the drawing would vanish on white."""
    pixels = np.asarray(image).astype(np.int16)
    covered = pixels[..., 3] > 128
    visible = covered & ((255 - pixels[..., :3]).max(-1) > 24)
    return TINT if visible.sum() < _INVISIBLE * max(1, covered.sum()) else WHITE


def thicken_hairlines(svg: str) -> str:
    """Strokes of 0.1 units become 1.2: thinner they vanish at 64 px (the geometric stars)."""
    return re.sub(r'stroke-width="0\.1"', 'stroke-width="1.2"', svg)


def load_art(path: Path, trim_white: bool = True, fonts: Path = FONTS) -> Art | None:
    """The drawing of one SVG file, cropped to its ink; None where nothing is drawn.

    `fonts` is the only folder searched for fonts, so that the machine's others change nothing.

    Raises:
        ValueError: resvg cannot read the file.
    """
    svg = thicken_hairlines(path.read_text("utf-8", "replace"))
    probe = _raster(svg, _PROBE_PX, fonts)
    box = ink_box(probe, trim_white)
    if box is None:
        return None
    longest = max(box[2] - box[0], box[3] - box[1])
    scale = min(_WORK_PX / longest, _LARGEST_PX / max(probe.size))
    image = _raster(svg, max(1, round(_PROBE_PX * scale)), fonts)
    box = ink_box(image, trim_white)
    if box is None:
        return None
    image = image.crop(box)
    return Art(image, choose_ground(image))


def fit(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """`size` (w, h) scaled so that its longer side is `longest`; no side below 1."""
    scale = longest / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def paste(canvas: Image.Image, art: Image.Image, box: tuple[int, int, int, int]) -> None:
    """Draws RGBA `art` into `box` (x0, y0, x1, y1 in pixels) of the RGB `canvas`."""
    scaled = art.convert("RGBa").resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BOX)
    scaled = scaled.convert("RGBA")
    canvas.paste(scaled.convert("RGB"), box[:2], scaled.getchannel("A"))


def square(art: Art, side: int) -> Image.Image:
    """The drawing centred on its ground: RGB, side × side pixels."""
    canvas = Image.new("RGB", (side, side), art.ground)
    width, height = fit(art.image.size, round(side * (1 - 2 * MARGIN)))
    x, y = (side - width) // 2, (side - height) // 2
    paste(canvas, art.image, (x, y, x + width, y + height))
    return canvas


def png_bytes(image: Image.Image) -> bytes:
    """PNG with fixed parameters."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def webp_bytes(image: Image.Image) -> bytes:
    """Lossy WebP with fixed parameters, about 4 kB for a 192 px drawing."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=78, method=6)
    return buffer.getvalue()
