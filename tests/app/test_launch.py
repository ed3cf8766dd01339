"""`python app.py`: what it refuses, in one line, with exit code 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.launch import BAD_INPUT, arguments, check_address, main, private
from tests.app.conftest import free_port

ROOT = Path(__file__).parents[2]


def test_a_missing_index_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--index", str(tmp_path / "nowhere"), "--port", str(free_port())]) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and "nowhere" in captured.err


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (("--port", "99999"), "--port has to be a whole number from 1 to 65535, not 99999"),
        (("--port", "-5"), "not -5"),
        (("--port", "0"), "not 0"),
        (("--host", "999.9.9.9"), "--host 999.9.9.9 is no address of this machine"),
        (("--host", "192.0.2.1"), "--host 192.0.2.1 is no address of this machine"),
        (("--host", "x" * 70), "is no address of this machine"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: tuple[str, str], words: str
) -> None:
    index = ("--index", str(tmp_path / "nowhere"))  # not even looked at
    assert main([*index, "--port", str(free_port()), *address]) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and words in captured.err


def test_a_port_in_use_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            options = ("--index", str(tmp_path), "--host", host, "--port", str(port))
            assert main(options) == BAD_INPUT
            line = f"port {port} is in use: give another --port, or end what listens there"
            assert capsys.readouterr().err == f"app.py: {line}\n"
    check_address("127.0.0.1", port)


def test_the_launcher_itself_exits_with_2(tmp_path: Path) -> None:
    options = ["--index", str(tmp_path / "nowhere"), "--device", "cpu", "--port", str(free_port())]
    command = [sys.executable, "app.py", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0 and "Traceback" not in done.stderr


def test_a_server_that_is_told_to_end_leaves_no_folder(tiny_index: Path, tmp_path: Path) -> None:
    """SIGTERM, as service managers and Spaces send it: an orderly end."""
    options = ["--index", str(tiny_index), "--device", "cpu", "--port", str(free_port())]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("GRADIO_TEMP_DIR", None)
    server = subprocess.Popen(
        [sys.executable, "app.py", *options],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    assert "http://127.0.0.1" in server.stdout.readline()
    assert [path.name for path in tmp_path.glob("whence-*")]
    server.terminate()
    _, said = server.communicate(timeout=60)
    assert server.returncode == 0 and "Traceback" not in said
    assert not list(tmp_path.glob("whence-*"))


def test_the_contract_s_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACE_ID", raising=False)
    options = arguments([])
    assert (options.host, options.port, options.device) == ("127.0.0.1", 7860, "auto")
    assert options.index.name == "openclipart"
    monkeypatch.setenv("SPACE_ID", "someone/whence")
    assert arguments([]).host == "0.0.0.0"


@pytest.mark.parametrize("wrong", [["--device", "abacus"], ["--port", "high"], ["--colour", "red"]])
def test_wrong_arguments_are_refused_in_a_line(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(wrong) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("app.py: ") and wrong[0] in line


def test_nothing_is_shared_or_kept() -> None:
    settings = private(None)  # type: ignore[arg-type]  the route asks the engine only when called
    assert settings["strict_cors"] and settings["allowed_paths"] == []
    assert not any(settings[name] for name in ("share", "run_history", "enable_monitoring", "pwa"))
    assert settings["max_file_size"]


def test_analytics_are_off_in_the_launcher() -> None:
    source = (ROOT / "app.py").read_text(encoding="utf-8")
    assert 'os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"' in source
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
