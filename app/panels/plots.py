"""Two plots that put a top list into context: influence by artist, and the spread of all scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from app.markup import SUPERSCRIPTS, Unit, text
from attribution.artists import score_floor
from attribution.types import ArtistShare, Attribution

NOTHING = "No score rises above the noise, so there is nothing to share out."
MOST_ARTISTS = 8
BINS = 36
WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 40, 44
LABELS = 14  # baseline of the words above the bars; the noise band's stand below them


def artists_plot(shares: Sequence[ArtistShare]) -> str:
    """Bars with their numbers beside them; a list to a screen reader."""
    if not shares:
        return f'<p class="w-empty">{NOTHING}</p>'
    shown = list(shares[:MOST_ARTISTS])
    longest = max(share.share for share in shown)
    bars = "".join(_artist(share, longest) for share in shown)
    rest = 1.0 - sum(share.share for share in shown)
    others = len(shares) - len(shown)
    more = f'<p class="w-caption">{others} more artists share {rest:.0%}.</p>' if others > 0 else ""
    return f'<ol class="w-artists">{bars}</ol>{more}'


def _artist(share: ArtistShare, longest: float) -> str:
    count = len(share.records)
    pictures = f"{count} picture{'' if count == 1 else 's'}"
    return (
        f'<li><span class="w-name">{text(share.artist)}</span>'
        f'<span class="w-value">{share.share:.0%} · {pictures}</span>'
        f'<span class="w-scorebar" aria-hidden="true">'
        f'<span style="width:{100 * share.share / longest:.1f}%"></span></span></li>'
    )


def spread_plot(answer: Attribution, top_k: int) -> str:
    """Histogram of every score, counts on a logarithmic axis, the shown ones apart and the noise as
    a band.
    """
    scores = answer.scores[np.isfinite(answer.scores)].astype(np.float64)
    if len(scores) == 0:
        return ""
    unit = Unit.of(scores)
    floor = score_floor(answer)
    low, high = min(float(scores.min()), -floor), max(float(scores.max()), floor)
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    cut = float(scores[min(top_k, len(scores)) - 1])
    words = _in_words(scores, top_k, cut, floor, unit)
    drawing = _bars(scores, edges, cut) + _noise(edges, floor) + _axes(scores, edges, unit)
    drawing += _cut(edges, cut, min(top_k, len(scores)))
    return (
        f'<svg class="w-spread" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{text(words)}">'
        f'{drawing}</svg><p class="w-caption">{text(words)}</p>'
    )


def _x(value: float, edges: np.ndarray) -> float:
    share = (value - edges[0]) / (edges[-1] - edges[0])
    return LEFT + float(share) * (WIDTH - LEFT - RIGHT)


def _y(count: float, most: float) -> float:
    return HEIGHT - BOTTOM - math.log10(1 + count) / math.log10(1 + most) * (HEIGHT - TOP - BOTTOM)


def _bars(scores: np.ndarray, edges: np.ndarray, cut: float) -> str:
    counts, _ = np.histogram(scores, edges)
    most = float(counts.max())
    parts = []
    for i, count in enumerate(counts):
        if count:
            x, y = _x(edges[i], edges), _y(float(count), most)
            width = _x(edges[i + 1], edges) - x
            kind = "w-in" if edges[i + 1] > cut else "w-out"
            parts.append(
                f'<rect class="{kind}" x="{x + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}" '
                f'height="{HEIGHT - BOTTOM - y:.1f}"/>'
            )
    return "".join(parts)


def _noise(edges: np.ndarray, floor: float) -> str:
    """The band in which a score cannot be told from zero."""
    if floor <= 0:
        return ""
    x0, x1 = _x(-floor, edges), _x(floor, edges)
    return (
        f'<rect class="w-noise" x="{x0:.1f}" y="{TOP}" width="{max(x1 - x0, 1.5):.1f}" '
        f'height="{HEIGHT - TOP - BOTTOM}"/>'
        f'<text class="w-tick" x="{(x0 + x1) / 2:.1f}" y="{TOP - 6}" '
        'text-anchor="middle">noise</text>'
    )


def _cut(edges: np.ndarray, cut: float, shown: int) -> str:
    """Where the gallery ends. The label keeps clear of the band's."""
    x = _x(cut, edges)
    return (
        f'<line class="w-cut" x1="{x:.1f}" x2="{x:.1f}" y1="{LABELS + 4}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="w-tick" x="{min(x + 5, WIDTH - 90):.1f}" y="{LABELS}">the {shown} shown '
        "→</text>"
    )


def _axes(scores: np.ndarray, edges: np.ndarray, unit: Unit) -> str:
    most = float(np.histogram(scores, edges)[0].max())
    base = HEIGHT - BOTTOM
    parts = [f'<line class="w-axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>']
    for count in (1, 10, 100, 1000, 10_000, 100_000):
        if count <= most:
            y = _y(count, most) + 4
            parts.append(
                f'<text class="w-tick" x="{LEFT - 6}" y="{y:.1f}" text-anchor="end">{count}</text>'
            )
    for value in _round_ticks(edges[0], edges[-1]):
        shown = f"{value / 10.0**unit.exponent:.4g}".replace("-", "−")
        parts.append(
            f'<text class="w-tick" x="{_x(value, edges):.1f}" y="{base + 16}" text-anchor="middle">'
            f"{shown}</text>"
        )
    label = f"score {unit.words}".strip()
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="w-tick" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{label}</text>'
    )
    parts.append(f'<text class="w-tick" x="4" y="{LABELS}">count (log)</text>')
    return "".join(parts)


def tenths(value: float) -> str:
    """A positive number by its first digit and power of ten, for sizes that only matter roughly."""
    power = math.floor(math.log10(value))
    digit = round(value / 10.0**power)
    return f"{digit}×10{str(power).translate(SUPERSCRIPTS)}"


def _round_ticks(low: float, high: float) -> list[float]:
    """About five round numbers between low and high."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(low / step)
    return [k * step if k else 0.0 for k in range(first, math.floor(high / step) + 1)]


def _in_words(scores: np.ndarray, top_k: int, cut: float, floor: float, unit: Unit) -> str:
    """The plot as a sentence."""
    median = unit.show(float(np.median(scores)))
    shown = min(top_k, len(scores))
    words = (
        f"{len(scores):,} pictures scored. The {shown} shown score {unit.show(cut)} or more; "
        f"the one in the middle scores {median}."
    )
    if floor > 0:
        above = int((scores > floor).sum())
        words += f" {above:,} stand out from the noise, which is ±{tenths(floor)}."
    return words
