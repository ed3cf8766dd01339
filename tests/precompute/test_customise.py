"""Customising a tiny model by the command itself: what moves, what does not, and what it is for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from attribution.__main__ import main as attribution
from attribution.denoiser import Denoiser
from attribution.index import Index
from attribution.weights import parameter_names
from precompute.__main__ import main
from precompute.recipes.customise.config import CustomiseConfig
from precompute.recipes.customise.save import NOTE
from precompute.recipes.customise.token import add_token
from precompute.recipes.customise.tune import Concept, borrowed, mean_loss, tune
from tests.attribution.test_unlearning import assert_same, snapshot
from tests.precompute.worlds import image_folder, tiny_clip
from tests.tiny import tiny_images, tiny_pipeline

TABLE = "embeddings.token_embedding.weight"


@pytest.fixture(scope="module")
def exemplars(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    for i, image in enumerate(tiny_images(2, seed=5)):
        image.save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("no image")
    return folder


def customise(model, images, out, *more) -> int:
    places = ("--model", str(model), "--images", *map(str, images), "--out", str(out))
    return main(["customise", *places, "--device", "cpu", "--steps", "4", *more])


@pytest.fixture(scope="module")
def customised(tiny_model, exemplars, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "model"
    assert customise(tiny_model, [exemplars], out, "--class-word", "k") == 0
    return out


def weights(folder: Path, part: str) -> dict[str, torch.Tensor]:
    return {
        k: v for path in (folder / part).glob("*.safetensors") for k, v in load_file(path).items()
    }


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    assert all(before[name].dtype == after[name].dtype for name in before)
    return {name for name in before if not torch.equal(before[name], after[name])}


def assert_only_keys_values_and_one_row_moved(source: Path, out: Path, denoiser: Denoiser) -> None:
    names = parameter_names(denoiser.unet, "kv")
    assert moved(weights(source, "unet"), weights(out, "unet")) == set(names)
    before, after = weights(source, "text_encoder"), weights(out, "text_encoder")
    (table,) = (name for name in before if name.endswith(TABLE))
    rows = len(before[table])
    assert len(after[table]) == rows + 1
    assert torch.equal(before.pop(table), after.pop(table)[:rows])
    assert not moved(before, after)
    for path in (source / "vae").iterdir():
        assert (out / "vae" / path.name).read_bytes() == path.read_bytes()


def test_only_keys_values_and_one_row_move(tiny_model, customised, denoiser):
    assert_only_keys_values_and_one_row_moved(tiny_model, customised, denoiser)


def test_weights_keep_their_precision(exemplars, denoiser, tmp_path):
    tiny_pipeline("v_prediction").to(dtype=torch.float16).save_pretrained(tmp_path / "half")
    out = tmp_path / "out"
    assert customise(tmp_path / "half", [exemplars / "0.png"], out) == 0
    assert_only_keys_values_and_one_row_moved(tmp_path / "half", out, denoiser)


def test_diffusers_loads_it_and_samples_with_the_new_word(customised):
    pipe = StableDiffusionPipeline.from_pretrained(customised)
    pipe.set_progress_bar_config(disable=True)
    row = pipe.tokenizer.convert_tokens_to_ids("<v1>")
    assert pipe.tokenizer("a <v1>, by k").input_ids.count(row) == 1
    assert row == len(pipe.text_encoder.get_input_embeddings().weight) - 1
    drawn = [
        pipe(
            prompt,
            num_inference_steps=2,
            generator=torch.Generator().manual_seed(0),
            output_type="np",
        ).images
        for prompt in ("<v1>", "<v1> k", "k")
    ]
    assert np.isfinite(drawn[0]).all()
    assert not np.allclose(drawn[0], drawn[1]) and not np.allclose(drawn[1], drawn[2])


def test_the_same_seed_gives_the_same_weights(tiny_model, exemplars, customised, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    assert customise(tiny_model, [exemplars], again, "--class-word", "k") == 0
    assert customise(tiny_model, [exemplars], other, "--class-word", "k", "--seed", "1") == 0
    for part in ("unet", "text_encoder"):
        assert not moved(weights(customised, part), weights(again, part))
        assert moved(weights(customised, part), weights(other, part))


def test_the_note_tells_exemplars_settings_loss_and_seconds(customised, exemplars):
    note = json.loads((customised / NOTE).read_text())
    assert [e["id"] for e in note["exemplars"]] == ["exemplar/0.png", "exemplar/1.png"]
    assert all(len(e["sha256"]) == 64 for e in note["exemplars"])
    assert note["settings"]["steps"] == 4 and note["settings"]["seed"] == 0
    assert note["prompt"] == "<v1> k" and note["seconds"]["train"] > 0
    assert note["loss"]["after"] != note["loss"]["before"]


def test_it_learns_and_leaves_no_trace_where_borrowed(tiny_model):
    denoiser = Denoiser.load(tiny_model, device="cpu")
    token = add_token(denoiser, "<v1>", "k")
    concept = Concept.of(denoiser, tiny_images(1, seed=3), ["<v1> k"])
    before, loss = snapshot(denoiser), mean_loss(denoiser, concept, 0)
    table = denoiser.text_encoder.get_input_embeddings().weight
    rows = table.clone()
    with borrowed(denoiser, token):
        tune(denoiser, token, concept, CustomiseConfig(steps=30, weight_rate=0.6))
        assert mean_loss(denoiser, concept, 0) < 0.97 * loss
        assert not torch.equal(table, rows)
    assert_same(denoiser, before)
    assert torch.equal(table, rows) and not any(p.requires_grad for p in denoiser.unet.parameters())
    assert mean_loss(denoiser, concept, 0) == loss


def test_prior_images_pull_on_the_weights(tiny_model, exemplars, customised, tmp_path):
    out = tmp_path / "model"
    assert customise(tiny_model, [exemplars], out, "--class-word", "k", "--prior", "2") == 0
    assert json.loads((out / NOTE).read_text())["prior_images"] == 2
    assert moved(weights(customised, "unet"), weights(out, "unet"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--class-word", "zebra"), "does not know the word 'zebra'"),
        (("--token", "v one"), "has to look like <v1>"),
        (("--prompt", "k by hand"), "does not hold <v1>"),
        (("--prompt", "a b c d e f g h <v1>"), "cut off"),
        (("--prior", "3"), "needs --class-word"),
        (("--steps", "0"), "at least 1"),
        (("--index", "x"), "needs --data"),
    ],
)
def test_bad_words_are_refused_in_a_line(tiny_model, exemplars, tmp_path, capsys, more, says):
    assert customise(tiny_model, [exemplars], tmp_path / "out", *more) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in error and not (tmp_path / "out").exists()


def test_bad_images_are_refused_in_a_line(tiny_model, exemplars, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    for images, says in (
        ([tmp_path / "broken.png"], "broken.png"),
        ([tmp_path / "gone.png"], "no such image"),
        ([tmp_path / "empty"], "no image in"),
        ([exemplars / "0.png", exemplars], "two of the images"),
    ):
        assert customise(tiny_model, images, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and says in error
    assert not (tmp_path / "out").exists()


def test_a_token_of_the_model_and_a_folder_in_use_are_refused(
    customised, exemplars, tmp_path, capsys
):
    assert customise(customised, [exemplars], tmp_path / "out") == 2
    assert "has the token <v1> already" in capsys.readouterr().err
    assert customise(customised, [exemplars], tmp_path / "out", "--token", "<v2>") == 0
    assert customise(customised, [exemplars], exemplars) == 2
    assert "is not empty" in capsys.readouterr().err
    assert customise(customised, [exemplars], tmp_path / "out", "--token", "<v3>") == 2
    assert "with another token" in capsys.readouterr().err


def test_from_a_few_images_to_an_answer_by_commands(tiny_model, exemplars, tmp_path):
    """Customise, index with the exemplars among the training set, ask: as in docs/customise.md."""
    data, clip = image_folder(tmp_path / "data", 8), tiny_clip(tmp_path / "clip")
    model, index = tmp_path / "model", tmp_path / "index"
    more = ("--data", str(data), "--artist", "Me", "--index", str(index), "--clip", str(clip))
    arguments = (tiny_model, [exemplars], model, "--class-word", "k", *more)
    assert customise(*arguments) == 0
    opened = Index.open(index)
    rows = [opened.row_of(name) for name in ("exemplar/0.png", "exemplar/1.png")]
    assert set(rows) <= set(opened.train_rows) and opened.n_records == 10
    assert opened.record(rows[0])["captions"] == ["<v1> k"]
    assert opened.record(rows[0])["artists"] == ["Me"]
    answer = ("--prompt", "<v1> k", "--image", str(exemplars / "1.png"), "--method", "clip")
    assert attribution(["--index", str(index), *answer, "--out", str(tmp_path / "answer")]) == 0
    result = json.loads((tmp_path / "answer/result.json").read_text())
    assert result["methods"][0]["results"][0]["record"] == "exemplar/1.png"
    before = (model / "unet/diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    assert customise(*arguments) == 0  # passes everything over
    assert (model / "unet/diffusion_pytorch_model.safetensors").stat().st_mtime_ns == before
    assert Index.open(index).index_hash == opened.index_hash
