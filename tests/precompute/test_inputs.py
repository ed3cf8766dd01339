"""Training sets of every kind become the same records; bad ones are refused in one line that names
the place.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from attribution.index import Index
from precompute.__main__ import main
from precompute.sources import open_source
from tests.precompute.worlds import SMALL, image_folder, make_index, parquet_set, png, tiny_clip
from tests.tiny import tiny_captions, tiny_images, tiny_pipeline


def _dataset(out: Path, model: Path, data: Path, *more: str) -> int:
    return main(
        ["dataset", "--model", str(model), "--data", str(data), "--out", str(out), *SMALL, *more]
    )


def _records(out: Path) -> list[dict]:
    return [
        row
        for p in sorted(out.glob("shards/*/records.parquet"))
        for row in pq.read_table(p).to_pylist()
    ]


def test_image_folder(tmp_path, tiny_model):
    assert (
        _dataset(tmp_path / "out", tiny_model, image_folder(tmp_path / "data", 7, captions=2)) == 0
    )
    records = _records(tmp_path / "out")
    assert [len(list(p.glob("*"))) for p in sorted((tmp_path / "out/shards").glob("*"))] == [2, 2]
    assert records[3]["id"] == "pictures/03.png" and records[3]["captions"] == [
        "gk by 6",
        "hk by 0",
    ]
    assert (records[3]["width"], records[3]["height"]) == (24, 19)
    assert records[3]["image"] == (tmp_path / "data/pictures/03.png").read_bytes()
    assert records[3]["display"][8:12] == b"WEBP"
    assert [r["split"] for r in records] == ["train"] * 5 + ["held-out"] * 2


def test_linked_images(tmp_path, tiny_model):
    data = image_folder(tmp_path / "data", 3, held_out=0)
    assert _dataset(tmp_path / "out", tiny_model, data, "--link-images") == 0
    assert _records(tmp_path / "out")[1]["image"] == str(data / "pictures/01.png")


@pytest.mark.parametrize("nested", [False, True])
def test_parquet(tmp_path, tiny_model, nested):
    data = parquet_set(tmp_path / "data/train.parquet", 7, nested=nested)
    assert _dataset(tmp_path / "out", tiny_model, data.parent) == 0
    records = _records(tmp_path / "out")
    assert [r["captions"][0] for r in records] == tiny_captions(7)
    assert records[6]["id"] == ("6.png" if nested else "train-0000006")
    assert records[6]["split"] == "train" and records[6]["artists"] == []


def test_parquet_of_paths(tmp_path, tiny_model):
    tiny_images(1)[0].save(tmp_path / "a.png")
    pq.write_table(pa.table({"file_name": ["a.png"], "text": ["a"]}), tmp_path / "x.parquet")
    assert _dataset(tmp_path / "out", tiny_model, tmp_path / "x.parquet") == 0
    assert _records(tmp_path / "out")[0]["image"] == (tmp_path / "a.png").read_bytes()


def test_csv_and_split_folders(tmp_path):
    for split in ("test", "train"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "metadata.csv").write_text(
            f'file_name,captions,split\na.png,"[""x"", ""y""]",{split}\n'
        )
    rows = list(open_source(tmp_path).rows(0))
    assert [row.fields["id"] for row in rows] == ["test/a.png", "train/a.png"]
    assert [row.fields["split"] for row in rows] == ["held-out", "train"]
    assert rows[0].fields["captions"] == ["x", "y"]


@pytest.mark.parametrize("start", [0, 1, 3, 5, 6, 7])
def test_sources_stream_from_any_row(tmp_path, start):
    for source in (
        open_source(image_folder(tmp_path / "folder", 7)),
        open_source(parquet_set(tmp_path / "set" / "a.parquet", 7)),
    ):
        rows = list(source.rows(0))
        assert source.total == len(rows) == 7
        assert [r.origin for r in source.rows(start)] == [r.origin for r in rows[start:]]


def test_an_index_keeps_the_fields_of_its_own_records(tmp_path, tiny_model):
    """The embedded data set's columns pass through; an index serves as a training set itself."""
    full = {
        "id": "flag-1",
        "title": "Flag",
        "category": "flags",
        "split": "held-out",
        "source": "oca",
        "licence": "PD",
    }
    box = [{"id": "a", "box": [0.0, 1.0, 2.0, 3.0]}]
    row = full | {
        "image": png(tiny_images(1)[0]),
        "display": b"ready",
        "captions": ["a flag"],
        "artists": ["N. N."],
    }
    row |= {"parts": box, "width": 192, "height": 192}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "records.parquet")
    assert _dataset(tmp_path / "one", tiny_model, tmp_path / "records.parquet") == 0
    assert _dataset(tmp_path / "two", tiny_model, tmp_path / "one") == 0
    assert _records(tmp_path / "one") == _records(tmp_path / "two") == [row]


def test_records_take_the_place_of_their_source(tmp_path, tiny_model):
    """An index in the folder of its own data set can be resumed and remade after the set's file is
    gone.
    """
    out = tmp_path / "world"
    source = parquet_set(out / "records.parquet", 6)
    make_index(out, tiny_model, out)
    source.unlink()
    shards = [p.read_bytes() for p in sorted(out.glob("shards/*/records.parquet"))]
    common = ["--out", str(out), "--batch-size", "8"]
    assert main(["index", *common, "--data", str(out)]) == 0
    assert main(["index", *common, "--gradient-dim", "8", "--rebuild"]) == 0
    assert Index.open(out).rows("gradients").shape == (6, 2, 8)
    assert shards == [p.read_bytes() for p in sorted(out.glob("shards/*/records.parquet"))]


# ---------------------------------------------------------------------- refusals


