"""A proof drawn: three pictures, what was left out, the loss curves, and what it says in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from PIL import Image

from app.markup import data_uri, text
from app.panels.forget import percent
from app.proving import Begun
from app.trainings import Curves
from attribution.index import Index
from attribution.proofs import Curve, Proof, Retraining
from attribution.types import Query

WIDTH, HEIGHT = 560, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 34
# K → how far the relative errors of two random removals of K lie apart in nine of ten pictures,
# on the shipped proof world (evaluation/results: leave-k-out, "two random removals").
CHANCE = {5: 0.059, 10: 0.068, 35: 0.078, 69: 0.099, 139: 0.112}
# Mean squared difference of the pictures of two prompts, and of two trainings that differ in their
# seed alone (evaluation/results: seed-consistency).
OTHER_PROMPT, OTHER_SEED = 0.165, 0.037
# The picture changed about as much without random ones: at least so much of the method's change.
AS_MUCH = 0.75
EXPLAINED = (
    "Error: how badly a model predicts this picture, over 200 timesteps, compared with the model "
    "as it is. Change: mean squared difference of the pixels; it is {prompt} between the pictures "
    "of two prompts, and {seed} between two trainings that differ in their seed alone. Every "
    "training begins with the same weights and sees the same batches, but for the pictures that "
    "were taken out: but for rounding, the models differ by nothing else. The random ones are the "
    "same for every picture. One picture proves little: many are in "
    "<code>evaluation/results/leave-k-out.md</code>. Index <code>{hash}</code>."
)
# Training losses that end nearer than this part of one another are one line to the eye.
ALIKE = 0.03
CURVES = (
    "The curves lie on each other: {k} of {n} drawings hardly change how well a model learns all. "
    "What they change is how well it knows this one picture."
)
WAIT = "to come"


def proof_html(proof: Proof, titles: Mapping[str, str], index: Index) -> str:
    """A finished proof."""
    name = titles.get(proof.method, proof.method)
    found, control = _words(name, proof.k)
    columns = (
        _as_it_is(proof.query),
        _side(proof, proof.found, found),
        _side(proof, proof.control, control),
    )
    curves = curves_html(Curves(proof.found.curve, proof.control.curve), name)
    if curves and _alike(proof):
        said = CURVES.format(k=proof.k, n=f"{len(index.train_rows):,}")
        curves += f'<p class="w-caption">{said}</p>'
    explained = EXPLAINED.format(
        prompt=percent(OTHER_PROMPT), seed=percent(OTHER_SEED), hash=index.index_hash[:12]
    )
    verdicts = (
        f'<p class="w-verdict" role="status"><strong>{text(verdict(proof, name))}</strong></p>'
    )
    removed = _both(index, name, proof.found.without, proof.control.without)
    after = f'{removed}{curves}<p class="w-caption">{explained}</p>'
    return _card(proof.query, columns, verdicts + after)


def _alike(proof: Proof) -> bool:
    """Whether the two training losses end alike."""
    ends = [curve[-1][1] for curve in (proof.found.curve, proof.control.curve) if curve]
    return len(ends) == 2 and abs(ends[0] / ends[1] - 1.0) < ALIKE


def begun_html(begun: Begun, titles: Mapping[str, str], index: Index) -> str:
    """What is known before the training: the picture, and what is taken out."""
    name = titles.get(begun.method, begun.method)
    frame = f'<div class="w-frame" aria-hidden="true"><span>{WAIT}</span></div>'
    columns = (
        _as_it_is(begun.query),
        *(
            f"<figure>{frame}<figcaption><b>{text(words)}</b></figcaption></figure>"
            for words in _words(name, len(begun.found))
        ),
    )
    return _card(begun.query, columns, _both(index, name, begun.found, begun.control))


def _words(name: str, k: int) -> tuple[str, str]:
    return f"without the {k} that {name} found", f"without {k} random ones"


def _as_it_is(query: Query) -> str:
    return _figure(query.image, "as it is", "", f"The picture: {query.prompt}")


def _card(query: Query, columns: Sequence[str], rest: str) -> str:
    return (
        '<div class="w-card-box w-forgetting w-proof">'
        f"<h3>“{text(query.prompt)}”, seed {query.seed}</h3>"
        f'<div class="w-sides">{"".join(columns)}</div>{rest}</div>'
    )


def _both(index: Index, name: str, found: Sequence[str], control: Sequence[str]) -> str:
    own = _removed(index, found, f"What {name} found, taken out")
    return own + _removed(index, control, "Taken out at random")


def chance(k: int) -> tuple[int, float]:
    """How far the relative errors of two random removals lie apart in nine of ten pictures: (the
    number removed that was measured and is nearest to K, how far)."""
    nearest = min(CHANCE, key=lambda measured: abs(measured - k))
    return nearest, CHANCE[nearest]


def verdict(proof: Proof, name: str) -> str:
    """What the two removals did, whoever hurt more, and whether chance does as much."""
    found, control = proof.gain(proof.found), proof.gain(proof.control)
    measured, room = chance(proof.k)
    usual = (
        f"two random removals of {measured} differ by up to {100 * room:.0f} points in nine of ten "
        "pictures"
    )
    said = (
        f"Trained without the {proof.k} that {name} found, the model is {more(found)} at this "
        f"picture; without {proof.k} random ones, {more(control)}."
    )
    if abs(found - control) <= room:
        return f"{said} That proves nothing: {usual}."
    if control > found:
        return f"{said} Here the random ones mattered more, beyond chance: {usual}."
    said = f"{said} What {name} found mattered more, beyond chance: {usual}."
    if proof.control.change < AS_MUCH * proof.found.change:
        return said
    return f"{said} The drawing itself changed as much without the random ones: look at the error."


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
    there = set(index.all_ids)
    rows = [index.row_of(name) for name in ids if name in there]
    hands = Counter(name for row in rows for name in index.record(row)["artists"] or ())
    by = ", ".join(f"{artist} ({n})" if n > 1 else artist for artist, n in hands.most_common())
    items = "".join(
        f'<li><img src="{data_uri(index.image(row))}" alt="{text(caption[0])}" '
        f'title="{text(caption[0])}"></li>'
        for row, caption in zip(rows, index.captions(rows), strict=True)
    )
    credit = f'<p class="w-caption">Drawn by {text(by)}.</p>' if by else ""
    return f'<h4>{text(label)}</h4><ul class="w-removed">{items}</ul>{credit}'


def curves_html(curves: Curves, name: str) -> str:
    """Training loss against steps, of both trainings; nothing before the second point."""
    both = {f"without what {name} found": curves.found, "without random ones": curves.control}
    styles = {words: n for n, words in enumerate(both)}
    lines = {words: curve for words, curve in both.items() if len(curve) > 1}
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
        f'<polyline class="w-line-{styles[words]}" points="{" ".join(point(*p) for p in curve)}"/>'
        for words, curve in lines.items()
    )
    key = "".join(
        f'<li><span class="w-key w-line-{styles[words]}" aria-hidden="true"></span>{text(words)}, '
        f"now {curve[-1][1]:.3f}</li>"
        for words, curve in lines.items()
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
