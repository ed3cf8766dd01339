"""`python -m attribution`: the contract's files, or exit 2 with one line and nothing written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attribution.__main__ import main
from tests.attribution.answers import check_result
from tests.tiny import tiny_images

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ask(tiny_index, tmp_path, capsys):
    """Run the command in this process: (exit code, stdout, stderr)."""

    def run(*more: str, out: str = "answer", index: Path = tiny_index, prompt: str = "ak by 0"):
        arguments = ["--index", str(index), "--prompt", prompt, "--device", "cpu", *more]
        code = main([*arguments, "--out", str(tmp_path / out)])
        done = capsys.readouterr()
        return code, done.out, done.err

    return run


@pytest.fixture
def refused(ask, tmp_path):
    """Run with bad input: exit 2, one line, nothing left behind."""

    def run(*more: str, **options) -> str:
        before = sorted(tmp_path.iterdir())
        code, out, err = ask(*more, **options)
        assert code == 2 and out == ""
        assert err.count("\n") == 1 and err.endswith("\n") and "Traceback" not in err
        assert sorted(tmp_path.iterdir()) == before
        return err

    return run


def picture(path: Path, size: int = 16) -> Path:
    tiny_images(1)[0].resize((size, size)).save(path)
    return path


def test_the_whole_contract_from_an_image(ask, tmp_path, engine) -> None:
    image = picture(tmp_path / "mine.png", 40)
    code, out, err = ask(
        *("--image", str(image), "--method", "abu,clip", "--top-k", "3", "--scores", "--exhaustive")
    )
    folder = tmp_path / "answer"
    assert code == 0 and err == "" and out.strip() == str(folder / "result.json")
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    check_result(result, top_k=3)
    assert [m["name"] for m in result["methods"]] == ["abu", "clip"]
    assert result["query"]["seed"] is None and result["query"]["prompt"] == "ak by 0"
    assert Image.open(folder / "query.png").size == (40, 40)
    for method in result["methods"]:
        assert len(method["results"]) == 3
        assert all((folder / row["file"]).is_file() for row in method["results"])
        scores = np.load(folder / f"scores_{method['name']}.npy", allow_pickle=False)
        assert scores.dtype == np.float32 and scores.shape == (engine.n_records,)
        rows = [engine.index.row_of(row["record"]) for row in method["results"]]
        wanted = [row["score"] for row in method["results"]]
        assert scores[rows] == pytest.approx(wanted)
    held_out = engine.index.held_out_rows
    assert np.isnan(np.load(folder / "scores_abu.npy")[held_out]).all()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_program_of_its_own_generates_from_a_seed(tiny_index, tmp_path) -> None:
    command = [sys.executable, "-m", "attribution", "--index", str(tiny_index), "--seed", "5"]
    command += ["--prompt", "🍦 ak", "--top-k", "2", "--device", "cpu"]
    command += ["--out", str(tmp_path / "a")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads((tmp_path / "a" / "result.json").read_text(encoding="utf-8"))
    check_result(result, top_k=2)
    assert result["query"]["seed"] == 5
    assert (result["query"]["steps"], result["query"]["guidance"]) == (4, 2.0)  # the model's advice
    assert not list((tmp_path / "a").glob("scores_*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--seed --image"),
        (("--seed", "-1"), "seed"),
        (("--seed", str(2**32)), "seed"),
        (("--seed", "1", "--image", "x.png"), "not allowed with"),
        (("--seed", "x"), "seed"),
        (("--seed", "1", "--top-k", "0"), "top-k"),
        (("--seed", "1", "--top-k", "11"), "from 1 to 10"),
        (("--seed", "1", "--method", "nope"), "nope"),
        (("--seed", "1", "--method", "abu,trak"), "trak"),
        (("--seed", "1", "--region", "0,0,4"), "region"),
        (("--seed", "1", "--region", "0,0,99,4"), "region"),
        (("--seed", "1", "--region", "0,0,8,4"), "not available yet"),
        (("--seed", "1", "--mask", "absent.png"), "no such image"),
        (("--seed", "1", "--device", "tpu"), "tpu"),
        (("--image", "absent.png"), "no such image"),
        (("--seed", "1", "--nonsense"), "nonsense"),
    ],
)
def test_bad_arguments(refused, arguments, words) -> None:
    assert words in refused(*arguments)


def test_bad_prompts(refused) -> None:
    assert "empty" in refused("--seed", "1", prompt=" \n ")
    assert "limit" in refused("--seed", "1", prompt="x" * 2000)


def test_bad_images(refused, tmp_path) -> None:
    path = tmp_path / "a.png"
    for content in (b"", b"words", picture(tmp_path / "b.png").read_bytes()[:200]):
        path.write_bytes(content)
        refused("--image", str(path))


def test_mask_is_checked_before_it_is_declined(refused, tmp_path) -> None:
    mask = picture(tmp_path / "mask.png", 16)
    assert "not available yet" in refused("--seed", "1", "--mask", str(mask))
    assert "mask is 20 x 20" in refused("--seed", "1", "--mask", str(picture(mask, 20)))


def test_missing_or_partial_index(refused, tiny_index, tmp_path) -> None:
    assert "no index" in refused("--seed", "1", index=tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "manifest.json" in refused("--seed", "1", index=tmp_path / "empty")
    for damage in ("shards/00001/base_loss.npy", "model/unet/config.json", "manifest.json"):
        copy = tmp_path / damage.replace("/", "-")
        shutil.copytree(tiny_index, copy)
        path = copy / damage
        path.write_bytes(path.read_bytes()[:-20])
        assert Path(damage).name in refused("--seed", "1", index=copy)
        path.unlink()
        refused("--seed", "1", index=copy)


def test_an_existing_answer_is_not_overwritten(refused, tmp_path) -> None:
    (tmp_path / "answer").mkdir()
    (tmp_path / "answer" / "mine.txt").write_text("precious")
    assert "not empty" in refused("--seed", "1")
    (tmp_path / "file").write_text("precious")
    assert "not a folder" in refused("--seed", "1", out="file")
    assert (tmp_path / "answer" / "mine.txt").read_text() == "precious"


def test_help(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0 and "--exhaustive" in capsys.readouterr().out
