"""Boot as a Space would: `python app.py` with 2 threads on the CPU; time to the page, the first
picture and the first answer.

python -m benchmarks boot
python -m benchmarks boot --clean     # in a new environment from requirements.txt alone (minutes)
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attribution import defaults
from attribution.arguments import count
from attribution.types import UserError
from evaluation.results import Figure, Summary
from evaluation.world import world_of

PROMPT, SEED = "an ice cream cone, dessert, by Gerald G.", 7
TIMEOUT = 1800.0
ROOT = Path(__file__).parent.parent
APP = ROOT / "app.py"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `boot`."""
    parser.add_argument("--cpu-threads", type=count(), default=2, help="of the page; a Space has 2")
    parser.add_argument("--top-k", type=count(), default=defaults.TOP_K, metavar="K")
    parser.add_argument("--clean", action="store_true", help="a new environment, requirements.txt")
    parser.add_argument("--wheels", metavar="URL", help="index of torch for --clean")


def run(args: argparse.Namespace) -> None:
    """One line a boot; every run boots anew."""
    world = world_of(args)
    settings = {"threads": args.cpu_threads, "clean": args.clean}
    results = world.results(args, "boot", settings)
    with tempfile.TemporaryDirectory(prefix="boot-") as folder:
        python = clean_environment(Path(folder), args.wheels) if args.clean else sys.executable
        line = boot(python, args.index, args.cpu_threads, args.top_k)
    results.add(time.strftime("%Y-%m-%dT%H:%M:%S"), **line)


def clean_environment(folder: Path, wheels: str | None) -> str:
    """The interpreter of a new virtual environment with requirements.txt and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    python = str(folder / "venv/bin/python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["-c", str(ROOT / "constraints.txt")]
    if wheels:
        subprocess.run([*pip, "torch", "--index-url", wheels], check=True)
    subprocess.run([*pip, "-r", str(ROOT / "requirements.txt")], check=True)
    return python


def boot(python: str, index: Path, threads: int, top_k: int) -> dict[str, float]:
    """Seconds from the start of the process, and its peak memory."""
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    command = [python, str(APP), "--index", str(index), "--port", str(port), "--device", "cpu"]
    began = time.perf_counter()
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for_page(address, server, began)
        seconds = {"page": time.perf_counter() - began}
        call(address, "generate", [PROMPT, SEED])
        seconds["picture"] = time.perf_counter() - began
        arguments = [PROMPT, SEED, None, None, [defaults.METHOD], top_k, ""]
        asked = time.perf_counter()
        answer = call(address, "attribute", arguments)
        seconds["answer"] = time.perf_counter() - began
        seconds["first_query"] = time.perf_counter() - asked
        asked = time.perf_counter()
        call(address, "attribute", [PROMPT, SEED + 1, *arguments[2:]])
        seconds["second_query"] = time.perf_counter() - asked
    finally:
        server.terminate()
        server.wait(30)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    shown = len(answer[0]["methods"][0]["results"])
    return {n: round(s, 2) for n, s in seconds.items()} | {"peak_mib": round(peak), "shown": shown}


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_page(address: str, server: subprocess.Popen, began: float) -> None:
    """Return when the page answers; UserError when the process ends or takes too long."""
    while time.perf_counter() - began < TIMEOUT:
        if server.poll() is not None:
            raise UserError(f"app.py ended with exit code {server.returncode}")
        try:
            with urllib.request.urlopen(address, timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise UserError(f"no page at {address} within {TIMEOUT:.0f} s")


def call(address: str, endpoint: str, data: Sequence[Any]) -> Any:
    """One call of the page's API: the data of its `complete` event."""
    request = urllib.request.Request(
        f"{address}/gradio_api/call/{endpoint}",
        json.dumps({"data": list(data)}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        event = json.load(response)["event_id"]
    stream = f"{address}/gradio_api/call/{endpoint}/{event}"
    with urllib.request.urlopen(stream, timeout=TIMEOUT) as response:
        name = ""
        for raw in response:
            line = raw.decode().strip()
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:") and name in ("complete", "error"):
                if name == "error":
                    raise UserError(f"/{endpoint}: {line.removeprefix('data:').strip()}")
                return json.loads(line.removeprefix("data:"))
    raise UserError(f"/{endpoint} gave no answer")


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """The last boot's seconds."""
    line, settings = units[-1], head["settings"]
    where = f"{settings['threads']} threads" + (", clean environment" if settings["clean"] else "")
    figures = (
        Figure(f"boot to the page ({where})", f"{line['page']:.1f} s"),
        Figure("boot to the first picture", f"{line['picture']:.1f} s"),
        Figure("boot to the first answer", f"{line['answer']:.1f} s"),
        Figure("a first query, picture included", f"{line['first_query']:.1f} s"),
        Figure("a warm query, picture included", f"{line['second_query']:.1f} s"),
        Figure("peak memory of the page", f"{line['peak_mib']:,.0f} MiB"),
    )
    return Summary(figures, notes=(f"{len(units)} boots measured; the last is shown.",))
