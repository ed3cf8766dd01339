"""Any image a user hands in is read as upright 8-bit RGB, or refused in one line."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attribution.images import read_image
from attribution.types import UserError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def noisy(width: int = 32, height: int = 24) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to no pixels."""
    fields = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", fields), (b"IDAT", zlib.compress(b"\0")))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def refused(source: object) -> str:
    with pytest.raises(UserError) as caught:
        read_image(source)
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def test_path_bytes_file_and_pil_agree(tmp_path: Path) -> None:
    data = encoded(noisy())
    path = tmp_path / "a.png"
    path.write_bytes(data)
    reads = [read_image(s) for s in (path, str(path), data, io.BytesIO(data), noisy())]
    for image in reads:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), np.asarray(noisy()))


def test_not_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_text("just words")
    assert "not an image" in refused(path)
    assert "not an image" in refused(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "empty" in refused(b"")
    assert "no such image" in refused(tmp_path / "absent.png")
    assert "not a file" in refused(tmp_path)
    assert "not a file" in refused("/dev/zero")
    refused("a\0b.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_cut_short_anywhere_is_refused_or_read_in_one_line(kind: str) -> None:
    data = encoded(noisy(), kind)
    for end in range(0, len(data) - 8, max(1, len(data) // 40)):
        try:
            read_image(data[:end])
        except UserError as error:
            assert "\n" not in str(error)
    assert "damaged" in refused(encoded(noisy())[:900])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF"])
def test_flipped_bytes_never_raise_anything_else(kind: str) -> None:
    data = bytearray(encoded(noisy(), kind))
    rng = np.random.default_rng(1)
    for _ in range(60):
        bad = bytearray(data)
        for at in rng.integers(0, min(len(bad), 400), 3):
            bad[at] ^= int(rng.integers(1, 256))
        try:
            read_image(bytes(bad))
        except UserError as error:
            assert "\n" not in str(error)


def test_huge_headers_are_refused_before_decoding() -> None:
    assert "too large" in refused(png_header(60_000, 60_000))
    assert "limit" in refused(png_header(12_000, 12_000))
    assert "limit" in refused(png_header(30_000, 2))
    assert "limit" in refused(Image.new("1", (21_000, 1)))


def test_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(data).getpixel((3, 3)) == (255, 0, 0)
    opened = Image.open(io.BytesIO(data))
    opened.seek(1)
    assert read_image(opened).getpixel((3, 3)) == (255, 0, 0)


def test_cmyk_becomes_rgb() -> None:
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = read_image(data).getpixel((4, 4))
    assert red > 200 and green < 60 and blue < 60


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 16, dtype=np.uint16).reshape(4, 4)
    image = read_image(encoded(Image.fromarray(ramp)))
    expected = np.rint(ramp / 257.0)
    assert np.abs(np.asarray(image)[..., 0] - expected).max() <= 1


def test_float_tiff_in_unit_range() -> None:
    image = read_image(encoded(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"))
    assert abs(image.getpixel((0, 0))[0] - 128) <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "La", "RGBa"])
def test_transparency_lies_on_white(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    if mode == "P":
        clear = Image.new("P", (4, 4), 0)
        clear.putpalette([255, 0, 0] * 256)
        clear.info["transparency"] = 0
    elif mode != "RGBA":
        clear = Image.new(mode, (4, 4))
    assert read_image(clear).getpixel((1, 1)) == (255, 255, 255)


def test_exif_rotation_is_applied_and_metadata_dropped() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    exif[0x013B] = "a name"
    image = read_image(encoded(noisy(32, 24), "JPEG", exif=exif))
    assert image.size == (24, 32)
    assert not image.getexif() and not image.info


def test_reading_leaves_the_callers_image_alone() -> None:
    source = noisy()
    read_image(source).paste("black", (0, 0, 32, 24))
    assert np.array_equal(np.asarray(source), np.asarray(noisy()))
