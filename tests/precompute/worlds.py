"""Tiny training sets and a tiny CLIP on disk, for tests that make whole indexes."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)

from attribution import layout
from attribution.index import Index
from precompute.__main__ import main
from tests.tiny import RESOLUTION, TOKENS, tiny_captions, tiny_images, tiny_tokenizer

# Arguments that make a tiny index quickly; nothing in them depends on a test.
SMALL = (
    *("--device", "cpu", "--batch-size", "8", "--shard-size", "5", "--timestep-stride", "250"),
    *("--gradient-dim", "16", "--gradient-timesteps", "2"),
)


def image_folder(
    folder: Path, count: int = 12, *, captions: int = 1, held_out: int = 2, side: int = 16
) -> Path:
    """An imagefolder of PNGs, `side` px and more, with metadata.jsonl, the last `held_out` of them
    held out.
    """
    (folder / "pictures").mkdir(parents=True)
    texts = tiny_captions(count * captions)
    lines = []
    for i, image in enumerate(tiny_images(count)):
        name = f"pictures/{i:02d}.png"
        image.resize((side + 8, side + i)).save(folder / name)
        own = texts[i * captions : (i + 1) * captions][: 1 + i % captions]
        row = {"file_name": name, "artists": [f"artist {i % 3}"]}
        row |= {"captions": own} if captions > 1 else {"text": own[0]}
        row |= {"split": "held-out"} if i >= count - held_out else {}
        lines.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def png(image) -> bytes:
    """A PIL image as PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def parquet_set(path: Path, count: int = 7, *, nested: bool = False) -> Path:
    """Parquet with image bytes (or the hub's {bytes, path}) and captions."""
    images = [png(image) for image in tiny_images(count)]
    column = [{"bytes": b, "path": f"{i}.png"} for i, b in enumerate(images)] if nested else images
    table = pa.table({"image": column, "caption": tiny_captions(count)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=3)
    return path


def tiny_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIPModel with one layer a tower, 16 px, 12 dimensions, and its tokenizer."""
    tokenizer = tiny_tokenizer()
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    tokens = {"vocab_size": len(tokenizer), "max_position_embeddings": TOKENS}
    special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config=tower | tokens | special,
        vision_config=tower | {"image_size": RESOLUTION, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_index(out: Path, model: Path, data: Path, *more: str) -> Path:
    """A whole index by the command itself, in this process."""
    code = main(
        ["index", "--model", str(model), "--data", str(data), "--out", str(out), *SMALL, *more]
    )
    assert code == 0
    return out


def hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Callable[[str, Path], str]:
    """A hub out of reach with a cache at `cache`: publish(hub id, folder) puts a folder there as
    the newest revision, and returns that."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def publish(hub_id: str, folder: Path) -> str:
        place = cache / f"models--{hub_id.replace('/', '--')}"
        revision = f"{len(list(place.glob('snapshots/*'))):040x}"
        shutil.copytree(folder, place / "snapshots" / revision)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / "main").write_text(revision)
        return revision

    return publish


def tree(root: Path) -> dict[str, bytes]:
    """Every file below `root`, but for what making them took; the manifest without the git
    revision, which may change while a test runs.
    """
    files = {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
    manifest = json.loads(files["manifest.json"])
    manifest["environment"].pop("git_revision")
    files = {name: data for name, data in files.items() if not name.startswith(layout.TIMINGS)}
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def tiny_vit(folder: Path, seed: int = 0) -> Path:
    """A ViTModel of DINO's kind: 16 px, patches of 8, 12 dimensions."""
    config = ViTConfig(**_TOWER, image_size=RESOLUTION, patch_size=8)
    return _saved(lambda: ViTModel(config, add_pooling_layer=False), folder, seed)


def tiny_dinov2(folder: Path, seed: int = 0) -> Path:
    """A Dinov2WithRegistersModel: 16 px, patches of 8, 12 dimensions, two registers."""
    config = Dinov2WithRegistersConfig(
        hidden_size=12, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=2,
        num_register_tokens=2, image_size=RESOLUTION, patch_size=8,
    )  # fmt: skip
    return _saved(lambda: Dinov2WithRegistersModel(config), folder, seed)


_TOWER = {
    "hidden_size": 12,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def _saved(make, folder: Path, seed: int) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make().save_pretrained(folder)
    return folder


def saved_curvature(index: Index, kind: str) -> dict[str, torch.Tensor]:
    """An index's own curvature, "diagonal" or "ekfac", as it lies on the disk."""
    name = {"diagonal": layout.FISHER_DIAGONAL, "ekfac": layout.EKFAC}[kind]
    return load_file(index.path / layout.CURVATURE / name)
