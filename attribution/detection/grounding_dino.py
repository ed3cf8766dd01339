"""EDGE: GroundingDINO in transformers' own class (Liu et al. 2023, "Grounding DINO").

>>> GroundingDino("IDEA-Research/grounding-dino-tiny").detect(image, "a stop sign. a motorcycle.")

Pictures are sized and normalised by hand: transformers' image processors take another path where
torchvision is installed, and so would round differently on another machine.
"""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attribution.detection import words
from attribution.detection.boxes import grounded
from attribution.detection.protocol import (
    LOADING,
    LOOKING,
    TEXT_THRESHOLD,
    THRESHOLD,
    Detection,
    Found,
)
from attribution.preprocessing import read_settings
from attribution.quiet import quiet_loading
from attribution.types import Progress, Query, UserError

HUB_ID = "IDEA-Research/grounding-dino-tiny"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHORTEST, LONGEST = 800, 1333
LEAST_SIDE = 32  # px of the network's input: below, its coarsest feature map would be empty
DOT = "."
PATIENCE = 3.0  # seconds for a connection to the hub


class Grounder(ABC):
    """What the detectors that read boxes off a picture share: phrases, progress, one model."""

    name = "grounding-dino"

    def __init__(self) -> None:
        self._model: Any = None

    def detect(
        self,
        image: Image.Image,
        text: str,
        threshold: float = THRESHOLD,
        text_threshold: float = TEXT_THRESHOLD,
    ) -> list[Detection]:
        """See `protocol.Detector.detect`."""
        wanted = words.phrases(text)
        self.load()
        logits, boxes, spans = self.outputs(image.convert("RGB"), wanted)
        return grounded(logits, boxes, spans, image.size, threshold, text_threshold)

    def run(
        self, query: Query, text: str, threshold: float, text_threshold: float
    ) -> Iterator[Progress | Found]:
        """See `protocol.Detector.run`."""
        wanted = words.phrases(text)
        if self._model is None:
            yield Progress(LOADING, 0, 1)
            self.load()
        yield Progress(LOOKING, 0, 1)
        found = self.detect(query.image, text, threshold, text_threshold)
        yield Found(self.name, wanted, tuple(found))

    def load(self) -> None:
        """Open the model unless it is open; UserError where it cannot be."""
        if self._model is None:
            self._model = self.opened()

    @abstractmethod
    def opened(self) -> Any:
        """The network, ready to run."""

    @abstractmethod
    def outputs(
        self, image: Image.Image, phrases: Sequence[str]
    ) -> tuple[Tensor, Tensor, dict[str, list[int]]]:
        """(logits [queries, tokens], centres [queries, 4], spans) for one RGB picture."""


