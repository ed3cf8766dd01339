"""Regions map truly: areas by hand and by brute force, uploads of any shape, flips, crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from attribution.gradients import query_draws, query_gradient
from attribution.regions import (
    bounding_box,
    crop,
    key,
    latent_weights,
    mirrored,
    pixel_mask,
    placement,
    query_weights,
)
from attribution.types import Query, Region
from attribution.weights import parameter_names
from tests.tiny import tiny_images

CELLS = (16, 16)


def box(*corners: float) -> Region:
    return Region(tuple(float(corner) for corner in corners))


def mask(values: np.ndarray) -> Region:
    grey = Image.fromarray(values.astype(np.uint8))
    return Region(tuple(float(v) for v in grey.getbbox()), grey)


def painted(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Region:
    """A mask that is white in whole-pixel boxes."""
    values = np.zeros(size[::-1], dtype=np.uint8)
    for x0, y0, x1, y1 in boxes:
        values[y0:y1, x0:x1] = 255
    return mask(values)


def by_hand(values: np.ndarray) -> np.ndarray:
    """Mean of 0..255 values [H, W] per cell, for squares whose side is a multiple of the cells."""
    height, width = values.shape
    side = max(height, width)
    square = np.zeros((side, side))
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = values / 255.0
    step = side // CELLS[0]
    return square.reshape(CELLS[0], step, CELLS[1], step).mean(axis=(1, 3))


def test_a_cell_weighs_its_covered_area():
    weights = latent_weights((box(4, 8, 10, 9.5),), (64, 64), CELLS)
    assert weights.shape == CELLS and weights.dtype == torch.float32
    expected = torch.zeros(CELLS)
    expected[2, 1], expected[2, 2] = 1.5 / 4, 0.5 * 1.5 / 4
    assert torch.equal(weights, expected)


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (48, 128), (160, 32)])
def test_random_regions_against_counting_pixels(size):
    rng = np.random.default_rng(size[0])
    values = rng.integers(0, 256, size[::-1])
    found = latent_weights((mask(values),), size, CELLS)
    assert np.allclose(found, by_hand(values), atol=1e-7)
    corners = [np.sort(rng.choice(n + 1, 2, replace=False)) for n in size * 3]
    boxes = [(x[0], y[0], x[1], y[1]) for x, y in zip(corners[::2], corners[1::2], strict=True)]
    union = painted(size, *boxes)
    found = latent_weights([box(*b) for b in boxes], size, CELLS)
    assert np.allclose(found, by_hand(np.asarray(union.mask)), atol=1e-7)
    assert torch.equal(found, latent_weights((union,), size, CELLS))


@pytest.mark.parametrize("size", [(97, 61), (61, 97), (64, 64), (500, 3)])
@pytest.mark.parametrize("cells", [(16, 16), (8, 8), (64, 64)])
def test_disjoint_boxes_are_the_mask_of_the_same_pixels(size, cells):
    boxes = [(0, 0, 7, 2), (7, 0, 20, 3), (25, 1, 26, 2)]
    union = latent_weights([box(*b) for b in boxes], size, cells)
    assert torch.equal(union, latent_weights((painted(size, *boxes),), size, cells))
    both = latent_weights((box(*boxes[0]), painted(size, *boxes[1:])), size, cells)
    assert torch.equal(union, both)
    one_by_one = sum(latent_weights((box(*b),), size, cells) for b in boxes)
    assert torch.allclose(union, one_by_one, atol=1e-6)


def test_overlapping_boxes_count_once():
    twice = latent_weights((box(0.5, 0, 9, 9), box(0.5, 0, 9, 9), box(2, 2, 3, 3)), (64, 64), CELLS)
    assert torch.equal(twice, latent_weights((box(0.5, 0, 9, 9),), (64, 64), CELLS))


@pytest.mark.parametrize("size", [(64, 64), (97, 61), (60, 98)])
def test_the_region_of_a_flipped_picture_is_flipped(size):
    rng = np.random.default_rng(1)
    for region in (box(3, 5, 20.25, 31), mask(rng.integers(0, 256, size[::-1]))):
        there = latent_weights((region,), size, CELLS)
        flipped = latent_weights((mirrored(region, size[0]),), size, CELLS)
        assert torch.equal(flipped, there.flip(1)) and not torch.equal(flipped, there)


@pytest.mark.parametrize("size", [(64, 64), (90, 50), (31, 77)])
def test_regions_that_leave_nothing_out_are_the_whole_picture(size):
    width, height = size
    whole = (
        (),
        (box(0, 0, width, height),),
        (box(0, 0, width, 10.5), box(0, 9, width, height)),
        (painted(size, (0, 0, width, height)),),
        (painted(size, (0, 0, 20, height)), box(20, 0, width, height)),
    )
    picture = Image.new("RGB", size, "red")
    for regions in whole:
        assert latent_weights(regions, size, CELLS) is None
        query = Query("a", picture, regions=regions)
        assert crop(query) is picture and key(query) == ""
    nearly = (box(0, 0, width, height - 0.5),)
    assert latent_weights(nearly, size, CELLS) is not None
    assert key(Query("a", picture, regions=nearly)) != ""


def test_thinner_than_a_cell_still_counts():
    for size in ((64, 64), (20_000, 300)):
        weights = latent_weights((box(17.5, 18.2, 17.51, 18.21),), size, CELLS)
        assert 0 < float(weights.sum()) < 1e-3 and torch.isfinite(weights).all()
        assert int((weights > 0).sum()) == 1


@pytest.mark.parametrize("size", [(200, 120), (120, 200), (90, 90), (16, 16), (33, 500)])
def test_a_mark_in_an_upload_lies_in_the_covered_cells(denoiser, size):
    """What the model sees is dark in the covered cells and nowhere away from them."""
    width, height = size
    corners = (0.6 * width, 0.1 * height, 0.9 * width, 0.4 * height)
    region = box(*(round(corner) for corner in corners))
    picture = Image.new("RGB", size, "white")
    x0, y0, x1, y1 = region.box
    ImageDraw.Draw(picture).rectangle((x0, y0, x1 - 1, y1 - 1), fill="black")
    seen = np.asarray(denoiser.prepare_image(picture).convert("L"), dtype=np.float32)
    _, h, w = denoiser.latent_shape
    step = denoiser.resolution // h
    dark = 1.0 - seen.reshape(h, step, w, step).mean(axis=(1, 3)) / 255.0
    weights = query_weights(denoiser, Query("a", picture, regions=(region,))).numpy()
    assert np.abs(dark - weights).max() < 0.3  # LANCZOS rings at the edges
    assert np.corrcoef(dark.ravel(), weights.ravel())[0, 1] > 0.95
    assert np.unravel_index(dark.argmax(), dark.shape) in list(zip(*weights.nonzero(), strict=True))


def test_the_white_around_a_picture_is_in_no_region():
    assert placement((90, 50)) == (90, 0, 20) and placement((51, 90)) == (90, 19, 0)
    weights = latent_weights((box(0, 0, 90, 49),), (90, 50), (9, 9))
    assert torch.equal(weights[:2], torch.zeros(2, 9)) and torch.equal(
        weights[2:6], torch.ones(4, 9)
    )
    assert torch.allclose(weights[6], torch.tensor(0.9)) and not weights[7:].any()


def test_the_gradient_of_the_masked_loss_by_hand(denoiser64):
    """One draw and one cell at a time, with plain autograd."""
    picture = tiny_images(3)[2]
    query = Query("ab by 2", picture, regions=(box(3, 2, 9, 7), box(12, 12, 13, 16)))
    weights = query_weights(denoiser64, query)
    assert weights.count_nonzero() == 4 * 3 + 2
    z, c = denoiser64.encode_images([picture]), denoiser64.encode_text(["ab by 2"])
    names = parameter_names(denoiser64.unet, "kv")
    found = query_gradient(denoiser64, z, c, (250, 750), 2, 0, names, weights, batch_size=3)
    noise, t = query_draws(denoiser64, (250, 750), 2, 0)
    parameters = [denoiser64.unet.get_parameter(name).requires_grad_(True) for name in names]
    loss = torch.zeros((), dtype=torch.float64)
    for draw in range(len(t)):
        error = denoiser64.squared_error(z, c, noise[draw : draw + 1], t[draw : draw + 1])[0]
        for i, j in weights.nonzero().tolist():
            loss = loss + error[:, i, j].mean() * float(weights[i, j])
    loss = loss / sum(weights.double().flatten()) / len(t)
    by_hand = torch.autograd.grad(loss, parameters)
    for p in parameters:
        p.requires_grad_(False)
    for name, gradient in zip(names, by_hand, strict=True):
        assert torch.allclose(found[name], gradient, rtol=1e-7, atol=1e-12), name


def test_pixel_masks():
    half = np.asarray(pixel_mask((box(0.5, 0, 2, 1),), (4, 2)))
    assert half.tolist() == [[128, 255, 0, 0], [0, 0, 0, 0]]
    both = pixel_mask((box(0, 0, 1, 1), painted((4, 2), (3, 1, 4, 2))), (4, 2))
    assert np.asarray(both).tolist() == [[255, 0, 0, 0], [0, 0, 0, 255]]
    assert np.asarray(pixel_mask((), (4, 2))).min() == 255


def test_crops():
    picture = ImageOps.mirror(tiny_images(1)[0])
    one = crop(Query("a", picture, regions=(box(2, 3, 9, 8),)))
    assert one.tobytes() == picture.crop((2, 3, 9, 8)).tobytes()
    two = (box(0, 0, 2, 2), box(6, 4, 8, 8))
    assert bounding_box(two) == (0, 0, 8, 8)
    seen = np.asarray(crop(Query("a", picture, regions=two)))
    assert seen.shape == (8, 8, 3) and (seen[:2, 2:] == 255).all() and (seen[2:, :6] == 255).all()
    assert np.array_equal(seen[:2, :2], np.asarray(picture)[:2, :2])
    free = crop(Query("a", picture, regions=(painted((16, 16), (0, 0, 2, 2), (6, 4, 8, 8)),)))
    assert np.array_equal(seen, np.asarray(free))


def test_keys_name_the_part_and_not_the_order():
    picture = tiny_images(1)[0]
    a, b, c = box(0, 0, 4, 4), box(5, 5, 9, 9), painted((16, 16), (0, 0, 4, 4))
    keys = [key(Query("a", picture, regions=regions)) for regions in ((a, b), (b, a), (a,), (c,))]
    assert keys[0] == keys[1] and len(set(keys)) == 3
