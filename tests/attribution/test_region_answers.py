"""Answers for a part of the picture, through the engine: every method, forgetting, files."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from attribution import defaults, report
from attribution.engine import Engine
from attribution.regions import crop, query_weights
from attribution.saved import load_example, save_example
from attribution.types import Attribution, Forgetting, Query, Region
from attribution.unlearning import UnlearnConfig, unlearn
from tests.attribution.worlds import finished
from tests.tiny import tiny_images

# random weights: the default increase cannot be reached
SMALL = {"relative_increase": 0.02, "stride": 250, "draws": 2}
CORNER = Region((1.0, 2.0, 7.0, 9.0))
LOOKING = ("clip", "pixel")


@pytest.fixture(scope="module")
def query(engine) -> Query:
    return engine.upload(tiny_images(4)[3], "ak by 0")


@pytest.fixture
def fresh(engine, monkeypatch) -> Engine:
    """The engine without a Δθ kept from an earlier query."""
    monkeypatch.setattr(engine, "_attributors", {})
    return engine


def answer(engine: Engine, query: Query, name: str, **more: object) -> Attribution:
    options = SMALL if name.startswith("abu") else {}
    return finished(engine.attribute(query, (name,), 3, exhaustive=True, **options, **more))


def usable(engine: Engine) -> list[str]:
    return [m["name"] for m in engine.methods() if m["available"] and m["kind"] != "gradient"]


def free_form(size: tuple[int, int] = (16, 16)) -> Region:
    grey = Image.new("L", size)
    grey.paste(255, (2, 2, 5, 5))
    grey.paste(255, (9, 9, 12, 14))
    return Region((2.0, 2.0, 12.0, 14.0), grey)


def test_a_region_of_everything_gives_the_whole_picture_s_scores(fresh, query) -> None:
    everything = replace(query, regions=(Region((0, 0, 16, 9)), Region((0, 9, 16, 16))))
    for name in usable(fresh):
        part = answer(fresh, everything, name)
        fresh._attributors.clear()
        whole = answer(fresh, query, name)
        assert part.ids == whole.ids and np.array_equal(part.scores, whole.scores), name


def test_a_region_changes_what_looks_at_the_picture_and_says_how(engine, query) -> None:
    part = replace(query, regions=(CORNER,))
    for name in usable(engine):
        whole, found = answer(engine, query, name), answer(engine, part, name)
        by_id = dict(zip(whole.ids, whole.scores, strict=True))
        differs = any(by_id[i] != s for i, s in zip(found.ids, found.scores, strict=True))
        how = {"clip-text": "ignored", "random": "ignored"}.get(name)
        assert found.params["region"] == how or ("crop" if name in LOOKING else "loss"), name
        assert differs == (found.params["region"] != "ignored"), name
        assert "region" not in whole.params


def test_likeness_is_that_of_the_crop(engine, query) -> None:
    for regions in ((CORNER,), (CORNER, Region((9, 9, 12, 12))), (free_form(),)):
        part = replace(query, regions=regions)
        for name in LOOKING:
            found = answer(engine, part, name)
            cropped = answer(engine, replace(query, image=crop(part)), name)
            assert found.ids == cropped.ids and np.array_equal(found.scores, cropped.scores)


@pytest.mark.parametrize("region", [CORNER, free_form(), Region((3.2, 3.2, 3.4, 3.3))])
def test_gradient_and_line_search_count_only_the_region(fresh, query, region) -> None:
    part = replace(query, regions=(region,))
    found = finished(fresh._attributor("abu").unlearn(part, **SMALL))
    denoiser, context = fresh.denoiser, fresh._context
    config = fresh._attributor("abu")._configured(SMALL)
    z, c = denoiser.encode_images([query.image]), denoiser.encode_text([query.prompt])
    weights = query_weights(denoiser, part)
    direct = finished(unlearn(denoiser, z, c, context.curvature("diagonal"), config, weights))
    assert all(torch.equal(found.delta[n], direct.delta[n]) for n in direct.delta)
    assert (
        found.loss0
        == direct.loss0
        != finished(fresh._attributor("abu").unlearn(query, **SMALL)).loss0
    )


def test_boxes_and_the_mask_of_the_same_pixels_give_the_same_scores(fresh, query) -> None:
    boxes = (Region((2, 2, 5, 5)), Region((9, 9, 12, 14)))
    by_box = answer(fresh, replace(query, regions=boxes), "abu")
    fresh._attributors.clear()
    by_mask = answer(fresh, replace(query, regions=(free_form(),)), "abu")
    assert by_box.ids == by_mask.ids and np.array_equal(by_box.scores, by_mask.scores)


def test_the_kept_delta_belongs_to_its_region(fresh, query) -> None:
    attributor = fresh._attributor("abu")
    parts = [replace(query, regions=r) for r in ((CORNER,), (), (free_form(),), (CORNER,))]
    jobs = [list(attributor.unlearn(part, **SMALL)) for part in parts]
    assert all(len(job) > 1 for job in jobs)
    assert len(list(attributor.unlearn(parts[-1], **SMALL))) == 1


def test_only_the_region_is_forgotten(fresh, query) -> None:
    part = replace(query, regions=(CORNER,), steps=2, guidance=1.0)
    items = list(fresh.forget(part, (0.0, 0.01), other_prompts=()))
    result = items[-1]
    assert isinstance(result, Forgetting)
    whole = finished(fresh.forget(replace(part, regions=()), (0.0, 0.01), other_prompts=()))
    assert result.scales[1] != whole.scales[1]
    found = finished(fresh._attributor(defaults.METHOD).unlearn(part))
    denoiser = fresh.denoiser
    weights = query_weights(denoiser, part)
    from attribution.forgetting import loss_increase

    z, c = denoiser.encode_images([query.image]), denoiser.encode_text([query.prompt])
    timesteps = UnlearnConfig().timesteps(denoiser.n_train_timesteps)  # not the index's
    increase = loss_increase(denoiser, z, c, found.delta, timesteps, weights)
    assert increase(result.scales[1]) == pytest.approx(result.reached[1])


def test_what_is_forgotten_is_measured_in_the_words_it_was_unlearned_in(fresh, query) -> None:
    part = replace(query, regions=(CORNER,), called="bo by 1", steps=2, guidance=1.0)
    (*_, result) = fresh.forget(part, (0.0, 0.01), other_prompts=())
    assert result.prompt == query.prompt and result.scales[1] > 0
    assert result.reached[1] == pytest.approx(0.01, rel=0.2)
    asked = replace(part, prompt="bo by 1", called="")
    (*_, same) = fresh.forget(asked, (0.0, 0.01), other_prompts=())
    assert (same.scales, same.reached) == (result.scales, result.reached)


def test_a_shortlist_comes_from_the_region_too(engine, query) -> None:
    part = replace(query, regions=(CORNER,))
    short = finished(engine.attribute(part, ("abu",), 2, shortlist=5, **SMALL))
    exact = answer(engine, part, "abu")
    scores = dict(zip(exact.ids, exact.scores, strict=True))
    assert short.candidates < engine.n_train
    for record, score in zip(short.ids, short.scores, strict=True):
        assert abs(score - scores[record]) <= 1e-3 * exact.scores.std()


def test_regions_are_clipped_to_the_picture(engine, query) -> None:
    over = replace(query, regions=(Region((-5.0, 2.0, 7.0, 99.0)),))
    inside = replace(query, regions=(Region((0.0, 2.0, 7.0, 16.0)),))
    a, b = answer(engine, over, "pixel"), answer(engine, inside, "pixel")
    assert a.ids == b.ids and np.array_equal(a.scores, b.scores)


def test_files_name_the_regions(engine, query, tmp_path) -> None:
    part = replace(query, regions=(CORNER, free_form()))
    found = answer(engine, part, "pixel")
    path = engine.export(part, [found], tmp_path / "a.zip", top_k=2)
    with zipfile.ZipFile(path) as archive:
        saved = json.loads(archive.read("result.json"))["query"]["regions"]
        assert saved[0] == [1.0, 2.0, 7.0, 9.0]
        assert saved[1] == {"box": [2.0, 2.0, 12.0, 14.0], "mask": "region_2.png"}
        assert archive.read("region_2.png") == report.png_bytes(free_form().mask)
    result = engine.result(part, [found], 2)
    save_example(tmp_path / "one", part, [found], result, engine.index_hash)
    back = load_example(tmp_path / "one", engine.index_hash, engine.index.ids).query
    assert back.regions == part.regions