class GroundingDino(Grounder):
    """`source`: a folder with a GroundingDinoForObjectDetection and its tokenizer, or a hub id."""

    def __init__(
        self,
        source: str | Path = HUB_ID,
        device: str | torch.device = "cpu",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.source, self.device, self.revision = source, torch.device(device), revision
        self.tokenizer: Any = None
        self.settings: dict[str, Any] = {}

    def opened(self) -> Any:
        """From the folder, the hub's cache, or the hub; UserError where it is in none of them."""
        with quiet_loading():
            model, self.tokenizer = _from_anywhere(self.source, self.revision)
            self.settings = read_settings(self.source, self.revision)
        return model.float().eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def outputs(
        self, image: Image.Image, phrases: Sequence[str]
    ) -> tuple[Tensor, Tensor, dict[str, list[int]]]:
        """See `Grounder.outputs`."""
        longest = int(self._model.config.max_text_len)
        ids, spans = encode(self.tokenizer, phrases, longest)
        made = self._model(
            pixel_values=to_pixels(image, self.settings)[None].to(self.device),
            input_ids=torch.tensor([ids], device=self.device),
        )
        return made.logits[0, :, : len(ids)], made.pred_boxes[0], spans


def encode(
    tokenizer: Any, phrases: Sequence[str], longest: int
) -> tuple[list[int], dict[str, list[int]]]:
    """([CLS] phrase . phrase . [SEP], spans): what the tokenizer makes of `words.as_prompt`.

    At most `longest` tokens: phrases that no longer fit are left out; UserError where the first
    does not.
    """
    dot = tokenizer.convert_tokens_to_ids(DOT)
    ids, spans = [int(tokenizer.cls_token_id)], dict[str, list[int]]()
    for phrase in phrases:
        tokens = tokenizer(phrase, add_special_tokens=False)["input_ids"]
        if not tokens or len(ids) + len(tokens) + 2 > longest:
            continue
        spans[phrase] = list(range(len(ids), len(ids) + len(tokens)))
        ids += [*(int(token) for token in tokens), int(dot)]
    if not spans:
        raise UserError("what to detect is too long for the detector: name it in fewer words")
    return [*ids, int(tokenizer.sep_token_id)], spans


def to_pixels(image: Image.Image, settings: dict[str, Any]) -> Tensor:
    """An RGB picture as the network expects it, float32 [3, h, w]; its shape is kept.

    settings: of the saved image processor; an empty one means those of the published models.
    """
    size = settings.get("size") or {}
    width, height = fitted(
        image.size, size.get("shortest_edge", SHORTEST), size.get("longest_edge", LONGEST)
    )
    filter_ = Image.Resampling(int(settings.get("resample", Image.Resampling.BILINEAR)))
    sized = image if image.size == (width, height) else image.resize((width, height), filter_)
    values = torch.from_numpy(np.asarray(sized, dtype=np.float32) / 255.0).permute(2, 0, 1)
    mean = torch.tensor(settings.get("image_mean", MEAN)).view(3, 1, 1)
    std = torch.tensor(settings.get("image_std", STD)).view(3, 1, 1)
    return (values - mean) / std


def fitted(size: tuple[int, int], shortest: int, longest: int) -> tuple[int, int]:
    """(width, height) with the shorter side at `shortest`, or the longer one at `longest` where it
    would be longer; very long pictures are squeezed so that no side is below 32 px.
    """
    short, long = min(size), max(size)
    exact: float = shortest
    if long / short * shortest > longest:
        exact = longest * float(short) / float(long)
    # the arithmetic of transformers' own processors, so that sizes agree to the pixel
    sides = round(exact), int(exact * long / short)
    if short == sides[0]:
        sides = short, long
    least = min(LEAST_SIDE, longest)
    low, high = max(least, sides[0]), max(least, sides[1])
    return (low, high) if size[0] <= size[1] else (high, low)


def _from_anywhere(source: str | Path, revision: str | None) -> tuple[Any, Any]:
    """(model, tokenizer): a folder, else the hub's cache, else the hub itself."""
    local = Path(source).is_dir()
    try:
        return _open(source, revision, offline=True)
    except (OSError, ValueError, RuntimeError) as error:
        if local:
            raise UserError(f"cannot open the detector {source}: {_line(error)}") from None
    if not hub_allowed() or not hub_answers():
        raise UserError(_missing(source))
    try:
        return _open(source, revision, offline=False)
    except Exception as error:  # the hub's clients raise many kinds
        raise UserError(f"{_missing(source)} ({_line(error)})") from None


def _open(source: str | Path, revision: str | None, *, offline: bool) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, GroundingDinoForObjectDetection

    where: dict[str, Any] = {"revision": revision, "local_files_only": offline}
    tokenizer = AutoTokenizer.from_pretrained(str(source), **where)
    model, notes = GroundingDinoForObjectDetection.from_pretrained(
        str(source), output_loading_info=True, **where
    )
    if notes["missing_keys"]:
        raise ValueError(f"weights are missing: {sorted(notes['missing_keys'])[0]}, …")
    return model, tokenizer


def hub_allowed() -> bool:
    """Whether this process may ask the hub (HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE)."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return not any(os.environ.get(n, "").lower() in ("1", "true", "yes", "on") for n in names)


def hub_answers() -> bool:
    """Whether the hub's machine takes a connection now; behind a proxy nobody can say, so yes.

    The hub's client itself would try for most of a minute.
    """
    from huggingface_hub.constants import ENDPOINT

    if getproxies():
        return True
    address = urlsplit(ENDPOINT)
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=PATIENCE):
            return True
    except OSError:
        return False


def cached(hub_id: str, revision: str | None = None) -> bool:
    """Whether the hub's cache holds the configuration of a model; asks nobody. What cannot be the
    id of a model, as a path, is in no cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    except HFValidationError:
        return False
    return isinstance(found, str)


def _missing(source: str | Path) -> str:
    return (
        f"the detector {source} is neither a folder nor in the hub's cache, and the hub cannot be "
        "reached: choose another detector, or download it once with a connection"
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
