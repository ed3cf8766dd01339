"""The page's head: what this is, in one line, what world it looks into, and the light switch."""

from __future__ import annotations

from app.markup import block, text
from attribution.engine import Engine


def header(engine: Engine) -> None:
    """Name, question and the index behind the page."""
    block(
        '<header class="w-header"><div><h1>Whence</h1>'
        '<p class="w-question">Which training images made this picture?</p></div>'
        '<button type="button" id="light-switch" class="w-ghost" aria-pressed="false">'
        '<span aria-hidden="true">◐</span> Dark mode</button></header>'
        f'<p class="w-intro">{_intro(engine)}</p>'
        '<p class="w-keys"><kbd>Ctrl</kbd> + <kbd>Enter</kbd> runs the step you are in, '
        "<kbd>Esc</kbd> stops it.</p>"
        '<div id="announcer" class="w-hidden" role="status" aria-live="polite"></div>',
        elem_id="header",
    )


def _intro(engine: Engine) -> str:
    count = f"{engine.n_train:,}"
    return text(
        f"A text-to-image model learned everything it can draw from {count} training pictures. "
        "Make a picture, and Whence finds those it leaned on most: it lets the model forget your "
        "picture a little, then looks which training pictures it draws worse."
    )
