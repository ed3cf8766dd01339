"""The engine end to end on a tiny index: picture, answer, forgetting, export; one job at a time."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attribution import layout, report
from attribution.engine import WAITING, Engine
from attribution.saved import save_example
from attribution.types import Attribution, Forgetting, Progress, Query, Region, UserError
from tests.attribution.answers import check_result
from tests.tiny import tiny_images

FAST = {"steps": 3, "guidance": 2.0}


def last(job):
    *progress, result = job
    assert all(isinstance(item, Progress) for item in progress)
    return result


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in engine.denoiser.unet.state_dict().items()}


def same(before: dict[str, torch.Tensor], engine: Engine) -> bool:
    after = engine.denoiser.unet.state_dict()
    return all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture(scope="module")
def query(engine) -> Query:
    return last(engine.generate("ak by 0", 7, **FAST))


@pytest.fixture(scope="module")
def answer(engine, query) -> Attribution:
    return last(engine.attribute(query, ("abu",), top_k=4, exhaustive=True))


def test_generate_is_a_step_at_a_time_and_repeats(engine, query) -> None:
    items = list(engine.generate("ak by 0", 7, **FAST))
    assert [(p.stage, p.done, p.total) for p in items[:-1]] == [
        ("generate", i, 3) for i in (1, 2, 3)
    ]
    assert np.array_equal(np.asarray(items[-1].image), np.asarray(query.image))
    assert (query.seed, query.steps, query.guidance) == (7, 3, 2.0)
    assert query.image.size == (engine.resolution, engine.resolution)


def test_bad_input_is_refused_in_one_line(engine, query) -> None:
    bad = (
        lambda: list(engine.generate("", 0)),
        lambda: list(engine.generate("a", -1)),
        lambda: list(engine.generate("a", 2**32)),
        lambda: list(engine.generate("a", 0, steps=0)),
        lambda: list(engine.attribute(query, ("nope",))),
        lambda: list(engine.attribute(query, ("abu",), top_k=0)),
        lambda: list(engine.attribute(query, ("abu",), top_k=engine.n_train + 1)),
        lambda: list(engine.attribute(replace(query, regions=(Region((90, 0, 94, 4)),)))),
        lambda: engine.upload(b"", "a"),
        lambda: engine.upload(tiny_images(1)[0], " "),
        lambda: engine.record("nope"),
        lambda: engine.example("nope"),
        lambda: engine.link(replace(query, seed=None), "abu", 4),
    )
    for number, call in enumerate(bad):
        with pytest.raises(UserError) as caught:
            call()
        assert "\n" not in str(caught.value), number


def test_long_and_odd_prompts_work(engine) -> None:
    for prompt in ("🍦🦊", "été naïve 漢字", "x " * 400):
        assert isinstance(last(engine.generate(prompt, 2**32 - 1, steps=1)), Query)


def test_exhaustive_answer_covers_every_training_record(engine, query, answer) -> None:
    assert answer.method == "abu" and answer.kind == "unlearning"
    assert sorted(answer.rows) == engine.index.train_rows.tolist()
    assert answer.ids == tuple(engine.index.ids(answer.rows))
    assert np.all(np.diff(answer.scores) <= 0) and np.isfinite(answer.scores).all()
    assert answer.cells.shape[0] == answer.candidates == engine.n_train
    assert answer.candidate_source == "exhaustive" and answer.noise_floor is not None
    assert len(answer.heatmaps) >= 4


def test_uploading_the_saved_picture_gives_the_same_scores(engine, query, answer, tmp_path) -> None:
    path = tmp_path / "query.png"
    path.write_bytes(report.png_bytes(query.image))
    uploaded = engine.upload(path, query.prompt)
    assert uploaded.seed is None
    again = last(engine.attribute(uploaded, ("abu",), top_k=4, exhaustive=True))
    assert again.ids == answer.ids and np.array_equal(again.scores, answer.scores)


def test_shortlist_scores_are_the_exhaustive_ones(engine, query, answer) -> None:
    short = last(engine.attribute(query, ("abu",), top_k=2, shortlist=5))
    assert short.candidate_source == "shortlist" and short.candidates < engine.n_train
    exact = dict(zip(answer.ids, answer.scores, strict=True))
    spread = answer.scores.std()
    for record_id, score in zip(short.ids, short.scores, strict=True):
        assert abs(score - exact[record_id]) <= 1e-3 * spread


def test_several_methods_answer_in_turn(engine, query) -> None:
    names = [m["name"] for m in engine.methods() if m["available"]]
    assert {"abu", "abu-ekfac", "clip", "pixel", "random"} <= set(names)
    items = list(engine.attribute(query, names, top_k=3))
    answers = [item for item in items if isinstance(item, Attribution)]
    assert [a.method for a in answers] == names
    assert items[-1] is answers[-1]
    check_result(json.loads(report.json_text(engine.result(query, answers, 3))), 3)


def test_methods_that_are_missing_say_why(engine) -> None:
    for method in engine.methods():
        assert set(method) >= {"name", "kind", "title", "available", "why"}
        assert method["explanation"] and method["source"]
        assert method["available"] == (method["why"] == "")


def test_costs_are_read_off_the_index(engine) -> None:
    clip, abu, control = (engine.cost(name) for name in ("clip", "abu", "random"))
    assert clip.parts == {"clip rows": engine.index.rows("clip")[0].nbytes}
    assert abu.parts["base losses"] == engine.index.base_loss[0].nbytes
    assert abu.parts["latents"] == np.load(next(engine.index.path.rglob("latents.npy")))[0].nbytes
    assert abu.bytes_per_record == sum(abu.parts.values()) > clip.bytes_per_record
    assert set(abu.seconds) == {"gradients", "features", "latents", "losses", "fisher"}
    assert 0 < clip.seconds_per_record < abu.seconds_per_record  # the run that made it noted them
    assert control.parts == {} and control.seconds_per_record == 0 and control.memory == 0


def test_rows_made_when_first_asked_are_memory_not_storage(engine, query) -> None:
    assert not engine.index.has_rows("pixel")
    pixel = engine.cost("pixel")
    assert pixel.parts == {} and pixel.bytes_per_record == 0 and pixel.seconds_per_record == 0
    last(engine.attribute(query, ("pixel",), top_k=1))
    held = engine._attributor("pixel")._pictures.faiss_index
    assert pixel.memory * engine.n_train == held.code_size * held.ntotal
    assert engine.cost("clip").memory == engine.cost("abu").memory == 0


def test_a_job_that_is_closed_leaves_the_model_clean_and_free(engine, query) -> None:
    before = weights(engine)
    job = engine.attribute(query, ("abu-ekfac",), top_k=2, exhaustive=True)
    next(job)
    waiting = engine.generate("a", 0, steps=1)
    assert next(waiting).stage == WAITING
    job.close()
    assert isinstance(last(waiting), Query)
    assert same(before, engine)


def test_forget_reuses_the_delta_and_restores_the_model(engine, query, answer) -> None:
    before = weights(engine)
    last(engine.attribute(query, ("abu",), top_k=2))
    items = list(engine.forget(query, (0.05, 0.1), other_prompts=["b", "c"]))
    result = items[-1]
    assert isinstance(result, Forgetting) and {p.stage for p in items[:-1]} == {"forget"}
    assert result.strengths == (0.0, 0.05, 0.1) and result.images[0] is query.image
    assert len(result.others) == 2 and same(before, engine)


def test_artists_and_controls(engine, answer) -> None:
    shares = engine.artists(answer)
    assert sum(share.share for share in shares) == pytest.approx(1.0)
    assert {share.artist for share in shares} <= {"artist 0", "artist 1", "artist 2"}
    strip = engine.random_records(4, 1, exclude=answer.ids[:4])
    assert [r.id for r in strip] == [r.id for r in engine.random_records(4, 1, answer.ids[:4])]
    assert not {r.id for r in strip} & set(answer.ids[:4]) and len(strip) == 4
    assert all(record.split == "train" for record in strip)


def test_suggestions(engine) -> None:
    captions = engine.suggest_captions(tiny_images(3)[2], 3)
    known = {c for texts in engine.index.captions(engine.index.train_rows) for c in texts}
    assert len(captions) == 3 and set(captions) <= known
    prompts = engine.suggest_prompts(5)
    assert prompts == engine.suggest_prompts(5) and len(set(prompts)) == 5


def test_export_and_link(engine, query, answer, tmp_path) -> None:
    path = engine.export(query, [answer], tmp_path / "a.zip", top_k=3)
    with zipfile.ZipFile(path) as archive:
        check_result(json.loads(archive.read("result.json")), 3)
    link = engine.link(query, "abu", 4)
    assert link == {"prompt": query.prompt, "seed": "7", "method": "abu", "k": "4"}
    boxes = (Region((0.0, 1.5, 4.0, 8.0)), Region((9.0, 9.0, 16.0, 10.1)))
    part = engine.link(replace(query, regions=boxes), "abu", 4)
    assert part == {**link, "region": "0,1.5,4,8;9,9,16,10.1"}
    free = Region((0, 0, 16, 16), Image.new("L", (16, 16), 200))
    with pytest.raises(UserError, match="painted"):
        engine.link(replace(query, regions=(free,)), "abu", 4)


def test_saved_example_of_this_index(engine, query, answer, tmp_path, monkeypatch) -> None:
    result = engine.result(query, [answer], 3)
    monkeypatch.setattr(engine.index, "path", Path(tmp_path))
    assert engine.examples() == []
    folder = tmp_path / layout.EXAMPLES
    save_example(folder / "one", query, [answer], result, engine.index_hash)
    save_example(folder / "other", query, [answer], result, "0" * 64)
    assert engine.examples() == ["one", "other"]
    example = engine.example("one")
    assert example.attributions[0].ids == answer.ids
    view = engine.rerank(example.attributions[0], None)
    assert view.ids[:3] == answer.ids[:3]
    with pytest.raises(UserError, match="made with index"):
        engine.example("other")
