"""The engine end to end on a tiny index: picture, answer, forgetting, export; one job at a time."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from attribution import defaults, report
from attribution.engine import WAITING, Engine
from attribution.types import Attribution, Forgetting, Query, Region, UserError
from tests.attribution.answers import check_result
from tests.attribution.worlds import FAST, finished
from tests.tiny import tiny_images


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in engine.denoiser.unet.state_dict().items()}


def same(before: dict[str, torch.Tensor], engine: Engine) -> bool:
    after = engine.denoiser.unet.state_dict()
    return all(torch.equal(before[name], after[name]) for name in before)


def test_generate_is_a_step_at_a_time_and_repeats(engine, query) -> None:
    items = list(engine.generate("ak by 0", 7, **FAST))
    assert [(p.stage, p.done, p.total) for p in items[:-1]] == [
        ("generate", i, 3) for i in (1, 2, 3)
    ]
    assert np.array_equal(np.asarray(items[-1].image), np.asarray(query.image))
    assert (query.seed, query.steps, query.guidance) == (7, 3, 2.0)
    assert query.image.size == (engine.resolution, engine.resolution)


def test_a_small_index_is_asked_without_a_number_too(engine, query) -> None:
    assert engine.n_train < defaults.TOP_K
    assert finished(engine.attribute(query, ("pixel",))).candidates == engine.n_train


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
        assert isinstance(finished(engine.generate(prompt, 2**32 - 1, steps=1)), Query)


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
    again = finished(engine.attribute(uploaded, ("abu",), top_k=4, exhaustive=True))
    assert again.ids == answer.ids and np.array_equal(again.scores, answer.scores)


def test_shortlist_scores_are_the_exhaustive_ones(engine, query, answer) -> None:
    short = finished(engine.attribute(query, ("abu",), top_k=2, shortlist=5))
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


def test_rows_made_when_first_asked_are_memory_not_storage(engine, query) -> None:
    assert not engine.index.has_rows("pixel")
    pixel = engine.cost("pixel")
    assert pixel.parts == {} and pixel.bytes_per_record == 0 and pixel.seconds_per_record == 0
    finished(engine.attribute(query, ("pixel",), top_k=1))
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
    assert isinstance(finished(waiting), Query)
    assert same(before, engine)


def test_forget_reuses_the_delta_and_restores_the_model(engine, query, answer) -> None:
    before = weights(engine)
    finished(engine.attribute(query, (defaults.METHOD,), top_k=2))
    items = list(engine.forget(query, (0.05, 0.1), other_prompts=["b", "c"]))
    result = items[-1]
    assert isinstance(result, Forgetting) and {p.stage for p in items[:-1]} == {"forget"}
    assert result.strengths == (0.0, 0.05, 0.1) and result.images[0] is query.image
    assert len(result.others) == 2 and same(before, engine)


def test_suggestions(engine) -> None:
    captions = engine.suggest_captions(tiny_images(3)[2], 3)
    known = {c for texts in engine.index.captions(engine.index.train_rows) for c in texts}
    assert len(captions) == 3 and set(captions) <= known
    prompts = engine.suggest_prompts(5)
    assert prompts == engine.suggest_prompts(5) and len(set(prompts)) == 5
