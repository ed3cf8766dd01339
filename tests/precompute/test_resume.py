"""A run killed with SIGKILL at any moment resumes to the bytes of a run that was not."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from attribution.index import Index
from attribution.types import UserError
from precompute.__main__ import main
from tests.precompute.worlds import SMALL, image_folder, make_index, tree

# Each run is killed when the file appears that stands for its step; the next one resumes.
KILLS = (
    "shards/00001/records.parquet",
    "shards/00001/latents.npy",
    "shards/00000/base_loss.npy",
    "curvature/partial/00001/first.safetensors",
    "curvature/partial/00000/second.safetensors",
    "shards/00001/rows/gradients.npy",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return image_folder(tmp_path_factory.mktemp("data"), 12, captions=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model, data) -> Path:
    return make_index(tmp_path_factory.mktemp("whole") / "index", tiny_model, data)


def _run_until(file: Path, arguments: list[str]) -> None:
    """Run the command in a process of its own and kill it, without a chance to clean up, once
    `file` is there.
    """
    process = multiprocessing.get_context("fork").Process(target=main, args=(arguments,))
    process.start()
    deadline = time.monotonic() + 60
    while not file.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert file.exists()


def test_a_killed_run_resumes_to_the_same_bytes(tmp_path, tiny_model, data, whole):
    out = tmp_path / "index"
    arguments = ["index", "--out", str(out)]
    begin = [*arguments, "--model", str(tiny_model), "--data", str(data), *SMALL]
    for number, file in enumerate(KILLS):
        _run_until(
            out / file,
            begin if number == 0 else arguments,
        )
        with pytest.raises(UserError, match="not finished; `python -m precompute index --out"):
            Index.open(out)
    assert main(arguments) == 0
    assert tree(out) == tree(whole)
    Index.open(out, verify="full")


def test_half_written_files_are_swept(tmp_path, whole):
    out = Path(shutil.copytree(whole, tmp_path / "index"))
    (out / "shards/00000/latents.npy").unlink()
    (out / "shards/00000/latents.npy.part").write_bytes(b"half")
    assert main(["index", "--out", str(out)]) == 0
    assert tree(out) == tree(whole)


def test_a_finished_index_is_left_alone(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert main(["index", "--out", str(whole)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "file",
    [
        *("shards/00001/base_loss.npy", "shards/00002/records.parquet", "shards/00000/done.json"),
        *("curvature/ekfac.safetensors", "curvature/done.json"),
    ],
)
def test_the_same_command_mends_a_flipped_byte(tmp_path, data, whole, file):
    out = Path(shutil.copytree(whole, tmp_path / "index"))
    content = bytearray((out / file).read_bytes())
    content[-5] ^= 1
    (out / file).write_bytes(content)
    assert main(["index", "--out", str(out), "--data", str(data)]) == 0
    assert tree(out) == tree(whole)
