"""Arguments that the index's verbs share. None means: what the index was begun with, else the
default.
"""

from __future__ import annotations

import argparse
from pathlib import Path

DEFAULTS: dict[str, object] = {
    "shard_size": 512,
    "max_captions": 5,
    "seed": 0,
    "timestep_stride": 100,
    "weights": "kv",
    "gradient_dim": 2048,
    "gradient_timesteps": 4,
}


def add_common(parser: argparse.ArgumentParser) -> None:
    """What every verb of an index takes."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the index")
    parser.add_argument(
        "--model", metavar="DIR_OR_HUB_ID", help="a diffusers text-to-image pipeline"
    )
    parser.add_argument("--revision", help="the hub model's revision")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="image folder or Parquet with captions"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--batch-size", type=int, help="samples of one forward (default: by device)"
    )
    parser.add_argument("--rebuild", action="store_true", help="remake what other settings made")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Settings that the bytes depend on; they are kept in the manifest."""
    default = {name: f"default {value}" for name, value in DEFAULTS.items()}
    parser.add_argument("--shard-size", type=int, help=f"records a shard; {default['shard_size']}")
    parser.add_argument(
        "--max-captions", type=int, help=f"captions kept a record; {default['max_captions']}"
    )
    parser.add_argument(
        "--seed", type=int, help=f"of the noise and the projection; {default['seed']}"
    )
    parser.add_argument(
        "--timestep-stride", type=int, help=f"of the loss grid; {default['timestep_stride']}"
    )
    parser.add_argument("--weights", help=f"weight set of the curvature; {default['weights']}")
    parser.add_argument(
        "--gradient-dim", type=int, help=f"numbers a row; {default['gradient_dim']}"
    )
    parser.add_argument(
        "--gradient-timesteps", type=int, help=f"a row; {default['gradient_timesteps']}"
    )
    parser.add_argument(
        "--clip",
        metavar="DIR_OR_HUB_ID",
        help="CLIP for features (default: clip/ beside the model)",
    )
    parser.add_argument(
        "--link-images", action="store_true", default=None, help="keep paths, not image bytes"
    )
    parser.add_argument(
        "--skip-bad", action="store_true", default=None, help="leave out unreadable images"
    )
    parser.add_argument("--dataset-id", help="what the manifest calls the training set")
    parser.add_argument("--dataset-revision")
    parser.add_argument("--licence")
