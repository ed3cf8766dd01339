"""`python -m precompute latents --out DIR`: VAE latents of every record and of its mirror image.

Posterior mean times the scaling factor, float16 [n, flips, C, h, w]; flip 1 is the mirrored image
encoded by itself, for the VAE is not exactly equivariant. Every later step reads these, not the
images.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from attribution import layout
from attribution.cells import FLIPS
from attribution.types import UserError
from precompute import dataset, keys, steps
from precompute.build import Build
from precompute.dataset import iterate_images
from precompute.shards import Work, write_npy

STEP = "latents"


def build(job: Build) -> None:
    """The step, after the records."""
    job.first(dataset.build)
    job.over_shards(STEP, job.inputs.latents, lambda work, bar: _make(job, work, bar))


def _make(job: Build, work: Work, bar: tqdm) -> list[str]:
    count, size = work.done()["records"], max(1, job.batch_size() // FLIPS)
    latents = np.empty((count, FLIPS, *job.model()["latent_shape"]), dtype=np.float16)
    images = iterate_images(work.file(layout.RECORDS))
    for start in range(0, count, size):
        batch = [image for _, image in islice(images, size)]
        latents[start : start + len(batch)] = encode_both(job, batch)
        bar.update(len(batch))
    if not np.isfinite(latents).all():
        raise UserError(
            f"{work.folder}: latents that half precision cannot hold; is the VAE's scaling right?"
        )
    write_npy(work.file(layout.LATENTS), latents)
    return list(keys.FILES[STEP])


def encode_both(job: Build, images: list[Image.Image]) -> np.ndarray:
    """[B, flips, C, h, w] of images and their mirror images."""
    denoiser = job.denoiser
    prepared = [denoiser.prepare_image(image) for image in images]
    pairs = [side for image in prepared for side in (image, ImageOps.mirror(image))]
    encoded = denoiser.encode_images(pairs).cpu().numpy()
    return encoded.reshape(len(images), FLIPS, *encoded.shape[1:]).astype(np.float16)


add_arguments, run = steps.verb(build)
