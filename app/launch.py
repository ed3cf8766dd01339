"""Arguments → open the index → build the page → launch."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app import spaces_gpu  # noqa: F401  first: ZeroGPU has to patch torch before anything imports it

# isort: split
import gradio as gr

from app import model_thread
from app.page import build_page
from app.served import Shield, picture_route
from app.theme import THEME
from attribution.commands import Parser, one_line
from attribution.engine import Engine
from attribution.types import UserError

STATIC = Path(__file__).parent / "static"
DEFAULT_INDEX = Path(__file__).parent.parent / "assets" / "openclipart"
MAX_UPLOAD = "20mb"
BAD_INPUT = 2
LAST_PORT = 65535


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line's contract; on Spaces the page listens on every interface. UserError for
    what it does not know."""
    parser = Parser(prog="app.py", description="Whence: which training images?")
    host = "0.0.0.0" if os.environ.get("SPACE_ID") else "127.0.0.1"
    parser.add_argument("--index", type=Path, default=DEFAULT_INDEX, metavar="DIR")
    parser.add_argument("--host", default=host)
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args(argv)


def check_address(host: str, port: int) -> None:
    """UserError where no page can be served, before anything is loaded for it."""
    if not 1 <= port <= LAST_PORT:
        raise UserError(f"--port has to be a whole number from 1 to {LAST_PORT}, not {port}")
    for name in (host.strip("[]"), "127.0.0.1"):  # gradio asks for the second, whatever the first
        try:
            found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            family = min(entry[0] for entry in found)  # IPv4 where there is one
            socket.create_server((name, port), family=family).close()
        except (OSError, UnicodeError) as error:
            raise UserError(_unserved(host, port, getattr(error, "errno", None))) from None


def _unserved(host: str, port: int, number: int | None) -> str:
    """What the operating system has against this address."""
    if number == errno.EADDRINUSE:
        return f"port {port} is in use: give another --port, or end what listens there"
    if number == errno.EACCES:
        return f"port {port} is not free for everyone: give a --port from 1024 on"
    return f"--host {host} is no address of this machine: 127.0.0.1 is, 0.0.0.0 means all of them"


def launch(engine: Engine, *, host: str, port: int | None, wait: bool = True) -> gr.Blocks:
    """Serve the page. With `wait=False` it returns at once and `close()` ends it."""
    page = build_page(engine)
    page.queue(max_size=32, default_concurrency_limit=8)
    page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        theme=THEME,
        css_paths=[STATIC / "page.css", STATIC / "region.css", STATIC / "prove.css"],
        js=(STATIC / "page.js").read_text(encoding="utf-8"),
        favicon_path=STATIC / "favicon.png",
        **private(engine),
    )
    if wait:
        print(f"Whence: {page.local_url}", flush=True)
        page.block_thread()
    return page


def private(engine: Engine) -> dict[str, Any]:
    """Launch settings that keep the page offline and visitors' pictures theirs."""
    return {
        "allowed_paths": [],
        "app_kwargs": {"routes": [picture_route(engine)], "middleware": [Shield.entry()]},
        "enable_monitoring": False,
        "footer_links": ["api"],
        "max_file_size": MAX_UPLOAD,
        "pwa": False,
        "run_history": False,
        "share": False,
        "show_error": False,
        "ssr_mode": False,
        "strict_cors": True,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 2 and one line on stderr when the index or the address cannot be used."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        options = arguments(argv)
        check_address(options.host, options.port)
        engine = model_thread.run(Engine, options.index, device=options.device)
        with ending_in_order(), uploads_of_this_run():
            launch(engine, host=options.host, port=options.port)
    except (UserError, OSError) as error:
        print(f"app.py: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    return 0


@contextmanager
def ending_in_order() -> Iterator[None]:
    """SIGTERM, as service managers send it, ends folders and trainings too. Of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def uploads_of_this_run() -> Iterator[None]:
    """Uploads and answers go to a folder of this run's own, which goes when the page closes."""
    with tempfile.TemporaryDirectory(prefix="whence-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        yield