def _line(capsys) -> str:
    """The one line of the refusal; tqdm's bars before it end in carriage returns."""
    return capsys.readouterr().err.strip().splitlines()[-1]


def _broken(folder: Path, **change: object) -> Path:
    image_folder(folder, 3, held_out=0)
    path = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1] = {k: v for k, v in (rows[1] | change).items() if v is not None}
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_name": "gone.png"}, "metadata.jsonl:2: no such image"),
        ({"file_name": "../secret.png"}, "metadata.jsonl:2: ../secret.png lies outside"),
        ({"file_name": None}, "metadata.jsonl:2 has no file_name"),
        ({"text": None}, "metadata.jsonl:2 has no caption"),
        ({"id": "pictures/00.png"}, "two records share an id: rows 0 and 1"),
    ],
)
def test_bad_rows_are_named(tmp_path, tiny_model, capsys, change, message):
    assert _dataset(tmp_path / "out", tiny_model, _broken(tmp_path / "data", **change)) == 2
    assert message in _line(capsys)


def test_unreadable_images_can_be_skipped(tmp_path, tiny_model, capsys):
    data = image_folder(tmp_path / "data", 7, held_out=0)
    for number in (2, 5):
        (data / f"pictures/{number:02d}.png").write_bytes(b"not an image")
    assert _dataset(tmp_path / "out", tiny_model, data) == 2
    assert "metadata.jsonl:3: not an image" in _line(capsys)
    assert _dataset(tmp_path / "skip", tiny_model, data, "--skip-bad") == 0
    assert [r["id"][9:11] for r in _records(tmp_path / "skip")] == ["00", "01", "03", "04", "06"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "no training set at nowhere"),
        (["--model", "nowhere"], "no model at nowhere: expected a folder or a hub id"),
        (["--device", "gpu"], "device 'gpu': choose auto, cpu or cuda"),
        (["--shard-size", "0"], "--shard-size 0: at least 1"),
        (["--timestep-stride", "5000"], "--timestep-stride 5000"),
    ],
)
def test_bad_arguments(tmp_path, tiny_model, capsys, arguments, message):
    data = image_folder(tmp_path / "data", 2, held_out=0)
    assert _dataset(tmp_path / "out", tiny_model, data, *arguments) == 2
    assert message in _line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index"], "precompute index: the following arguments are required: --out (see --help)"),
        (["losses", "--out", "x", "--seed", "a"], "argument --seed: invalid int value: 'a'"),
        (["variants", "--out", "x", "--objective", "b"], "argument --objective: invalid choice"),
        (["recipe", "openclipart", "--what"], "precompute recipe: "),
    ],
)
def test_what_cannot_be_parsed_is_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


@pytest.mark.parametrize("size", [None, [8, 16]])
def test_a_model_without_one_square_size_is_refused(tmp_path, tiny_model, capsys, size):
    """As Denoiser.load refuses it: before anything is written."""
    model = shutil.copytree(tiny_model, tmp_path / "model")
    config = model / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": size}))
    data = image_folder(tmp_path / "data", 2, held_out=0)
    assert _dataset(tmp_path / "out", model, data) == 2
    assert f"sample_size is {size}; only a square one" in _line(capsys)
    assert not (tmp_path / "out").exists()


def test_beginning_needs_model_and_data(tmp_path, capsys):
    assert main(["index", "--out", str(tmp_path / "out")]) == 2
    assert "--model is needed to begin an index" in _line(capsys)


def test_other_settings_are_refused_with_both_sides(tmp_path, tiny_model, capsys):
    data = image_folder(tmp_path / "data", 4, held_out=0)
    assert _dataset(tmp_path / "out", tiny_model, data) == 0
    assert main(["losses", "--out", str(tmp_path / "out"), "--seed", "7"]) == 2
    assert "noise.seed: begun with 0, now 7" in _line(capsys)
    assert _dataset(tmp_path / "out", tiny_model, parquet_set(tmp_path / "p.parquet", 4)) == 2
    assert "dataset.sha256: begun with" in _line(capsys)
    assert _dataset(tmp_path / "out", tiny_model, tmp_path / "p.parquet", "--rebuild") == 0
    assert [r["id"] for r in _records(tmp_path / "out")] == [f"p-000000{i}" for i in range(4)]


def test_an_index_without_clip_has_no_clip_rows(tmp_path, tiny_model):
    out = make_index(tmp_path / "out", tiny_model, image_folder(tmp_path / "data", 3, held_out=0))
    index = Index.open(out)
    assert index.clip_path is None and not index.has_rows("clip")
    clip = tiny_clip(tmp_path / "clip")
    assert main(["index", "--out", str(out), "--clip", str(clip), "--batch-size", "8"]) == 2
    assert (
        main(["index", "--out", str(out), "--clip", str(clip), "--rebuild", "--batch-size", "8"])
        == 0
    )
    assert Index.open(out).rows("clip").shape == (3, 2, 12)


def test_usage(capsys):
    assert main([]) == 2 and "verbs:" in capsys.readouterr().err
    assert main(["--help"]) == 0 and "gradients" in capsys.readouterr().out
    assert main(["dance"]) == 2 and "no verb 'dance'" in capsys.readouterr().err


def test_another_model_is_refused_with_both_sides(tmp_path, tiny_model, capsys):
    data = image_folder(tmp_path / "data", 2, held_out=0)
    assert _dataset(tmp_path / "out", tiny_model, data) == 0
    tiny_pipeline("v_prediction", seed=1).save_pretrained(tmp_path / "other")
    assert main(["losses", "--out", str(tmp_path / "out"), "--model", str(tmp_path / "other")]) == 2
    assert "pipeline.sha256: begun with " in _line(capsys)
