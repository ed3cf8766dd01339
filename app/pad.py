"""The picture to draw on: what was drawn, as SVG over it, and what that amounts to, in words."""

from __future__ import annotations

import base64
import io

from PIL import Image

from app.heatmap import glow
from app.jobs import sentence
from app.markup import data_uri, text
from app.parts import BOXES, BRUSH, DETECT, WHOLE, WORDS, Parts, Stroke

PHOTO_SIDE = 768
LEADS = {
    WHOLE: "Everything in the picture counts.",
    BOXES: "Drag over the picture, or tap two corners. Several boxes count together. Type numbers "
    "to move the chosen box, in pixels from the top left.",
    DETECT: "A detector looks for what you name. Tick what counts, below or on the picture.",
    WORDS: "Where did the model look while it drew a word? Choose a word of the prompt.",
    BRUSH: "Paint over what you mean. Strokes count together, whatever their number.",
}
TOOLS = {BOXES: "box", BRUSH: "brush", DETECT: "pick", WORDS: "look"}


def lead(tab: str) -> str:
    """What to do in a tab."""
    return f'<p class="w-lead">{text(LEADS[tab])}</p>'


def line(parts: Parts, refused: str = "", *, spoken: bool = True) -> str:
    """What counts now; after a refusal, why. spoken: to those who do not see it; not with every key
    that is typed."""
    if refused:
        words = sentence(refused)
        return (
            f'<div class="w-status w-refused" data-announce="{text(words)}"><p>'
            f'<span class="w-sign" aria-hidden="true">!</span>{text(words)}</p></div>'
        )
    role = ' role="status"' if spoken else ""
    return f'<p class="w-counts"{role}>{text(counted(parts))}</p>'


def counted(parts: Parts) -> str:
    """What is to be attributed, in words."""
    if parts.tab == BOXES and not parts.boxes:
        return "No box yet, so the whole picture counts."
    if parts.tab == BRUSH and not parts.regions:
        return "Nothing painted yet, so the whole picture counts."
    if parts.tab == DETECT and not parts.regions:
        return "Nothing ticked, so the whole picture counts."
    if parts.tab == WORDS and not parts.regions:
        return _unsaid(parts)
    if parts.share == 1.0:
        return f"The whole picture counts{_by(parts)}."
    many = 1 if parts.tab in (BRUSH, WORDS) else len(parts.regions)
    verb = "counts" if many == 1 else "count"
    return f"{_what(parts, many)}: {percent(parts.share)} of the picture {verb}{_by(parts)}."


def _by(parts: Parts) -> str:
    """The words that go with the part."""
    if parts.words:
        return f", as “{parts.words}”"
    return ", with the whole prompt" if parts.regions else ""


def _what(parts: Parts, many: int) -> str:
    if parts.tab == BRUSH:
        return "The painted part"
    if parts.tab == WORDS:
        return f"Where the model looked for “{parts.called}”"
    if parts.tab == DETECT:
        return f"Ticked, {parts.called}"
    return "The box" if many == 1 else f"{many} boxes"


def _unsaid(parts: Parts) -> str:
    """Why no word's heat counts."""
    if not parts.said:
        return "No word chosen yet, so the whole picture counts."
    if parts.maps is None:
        return "The model has not looked yet, so the whole picture counts."
    return f"The model looked for “{parts.said}” nowhere in particular: the whole picture counts."


def percent(share: float) -> str:
    """A share in whole per cent, with what is nearly nothing not called nothing."""
    return "less than 1 %" if share < 0.01 else f"{100 * share:.0f} %"


def box_list(parts: Parts) -> str:
    """The boxes by number; a click shows one's corners."""
    if not parts.boxes:
        return ""
    items = "".join(
        f'<li><button type="button" class="w-chip" data-id="{i}" '
        f'aria-pressed="{"true" if i == parts.current else "false"}">Box {i + 1}</button></li>'
        for i in range(len(parts.boxes))
    )
    return f'<div class="w-chips"><ul>{items}</ul></div>'


def photo(image: Image.Image) -> str:
    """The picture to draw on, no larger than a screen needs it."""
    shown, buffer = image.convert("RGB"), io.BytesIO()
    shown.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    kind = "PNG" if max(shown.size) <= 256 else "JPEG"
    shown.save(buffer, kind, quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<img src="data:image/{kind.lower()};base64,{data}" alt="Your picture" draggable="false">'
    )


