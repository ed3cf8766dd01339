"""A proof drawn: three pictures, what was left out, the loss curves, and what it says in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image

from app.markup import data_uri, text
from app.panels.forget import percent
from app.proving import Curves
from attribution.index import Index
from attribution.proofs import Curve, Proof, Retraining

WIDTH, HEIGHT = 560, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 34
# Where the two relative errors are nearer than this, neither removal hurt more than the other.
ALIKE = 0.02
EXPLAINED = (
    "Error: how badly a model predicts your picture, over 200 timesteps, compared with the model "
    "as it is. Change: mean squared difference of the pixels, in percent of the greatest possible. "
    "Every training begins with the same weights and sees the same batches, but for the pictures "
    "that were taken out, so the two differ by nothing else. One picture proves little: the table "
    "of many is in the repository."
)


def proof_html(proof: Proof, titles: Mapping[str, str], index: Index) -> str:
    """A finished proof."""
    name = titles.get(proof.method, proof.method)
    k, query = proof.k, proof.query
    columns = (
        _figure(query.image, "as it is", "", f"Your picture: {query.prompt}"),
        _side(proof, proof.found, f"without the {k} that {name} found"),
        _side(proof, proof.control, f"without {k} random ones"),
    )
    curves = Curves(proof.found.curve, proof.control.curve)
    return (
        '<div class="w-card-box w-forgetting w-proof">'
        f"<h3>“{text(query.prompt)}”, seed {query.seed}</h3>"
        f'<div class="w-sides">{"".join(columns)}</div>'
        f'<p class="w-verdict"><strong>{text(verdict(proof, name))}</strong></p>'
        f"{_removed(index, proof.found.without, f'What {name} found, taken out')}"
        f"{_removed(index, proof.control.without, 'Taken out at random')}"
        f"{curves_html(curves, name)}"
        f'<p class="w-caption">{EXPLAINED}</p></div>'
    )


def verdict(proof: Proof, name: str) -> str:
    """What the two removals did, whoever hurt more."""
    found, control = proof.gain(proof.found), proof.gain(proof.control)
    said = (
        f"Trained without {name}'s {proof.k}, the model is {more(found)} at this picture; without "
        f"{proof.k} random ones, {more(control)}."
    )
    if found - control > ALIKE:
        return f"{said} What {name} found mattered more."
    if control - found > ALIKE:
        return f"{said} Here the random ones mattered more: {name} did not find what counts."
    return f"{said} The two hardly differ: no proof of anything."


def more(gain: float) -> str:
    """'12 % worse', '1 % better', 'as good as before'."""
    if abs(gain) < 0.005:
        return "as good as before"
    return f"{abs(100 * gain):.0f} % {'worse' if gain >= 0 else 'better'}"


def _side(proof: Proof, side: Retraining, words: str) -> str:
    gain = round(100 * proof.gain(side))
    sign = {1: "+", 0: "±", -1: "−"}[(gain > 0) - (gain < 0)]
    small = f"error {sign}{abs(gain)} % · change {percent(side.change)}"
    return _figure(side.image, words, small, f"{proof.query.prompt}, {words}")


def _figure(image: Image.Image, words: str, small: str, alt: str) -> str:
    return (
        f'<figure><img src="{data_uri(image)}" alt="{text(alt)}">'
        f"<figcaption><b>{text(words)}</b><span>{text(small)}</span></figcaption></figure>"
    )


def _removed(index: Index, ids: Sequence[str], label: str) -> str:
    """The records left out, as the model saw them."""
    known = [name for name in ids if name in set(index.all_ids)]
    rows = [index.row_of(name) for name in known]
    items = "".join(
        f'<li><img src="{data_uri(index.image(row))}" alt="{text(caption[0])}" '
        f'title="{text(caption[0])}"></li>'
        for row, caption in zip(rows, index.captions(rows), strict=True)
    )
    return f'<h4>{text(label)}</h4><ul class="w-removed">{items}</ul>'


def curves_html(curves: Curves, name: str) -> str:
    """Training loss against steps, of both trainings; nothing before the second point."""
    lines = {f"without {name}'s": curves.found, "without random ones": curves.control}
    lines = {words: curve for words, curve in lines.items() if len(curve) > 1}
    if not lines:
        return ""
    steps = [step for curve in lines.values() for step, _ in curve]
    losses = [loss for curve in lines.values() for _, loss in curve]
    low, high = min(losses), max(losses)
    span = (high - low) or 1.0

    def point(step: int, loss: float) -> str:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / max(steps)
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - loss) / span
        return f"{x:.1f},{y:.1f}"

    drawn = "".join(
        f'<polyline class="w-line-{n}" points="{" ".join(point(*p) for p in curve)}"/>'
        for n, curve in enumerate(lines.values())
    )
    key = "".join(
        f'<li><span class="w-key w-line-{n}" aria-hidden="true"></span>{text(words)}, now '
        f"{curve[-1][1]:.3f}</li>"
        for n, (words, curve) in enumerate(lines.items())
    )
    ends = ", ".join(f"{words} {_fall(curve)}" for words, curve in lines.items())
    return (
        f'<figure class="w-losses"><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{text(f"Training loss falls: {ends}")}">'
        f'<path class="w-axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{TOP + 6}" text-anchor="end">{high:.2f}</text>'
        f'<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end">{low:.2f}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">training loss by optimiser step</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{max(steps):,}</text>'
        f"{drawn}</svg><figcaption><ul>{key}</ul></figcaption></figure>"
    )


def _fall(curve: Curve) -> str:
    return f"from {curve[0][1]:.3f} to {curve[-1][1]:.3f}"
