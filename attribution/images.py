"""EDGE: reads any image a user hands in, or says in one line why it cannot."""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from attribution.types import UserError

ImageSource = str | Path | bytes | BinaryIO | Image.Image

MAX_PIXELS = 50_000_000
MAX_SIDE = 20_000
MAX_BYTES = 100_000_000
# A closed list: PIL also knows formats that start other programs (EPS).
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")


def read_image(
    source: ImageSource, *, max_pixels: int = MAX_PIXELS, paper: str = "white"
) -> Image.Image:
    """Read a path, bytes, binary file or PIL image as a new 8-bit RGB image.

    EXIF rotation is applied, transparency laid on `paper`, CMYK and 16-bit converted, the first
    frame of an animation taken, metadata dropped. Raises UserError with one line for a missing,
    empty, damaged or too large image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = source if isinstance(source, Image.Image) else _open(source)
        _check_size(image, max_pixels)
        return _to_rgb(_decoded(image), paper)


def _open(source: str | Path | bytes | BinaryIO) -> Image.Image:
    """Read the header only; no pixel is decoded yet."""
    data = _read_bytes(source)
    if not data:
        raise UserError("the image is empty (0 bytes)")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise UserError("the image is too large to read safely") from None
    except Exception:  # on damaged headers decoders raise nearly anything
        raise UserError("not an image that can be read (PNG, JPEG, WebP and GIF work)") from None


def _read_bytes(source: str | Path | bytes | BinaryIO) -> bytes:
    if isinstance(source, bytes):
        return source
    if not isinstance(source, str | Path):
        return source.read(MAX_BYTES)
    try:
        return _read_file(Path(source))
    except FileNotFoundError:
        raise UserError(f"no such image: {source}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {source}: {reason}") from None


def _read_file(path: Path) -> bytes:
    """A device or a pipe would never end, so only plain files of a sane size are read."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES / 1e6:.0f} MB")
    return path.read_bytes()


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UserError("the image has no pixels")
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        limit = f"{max_pixels / 1e6:.0f} megapixels, {MAX_SIDE:,} px a side"
        raise UserError(f"the image is {width:,} x {height:,} px; the limit is {limit}")


def _decoded(image: Image.Image) -> Image.Image:
    """Decode the first frame and turn it upright."""
    try:
        if getattr(image, "n_frames", 1) > 1:
            image.seek(0)
        image.load()
    except Image.DecompressionBombError:
        raise UserError("the image is too large to read safely") from None
    except Exception:  # as above, for damaged pixels
        raise UserError("the image is damaged or cut short") from None
    return _upright(image)


def _upright(image: Image.Image) -> Image.Image:
    """A broken EXIF block costs the rotation, not the picture."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image


def _to_rgb(image: Image.Image, paper: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _scaled_grey(image)
    elif image.mode == "La" or image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, paper), rgba)
    rgb = image.convert("RGB")
    clean = Image.new("RGB", rgb.size)  # a fresh image carries no metadata
    clean.paste(rgb)
    return clean


def _scaled_grey(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey to 8 bits; PIL would clip at 255 instead of scaling."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    top = values.max(initial=0.0)
    if image.mode.startswith("I;16") or top > 255:
        values = values * (255.0 / 65535.0) if top <= 65535 else values * (255.0 / top)
    elif image.mode == "F" and top <= 1.0:
        values = values * 255.0
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
