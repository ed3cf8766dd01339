"""Take the answer along: a ZIP with everything, and a link that asks the same again."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from app.files import Scratch
from app.session import Session
from attribution.engine import Engine
from attribution.types import UserError

OPENS = "Opens the page, makes the same picture and asks again."
NO_LINK = "An uploaded picture stays with you, so there is no link to it; the ZIP has it all."
NO_LINK_FREE = (
    "The form of this part, painted or where the model looked, does not fit into a link; the ZIP "
    "has it all. Boxes do fit."
)

# The page's own address is known in the browser only.
WHOLE_LINK = """(query) => !query || query.startsWith('http') ? query
  : location.origin + location.pathname + '?' + query"""


class Share:
    """The two buttons under an answer."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.scratch = Scratch()
        with gr.Row(equal_height=False, elem_id="share", visible=False) as self.row:
            self.link = gr.Textbox(
                label="Link to this question",
                info=OPENS,
                interactive=False,
                buttons=["copy"],
                scale=3,
                min_width=260,
                elem_id="link",
            )
            self.zip = gr.DownloadButton(
                "Download ZIP", scale=1, min_width=160, elem_id="zip", elem_classes="w-zip"
            )
        self.outputs = [self.row, self.link, self.zip]

    def final(self, session: Session) -> dict[Any, Any]:
        """Link and file of a finished answer."""
        assert session.query is not None and session.answer is not None
        link, info = self._link(session)
        return {
            self.row: gr.update(visible=True),
            self.link: gr.update(value=link, info=info),
            self.zip: str(self._archive(session)),
        }

    def cleared(self) -> dict[Any, Any]:
        return {self.row: gr.update(visible=False)}

    def _link(self, session: Session) -> tuple[str, str]:
        """The link's query string and what it does, or why there is none."""
        assert session.query is not None and session.answer is not None
        try:
            asked = self.engine.link(session.query, session.answer.method, session.top_k)
        except UserError:
            return "", NO_LINK if session.query.seed is None else NO_LINK_FREE
        return urlencode(asked), OPENS

    def _archive(self, session: Session) -> Path:
        """A ZIP of the answer."""
        assert session.query is not None and session.answer is not None
        target = self.scratch.path("whence.zip")
        return self.engine.export(session.query, [session.answer], target, session.top_k)
