"""What the page's server adds to gradio's: training pictures by record id, and a shield against
outside requests.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlencode

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.jobs import public
from attribution.engine import Engine
from attribution.report import png_bytes
from attribution.types import UserError

PICTURES = "picture"
YEAR = 365 * 24 * 3600

# Browsers refuse whatever is not named here: the page works offline, and no font, script or image
# of it can call home. Gradio evaluates its own small scripts, hence the two unsafe- words.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "media-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "connect-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Shield:
    """ASGI middleware that adds the policy to every response; plain, because wrapped responses
    cannot stream.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    @classmethod
    def entry(cls) -> Middleware:
        """As the server's list of middleware wants it."""
        return Middleware(cls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def shielded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        await self.app(scope, receive, shielded)


def picture_url(record_id: str, index_hash: str) -> str:
    """Address of a record's display image, relative to the page; the hash lets browsers keep it for
    good.
    """
    return f"{PICTURES}?{urlencode({'id': record_id, 'v': index_hash[:12]})}"


def picture_route(engine: Engine) -> Route:
    """GET /picture?id=…: a record's display image as PNG. Only what the index holds, so no path is
    ever opened.
    """

    @lru_cache(maxsize=1024)
    def encoded(record_id: str) -> bytes:
        return png_bytes(engine.record(record_id).image)

    def picture(request: Request) -> Response:
        try:
            data = encoded(request.query_params.get("id", ""))
        except UserError as error:
            return PlainTextResponse(public(str(error)), status_code=404)
        headers = {"cache-control": f"public, max-age={YEAR}, immutable"}
        return Response(data, media_type="image/png", headers=headers)

    return Route(f"/{PICTURES}", picture, methods=["GET"])
