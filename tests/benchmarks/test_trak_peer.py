"""Our TRAK against traker's, by its authors: same model, losses and λ; nothing else in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attribution.gradients import query_draws
from attribution.index import Index
from attribution.methods.registry import METHODS, Context
from attribution.noise import keyed_noise, mirrored
from attribution.types import Query
from attribution.weights import parameter_names
from benchmarks.__main__ import VERBS
from benchmarks.trak_peer import Peer, Samples
from evaluation import verbs
from evaluation.results import read_lines
from evaluation.statistics import spearman
from precompute.__main__ import main
from tests.precompute.worlds import image_folder, make_index
from tests.tiny import tiny_images

pytest.importorskip("trak", reason="traker is not installed: pip install -r requirements-dev.txt")

DRAWS = 2


@pytest.fixture(scope="module")
def context(tmp_path_factory, tiny_model):
    """12 records, rows as wide as the layers: no projection on either side."""
    from attribution.denoiser import Denoiser

    folder = tmp_path_factory.mktemp("peer")
    data = image_folder(folder / "data", 14, captions=2)
    out = make_index(folder / "index", tiny_model, data, "--timestep-stride", "500")
    assert main(["trak", "--out", str(out), "--dim", "4096"]) == 0
    index = Index.open(out)
    return Context(Denoiser.load(index.model_path, device="cpu"), index)


def training_samples(context) -> Samples:
    """Image and flip in turn, the noise and captions of the rows."""
    index, denoiser = context.index, context.denoiser
    steps, parts = index.extra("trak")["timesteps"], []
    for row in index.train_rows:
        captions = index.captions([row])[0]
        cond = denoiser.encode_text([captions[i % len(captions)] for i in range(len(steps))])
        key = {"namespace": "train-gradient", "seed": 0, "record_id": index.ids([row])[0]}
        noise = torch.stack([keyed_noise(denoiser.latent_shape, timestep=t, **key) for t in steps])
        for flip in (0, 1):
            z = index.latents([row], flip).expand(len(steps), -1, -1, -1)
            parts.append((z, cond, mirrored(noise) if flip else noise, torch.tensor(steps)))
    return Samples(*(torch.stack(part) for part in zip(*parts, strict=True)))


def query_sample(context, query) -> Samples:
    denoiser = context.denoiser
    noise, t = query_draws(denoiser, context.index.extra("trak")["timesteps"], DRAWS, 0)
    latents = denoiser.encode_images([query.image]).expand(len(t), -1, -1, -1)
    cond = denoiser.encode_text([query.prompt]).expand(len(t), -1, -1)
    return Samples(*(part[None] for part in (latents, cond, noise, t)))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_scores_agree_with_trakers(context, tmp_path):
    damping = 0.1
    query = Query("ab by 2", tiny_images(3)[2], seed=1)
    samples = training_samples(context)
    names = parameter_names(context.denoiser.unet, "kv")
    peer = Peer(context.denoiser, names, tmp_path, len(samples))
    peer.featurise(samples)
    theirs = peer.scores(query_sample(context, query), damping)[:, 0].reshape(-1, 2)
    *_, ours = METHODS["trak"].build(context).run(query, draws=DRAWS, damping=damping)
    place = {int(row): i for i, row in enumerate(context.index.train_rows)}
    best = theirs.max(1)[[place[int(row)] for row in ours.rows]]
    assert spearman(ours.scores, best) >= 0.95
    # up to their normalisation the very same numbers, not only the same order
    assert np.corrcoef(ours.scores, best)[0, 1] > 0.999


@pytest.mark.slow
def test_both_are_measured_side_by_side(context, tmp_path, capsys):
    options = ("--results", str(tmp_path), "--device", "cpu", "--threads", "1")
    small = ("--records", "4", "--dim", "32", "--timesteps", "250,750")
    arguments = ["trak", "--index", str(context.index.path), *options, *small]
    assert verbs.main("benchmarks", VERBS, arguments) == 0
    out = capsys.readouterr().out
    assert "x as fast" in out and "| traker |" in out and "| Whence |" in out
    lines = [line for line in read_lines(tmp_path / "trak.jsonl") if "unit" in line]
    assert [line["unit"] for line in lines] == ["Whence", "traker"]
    assert all(line["seconds"] > 0 and line["peak_mib"] > 100 for line in lines)
    assert all(line["rows"] == 8 for line in lines)