def marks(parts: Parts) -> str:
    """The boxes or strokes as SVG over the picture, in its own pixels."""
    width, height = parts.size
    tool = TOOLS.get(parts.tab, "")
    draw = {BOXES: _boxes, BRUSH: _strokes, DETECT: _found, WORDS: _heat}
    shapes = draw.get(parts.tab, lambda _: "")(parts)
    return (
        f'<svg class="w-marks" viewBox="0 0 {width} {height}" preserveAspectRatio="none" '
        f'data-width="{width}" data-height="{height}" data-tool="{tool}" '
        f'data-radius="{parts.radius:g}" data-erase="{"yes" if parts.erase else "no"}" '
        f'data-revision="{parts.revision}" role="img" aria-label="{text(counted(parts))}">'
        f"{shapes}</svg>"
    )


def _boxes(parts: Parts) -> str:
    """What is outside the boxes faded, the boxes outlined and numbered."""
    width, height = parts.size
    letter = max(width, height) / 16
    shapes = [f'<rect class="w-fade" width="{width}" height="{height}" mask="url(#w-out)"/>']
    holes = [f'<rect width="{width}" height="{height}" fill="white"/>']
    for i, region in enumerate(parts.boxes):
        x0, y0, x1, y1 = region.box
        corners = f'x="{x0:g}" y="{y0:g}" width="{x1 - x0:g}" height="{y1 - y0:g}"'
        kind = "w-box w-current" if i == parts.current else "w-box"
        holes.append(f'<rect {corners} fill="black"/>')
        shapes.append(f'<rect class="{kind}" {corners}/>')
        at = f'x="{x0 + letter / 4:g}" y="{y0 + letter:g}" font-size="{letter:g}"'
        shapes.append(f"<text {at}>{i + 1}</text>")
    faded = f'<mask id="w-out">{"".join(holes)}</mask>' if parts.boxes else ""
    return faded + "".join(shapes if parts.boxes else [])


def _found(parts: Parts) -> str:
    """What was found: outlined, numbered, and solid where it is ticked; small ones on top."""
    width, height = parts.size
    letter = max(width, height) / 16
    boxes = [one.box for one in parts.found or ()]
    shapes = []
    for i in sorted(range(len(boxes)), key=lambda i: -_area(boxes[i])):
        x0, y0, x1, y1 = boxes[i]
        corners = f'x="{x0:.2f}" y="{y0:.2f}" width="{x1 - x0:.2f}" height="{y1 - y0:.2f}"'
        kind = "w-box w-current" if i in parts.ticked else "w-box"
        at = f'x="{x0 + letter / 4:.2f}" y="{y0 + letter:.2f}" font-size="{letter:g}"'
        shapes.append(
            f'<g class="w-found" data-pick="{i}"><rect class="{kind}" {corners}/>'
            f"<text {at}>{i + 1}</text></g>"
        )
    return "".join(shapes)


def _area(box: tuple[float, float, float, float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _heat(parts: Parts) -> str:
    """The chosen word's heat as a glow, and the outline of what counts."""
    if parts.maps is None or not parts.places or parts.hot is None:
        return ""
    width, height = parts.size
    seen = data_uri(glow(parts.maps.heat(parts.places), parts.hot))
    return (
        f'<image class="w-heat" href="{seen}" width="{width}" height="{height}" '
        'preserveAspectRatio="none"/>'
    )


def _strokes(parts: Parts) -> str:
    """The painted part in colour."""
    if not parts.strokes:
        return ""
    width, height = parts.size
    lines = "".join(
        f'<polyline points="{_path(stroke)}" fill="none" stroke-linecap="round" '
        f'stroke-linejoin="round" stroke-width="{2 * stroke.radius:g}" '
        f'stroke="{"black" if stroke.erase else "white"}"/>'
        for stroke in parts.strokes
    )
    return (
        f'<mask id="w-in" maskUnits="userSpaceOnUse" width="{width}" height="{height}">{lines}'
        f'</mask><rect class="w-paint" width="{width}" height="{height}" mask="url(#w-in)"/>'
    )


def _path(stroke: Stroke) -> str:
    """Points of a stroke; a single one twice, or nothing would be drawn."""
    points = [*stroke.points, stroke.points[-1]]
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
