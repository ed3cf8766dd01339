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
        (("--seed", "x"), "seed has to be a whole number from 0 to 4294967295, not x"),
        (("--seed=--5",), "seed has to be a whole number from 0 to 4294967295, not --5"),
        (("--seed", "1", "--top-k", "0"), "top-k"),
        (("--seed", "1", "--top-k", "11"), "from 1 to 10"),
        (("--seed", "1", "--method", "nope"), "nope"),
        (("--seed", "1", "--method", "abu,trak"), "trak"),
        (("--seed", "1", "--region", "0,0,4"), "region"),
        (("--seed", "1", "--region", "0,0,4,4", "--called", "o" * 1001), "has 1,001 characters"),
        (("--seed", "1", "--called", "a sign"), "no region to be called 'a sign'"),
        (("--seed", "1", "--threshold", "0.5"), "--threshold goes with --detect"),
        (("--seed", "1", "--detector", "attention"), "--detector goes with --detect"),
        (("--seed", "1", "--region", "99,0,120,4"), "outside the picture of 16 x 16 px"),
        (("--seed", "1", "--region", "8,0,2,4"), "its left has to be below its right"),
        (("--seed", "1", "--region", "0,0,nan,4"), "pixels, not 0,0,nan,4"),
        (("--seed", "1", "--region", "a,b,c,d"), "pixels, not a,b,c,d"),
        (("--seed", "1", "--region", "0,0,8,4", "--region", ""), "pixels, not ''"),
        (("--seed", "1", "--mask", "absent.png"), "no such image"),
        (("--seed", "1", "--device", "tpu"), "tpu"),
        (("--image", "absent.png"), "no such image"),
        (("--seed", "1", "--nonsense"), "nonsense"),
    ],
)
def test_bad_arguments(refused, arguments, words) -> None:
    assert words in refused(*arguments)


def test_what_an_index_lacks_comes_with_a_command_to_paste(refused, tiny_index) -> None:
    line = refused("--seed", "1", "--method", "trak")
    assert f"`python -m precompute trak --out {tiny_index}`" in line


def test_bad_prompts(refused) -> None:
    assert "empty" in refused("--seed", "1", prompt=" \n ")
    assert "limit" in refused("--seed", "1", prompt="x" * 2000)


def test_bad_images(refused, tmp_path) -> None:
    path = tmp_path / "a.png"
    for content in (b"", b"words", picture(tmp_path / "b.png").read_bytes()[:200]):
        path.write_bytes(content)
        refused("--image", str(path))


def test_bad_masks(refused, tmp_path) -> None:
    mask = tmp_path / "mask.png"
    Image.new("L", (20, 16), "white").save(mask)
    assert "mask is 20 x 16" in refused("--seed", "1", "--mask", str(mask))
    Image.new("L", (16, 16), 9).save(mask)
    assert "paint the region white" in refused("--seed", "1", "--mask", str(mask))
    mask.write_bytes(b"words")
    assert "not an image" in refused("--seed", "1", "--mask", str(mask))


def test_regions_and_a_mask_of_other_size(ask, tmp_path) -> None:
    mask = Image.new("L", (32, 32))
    mask.paste(255, (20, 20, 28, 24))
    mask.save(tmp_path / "mask.png")
    boxes = ("--region", "0,0,99,4", "--region", " 1, 8.5,3,9", "--called", " bo  by 1")
    code, _, err = ask(
        *("--image", str(picture(tmp_path / "mine.png")), "--method", "abu,pixel", "--top-k", "2"),
        *(*boxes, "--mask", str(tmp_path / "mask.png")),
    )
    assert code == 0 and err == ""
    folder = tmp_path / "answer"
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    check_result(result, top_k=2)
    free = {"box": [10.0, 10.0, 14.0, 12.0], "mask": "region_3.png"}
    assert result["query"]["regions"] == [[0.0, 0.0, 16.0, 4.0], [1.0, 8.5, 3.0, 9.0], free]
    assert result["query"]["called"] == "bo by 1"
    assert Image.open(folder / "region_3.png").getbbox() == (10, 10, 14, 12)
    assert [m["params"]["region"] for m in result["methods"]] == ["loss", "crop"]


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
