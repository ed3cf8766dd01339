"""Typed endpoints beside the page (contract: ARCHITECTURE.md, "Page API"), for `gradio_client` and
curl.

>>> from gradio_client import Client, handle_file
>>> client = Client("http://127.0.0.1:7860")
>>> client.predict(prompt="an ice cream cone", seed=7, api_name="/generate")
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from gradio.data_classes import FileData
from gradio.events import api
from PIL import Image

from app.files import Scratch
from app.jobs import MODEL, OUR_FAULT, Jobs, public, sentence
from attribution import defaults, validate
from attribution.detection.protocol import THRESHOLD, Found
from attribution.detection.registry import AUTO
from attribution.engine import Engine
from attribution.images import read_image
from attribution.report import png_bytes
from attribution.types import Attribution, Cancelled, Query, UserError

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

TOLD = ("name", "kind", "title", "available", "why")


def add_endpoints(engine: Engine, jobs: Jobs) -> None:
    """Register the contract's endpoints in the page being built."""
    served, shown = Served(), engine.top_k()

    @_words_for_errors
    def methods() -> list[dict]:
        """Every method with whether it can be used here, and why not."""
        told = ({name: method[name] for name in TOLD} for method in engine.methods())
        return [{**method, "why": public(method["why"])} for method in told]

    @_words_for_errors
    def generate(prompt: str, seed: int) -> FileData:
        """The picture the model makes from a prompt and a seed."""
        checked = validate.prompt(prompt), validate.seed(seed)
        picture = _last(jobs.generate(*checked), Query).image
        return FileData(**served.file(picture, "picture.png"))

    @_words_for_errors
    def detect(
        image: FileData, text: str, threshold: float = THRESHOLD, detector: str = AUTO
    ) -> list[dict]:
        """Boxes of what the text names, in pixels of the image, best first."""
        found = _last(jobs.detect(served.opened(image), text, threshold, detector=detector), Found)
        return [{**asdict(one), "box": list(one.box)} for one in found.detections]

    @_words_for_errors
    def attribute(
        prompt: str,
        seed: int = 0,
        image: FileData | None = None,
        regions: list[list[float]] | None = None,
        methods: list[str] = [defaults.METHOD],  # noqa: B006  gradio shows the default to clients
        top_k: int = shown,
        called: str = "",
    ) -> dict:
        """The training pictures that mattered most, as the command line's result.json; `error`
        joins it where only some of the methods could answer.
        """
        names = validate.methods(methods, {m["name"]: m for m in engine.methods()})
        k = engine.top_k(top_k)
        text, words = validate.prompt(prompt), validate.called(called, bool(regions))
        picture = None if image is None else served.opened(image)
        size = (engine.resolution, engine.resolution) if picture is None else picture.size
        chosen = validate.regions(regions, size)
        if picture is None:
            query = _last(jobs.generate(text, validate.seed(seed)), Query)
        else:
            query = engine.upload(picture, text)
        query = replace(query, regions=chosen, called=words)
        answers, failed = _answers(jobs.attribute(query, names, k), names)
        result = served.result(engine, engine.result(query, answers, k))
        return {**result, "error": failed} if failed else result

    api(methods, api_name="methods", queue=False)
    api(generate, api_name="generate", **MODEL)
    api(detect, api_name="detect", **MODEL)
    api(attribute, api_name="attribute", **MODEL)


class Served:
    """Files between clients and the engine, all inside the server's own upload folder."""

    def __init__(self) -> None:
        self.scratch = Scratch()

    def opened(self, file: Any) -> Image.Image:
        """A client's upload. Gradio checks that files with its mark were uploaded; anything else is
        refused here.
        """
        meta = file.get("meta") if isinstance(file, dict) else None
        if not isinstance(meta, dict) or meta.get("_type") != "gradio.FileData":
            raise UserError("the image has to be a file: use gradio_client's handle_file")
        return read_image(file["path"])

    def file(self, image: Image.Image, name: str) -> dict[str, Any]:
        """An image as clients download it."""
        path = self.scratch.path(name)
        path.write_bytes(png_bytes(image))
        return {"path": str(path), "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def result(self, engine: Engine, result: dict[str, Any]) -> dict[str, Any]:
        """result.json with each record's file name replaced by its served image."""
        rows = [row for method in result["methods"] for row in method["results"]]
        records = engine.records([row["record"] for row in rows])
        for row, record in zip(rows, records, strict=True):
            row["file"] = self.file(record.image, Path(row["file"]).name)
        return {**result, "index": _no_paths(result["index"])}


def _no_paths(value: Any) -> Any:
    """Gradio's clients take anything with a `path` for a file to download, so a model's path in the
    index is called `folder` here.
    """
    if isinstance(value, dict):
        return {"folder" if k == "path" else k: _no_paths(v) for k, v in value.items()}
    return [_no_paths(item) for item in value] if isinstance(value, list) else value


def _last(items: Iterator[Any], kind: type[R]) -> R:
    """Run a generator of the engine to its end; its result, of the given kind, comes last."""
    result = None
    for item in items:
        result = item if isinstance(item, kind) else result
    if result is None:
        raise RuntimeError("the job ended without a result")
    return result


def _answers(items: Iterator[Any], names: Sequence[str]) -> tuple[list[Attribution], str]:
    """Each method's answer, and a sentence on those that failed, "" for none of them; the error
    itself where no method answered.
    """
    answers: list[Attribution] = []
    try:
        for item in items:
            answers += [item] if isinstance(item, Attribution) else []
    except Cancelled:
        raise
    except UserError as error:
        if not answers:
            raise
        return answers, sentence(str(error))
    except Exception:
        if not answers:
            raise
        log.exception("/attribute failed in part")
        there = {answer.method for answer in answers}
        missing = ", ".join(name for name in names if name not in there)
        return answers, f"Method {missing}: {OUR_FAULT}"
    return answers, ""


def _words_for_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Clients get the line meant for users, or an apology; never a traceback."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            raise gr.Error(sentence(str(error)), print_exception=False) from None
        except gr.Error:
            raise
        except Exception:
            log.exception("/%s failed", function.__name__)
            raise gr.Error(OUR_FAULT, print_exception=False) from None

    return guarded


__all__: Sequence[str] = ("add_endpoints",)
