"""`make assets` on a tiny world, and the table of bytes."""

from __future__ import annotations

import shutil

from attribution.index import Index
from attribution.methods.needs import curvature_path
from precompute import byte_table
from precompute.__main__ import main
from tests.precompute.worlds import parquet_set, tiny_clip, tiny_vit
from tests.tiny import tiny_pipeline


def test_assets_follow_the_model(tmp_path, tiny_model, capsys):
    root = tmp_path / "assets"
    world = root / "openclipart"
    parquet_set(world / "records.parquet", 3)
    assert main(["assets", "--root", str(root)]) == 2
    assert "no model in" in capsys.readouterr().err
    shutil.copytree(tiny_model, world / "model")
    tiny_clip(world / "clip")
    tiny_vit(world / "encoders" / "dino")
    arguments = ["assets", "--root", str(root), "--no-examples", "--device", "cpu"]
    assert main(arguments) == 0
    before = Index.open(world)
    tiny_pipeline("v_prediction", seed=1).save_pretrained(world / "model")
    assert main(arguments) == 0
    after = Index.open(world)
    assert after.index_hash != before.index_hash
    assert after.manifest["dataset"]["id"] == "openclipart-0.18" and after.has_rows("clip")
    assert after.has_rows("dino") and not after.has_rows("dinov2")
    assert after.has_rows("trak") and after.has_rows("dtrak")
    assert curvature_path(after, "kfac", "attn", "loss") is not None
    assert "| openclipart/shards/*/latents.npy | " in capsys.readouterr().out


def test_the_proof_world_has_short_rows_and_no_examples(tmp_path, tiny_model, capsys):
    root = tmp_path / "assets"
    assert main(["assets", "--root", str(root)]) == 2
    assert "none of openclipart, proof" in capsys.readouterr().err
    world = root / "proof"
    parquet_set(world / "records.parquet", 3)
    shutil.copytree(tiny_model, world / "model")
    assert main(["assets", "--root", str(root), "--device", "cpu"]) == 0
    index = Index.open(world)
    assert index.rows("gradients").shape[-1] == 64
    assert index.extra("trak")["dim"] == index.extra("dtrak")["dim"] == 192
    assert not (world / "examples").exists()


def test_byte_table_sums_up(tmp_path):
    for name, size in (
        ("a/shards/00000/x.npy", 3),
        ("a/shards/00001/x.npy", 4),
        ("a/m/n/o.bin", 5),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert byte_table.weights(tmp_path) == {"a/shards/*/x.npy": 7, "a/m/n/": 5}
    assert "| **all** | **12** |" in byte_table.table(tmp_path)


def test_no_folder(tmp_path, capsys):
    assert main(["bytes", "--root", str(tmp_path / "nowhere")]) == 2
    assert "no folder" in capsys.readouterr().err
