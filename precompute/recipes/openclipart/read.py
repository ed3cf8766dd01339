"""Reads the drawings of the Debian package and the RDF metadata inside each SVG."""

from __future__ import annotations

import html
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SVG_ROOT = Path("/usr/share/openclipart/svg")
_METADATA = re.compile(r"<metadata.*?</metadata>", re.S)
_TAG = re.compile(r"<[^>]+>")


@dataclass(frozen=True)
class Drawing:
    """One SVG file and what its metadata says; `id` is the path below the root without `.svg`."""

    id: str
    title: str
    creators: tuple[str, ...]  # candidates for the artist, most trusted first, uncleaned
    keywords: tuple[str, ...]
    licence: str  # URL, "" where the file says nothing

    @property
    def stem(self) -> str:
        """The file name without folder and suffix."""
        return self.id.rsplit("/", 1)[-1]

    def path(self, root: Path) -> Path:
        """The SVG file below `root`."""
        return root / f"{self.id}.svg"


def mend(text: str) -> str:
    """Undoes HTML escapes (often doubled) and UTF-8 read as Latin-1; collapses white space."""
    for _ in range(3):
        text = html.unescape(text)
    with suppress(UnicodeEncodeError, UnicodeDecodeError):
        text = text.encode("latin-1").decode("utf-8")
    return " ".join(text.split())


def _field(metadata: str, tag: str) -> str:
    found = re.search(rf"<dc:{tag}>(.*?)</dc:{tag}>", metadata, re.S)
    return mend(_TAG.sub(" ", found.group(1))) if found else ""


def parse(text: str, identity: str) -> Drawing:
    """The metadata of one SVG's text; fields are empty where the file has none."""
    found = _METADATA.search(text)
    metadata = found.group(0) if found else ""
    licence = re.search(r'<cc:license rdf:resource="([^"]*)"', metadata)
    keywords = (mend(item) for item in re.findall(r"<rdf:li>(.*?)</rdf:li>", metadata, re.S))
    return Drawing(
        id=identity,
        title=_field(metadata, "title"),
        creators=tuple(_field(metadata, tag) for tag in ("creator", "rights", "publisher")),
        keywords=tuple(word.lower() for word in keywords if word),
        licence=licence.group(1) if licence else "",
    )


def read_all(root: Path = SVG_ROOT) -> list[Drawing]:
    """Every drawing below `root`, sorted by id.

    Raises:
        FileNotFoundError: `root` is not there, with the command that installs it.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is missing: apt-get install openclipart-svg")
    return [
        parse(path.read_text("utf-8", "replace"), path.relative_to(root).with_suffix("").as_posix())
        for path in sorted(root.rglob("*.svg"), key=lambda p: p.relative_to(root).as_posix())
    ]
