"""`python app.py`: what it refuses, in one line, with exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.launch import BAD_INPUT, arguments, main, private
from tests.app.conftest import free_port

ROOT = Path(__file__).parents[2]


def test_a_missing_index_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--index", str(tmp_path / "nowhere")]) == BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1 and "nowhere" in captured.err


def test_the_launcher_itself_exits_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "app.py", "--index", str(tmp_path / "nowhere"), "--device", "cpu"]
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


def test_a_wrong_device_is_refused() -> None:
    with pytest.raises(SystemExit) as stop:
        arguments(["--device", "abacus"])
    assert stop.value.code == 2


def test_nothing_is_shared_or_kept() -> None:
    settings = private(None)  # type: ignore[arg-type]  the route asks the engine only when called
    assert settings["strict_cors"] and settings["allowed_paths"] == []
    assert not any(settings[name] for name in ("share", "run_history", "enable_monitoring", "pwa"))
    assert settings["max_file_size"]


def test_analytics_are_off_in_the_launcher() -> None:
    source = (ROOT / "app.py").read_text(encoding="utf-8")
    assert 'os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"' in source
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
