"""Every file name of an index, defined once (contract: ARCHITECTURE.md, "The index on disk")."""

from __future__ import annotations

FORMAT_VERSION = 1

MANIFEST = "manifest.json"
MODEL = "model"
SHARDS = "shards"
RECORDS = "records.parquet"
LATENTS = "latents.npy"
BASE_LOSS = "base_loss.npy"
BASE_LOSS_EPS2 = "base_loss_eps2.npy"
ROWS = "rows"
DONE = "done.json"
# Steps beside the core ones, of the index and of each shard; extra encoders.
EXTRAS = "extras.json"
ENCODERS = "encoders"
EXTRA_FILES = "extras"
CORE_STEPS = ("dataset", "latents", "features", "losses", "gradients")
# The core step of the whole index; its folder has a done.json like a shard's.
FISHER_STEP = "fisher"
CURVATURE = "curvature"
FISHER_DIAGONAL = "fisher_diagonal.safetensors"
EKFAC = "ekfac.safetensors"
SEARCH = "search"
EXAMPLES = "examples"
PROOFS = "proofs"
CONTROLS = "controls"
# What making the index took: {step: {"seconds", "records"}}; vouched for by nothing.
TIMINGS = "timings.json"
# How each network was trained, beside the weights; the UNet's record: what is repeated to retrain.
TRAINING = "training"
UNET_TRAINING = f"{TRAINING}/unet_training.json"
# Sampling settings a model recommends, beside its weights: {"steps": 50, "guidance": 3.0}.
GENERATION = "generation.json"


def shard_name(number: int) -> str:
    """Folder name of shard `number`, e.g. 00000."""
    return f"{number:05d}"


def rows_name(method: str) -> str:
    """File name of a method's training rows below `rows/`, e.g. clip.npy."""
    return f"{method}.npy"


def search_name(method: str) -> str:
    """File name of a method's FAISS index below `search/`, e.g. clip.faiss."""
    return f"{method}.faiss"


_CURVATURE_STEPS = {"diagonal": "fisher", "ekfac": "ekfac", "kfac": "kfac"}


def curvature_step(kind: str, weights: str, objective: str) -> str:
    """The extra step that makes a curvature, "diagonal", "ekfac" or "kfac", of a weight set, e.g.
    fisher-full-loss, ekfac-full-loss."""
    return f"{_CURVATURE_STEPS[kind]}-{weights}-{objective}"


def curvature_file(kind: str, weights: str, objective: str) -> str:
    """Its file, e.g. extras/fisher-full-loss.safetensors."""
    return f"{EXTRA_FILES}/{curvature_step(kind, weights, objective)}.safetensors"
