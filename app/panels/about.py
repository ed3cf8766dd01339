"""What the answer shows and does not show, beside the answer."""

from __future__ import annotations

from app.markup import block

SHOWS = (
    "Which training pictures the model gets worse at when it is made to forget your picture, and "
    "how much worse. The more, the more the two depend on the same knowledge.",
    "A ranking within this one training set, by this one model.",
    "Differences larger than the noise: the grey band in the plot of scores.",
)
DOES_NOT = (
    "It does not show copying. A drawing can matter without looking like yours, and look like "
    "yours without mattering.",
    "It is no share of authorship and no licence fee. Influence does not add up to 100 % of a "
    "picture.",
    "It is an estimate. The proof is to train again without those drawings: Look further → Prove "
    "does so, with a small model of its own.",
    "Small differences in rank mean little: number 7 and number 12 may well change places.",
)


def about() -> None:
    """Two short lists, open, in the reader's way on purpose."""
    block(
        '<aside class="w-card-box w-about" aria-label="What this does and does not show">'
        "<h3>What this shows</h3>"
        f"<ul>{_items(SHOWS)}</ul><h3>What it does not "
        f"show</h3><ul>{_items(DOES_NOT)}</ul></aside>",
        elem_id="about",
    )


def _items(lines: tuple[str, ...]) -> str:
    return "".join(f"<li>{line}</li>" for line in lines)
