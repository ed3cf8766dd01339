"""EDGE: the authors' own package, groundingdino-py 0.4.0, as an optional detector.

    pip install -r requirements-groundingdino.txt           # after reading docs/detection.md
    export WHENCE_GROUNDINGDINO_WEIGHTS=groundingdino_swint_ogc.pth

The package was written for transformers 4: `repaired` lends BertModel the three methods that
transformers 5 took away.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from attribution.detection.grounding_dino import Grounder, encode, to_pixels
from attribution.detection.words import as_prompt
from attribution.quiet import quiet_loading
from attribution.types import UserError

WEIGHTS = "WHENCE_GROUNDINGDINO_WEIGHTS"  # a .pth or .safetensors file
CONFIG = "WHENCE_GROUNDINGDINO_CONFIG"  # a .py file of the package's kind; its Swin-T by default
TEXT = "WHENCE_GROUNDINGDINO_TEXT"  # a folder with the BERT; else bert-base-uncased from the hub
SWIN_T = "config/GroundingDINO_SwinT_OGC.py"


class GroundingDinoPy(Grounder):
    """The package's model. weights, config, text: paths; None takes them from the environment."""

    name = "groundingdino-py"

    def __init__(
        self,
        weights: str | Path | None = None,
        config: str | Path | None = None,
        text: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        self.weights = weights or os.environ.get(WEIGHTS)
        self.config = config or os.environ.get(CONFIG)
        self.text = text or os.environ.get(TEXT)
        self.device = torch.device(device)

    def opened(self) -> Any:
        """Built and filled by the package's own code; UserError where a part is missing."""
        if why := lacking(self.weights):
            raise UserError(why)
        try:
            with quiet_loading(), repaired(), redirect_stdout(StringIO()):
                model = _built(self.config, self.text, self.device)
                _fill(model, Path(str(self.weights)))
        except (ImportError, OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot open groundingdino-py: {reason}") from None
        return model.eval().requires_grad_(False).to(self.device)

    @torch.no_grad()
    def outputs(
        self, image: Image.Image, phrases: Sequence[str]
    ) -> tuple[Tensor, Tensor, dict[str, list[int]]]:
        """See `Grounder.outputs`."""
        ids, spans = encode(self._model.tokenizer, phrases, int(self._model.max_text_len))
        pixels = to_pixels(image, {})[None].to(self.device)
        with repaired():
            made = self._model(pixels, captions=[as_prompt(list(spans))])
        return made["pred_logits"][0, :, : len(ids)], made["pred_boxes"][0], spans


def lacking(weights: str | Path | None = None) -> str:
    """Why this detector cannot be used here, in a line; "" where it can."""
    if find_spec("groundingdino") is None:
        return (
            "the package groundingdino-py is not installed: see requirements-groundingdino.txt "
            "and docs/detection.md"
        )
    path = weights or os.environ.get(WEIGHTS)
    if not path:
        return f"groundingdino-py has no weights: set {WEIGHTS} to its checkpoint file"
    return "" if Path(path).is_file() else f"groundingdino-py has no weights: no file {path}"


def _built(config: str | Path | None, text: str | Path | None, device: torch.device) -> Any:
    """The package's network with random weights."""
    import groundingdino
    from groundingdino.models import build_model
    from groundingdino.util.slconfig import SLConfig

    path = config or Path(groundingdino.__file__).parent / SWIN_T
    settings = SLConfig.fromfile(str(path))
    settings.device = str(device)
    settings.use_checkpoint = settings.use_transformer_ckpt = False  # only for training
    if text:
        settings.text_encoder_type = str(text)
    return build_model(settings)


def _fill(model: Any, path: Path) -> None:
    """Load a checkpoint; ValueError where it leaves weights as random as they are."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("model", state)
    state = {name.removeprefix("module."): value for name, value in state.items()}
    missing = model.load_state_dict(state, strict=False).missing_keys
    # position_ids: a constant that some versions of BERT save and others do not
    missing = [name for name in missing if not name.endswith("position_ids")]
    if missing:
        raise ValueError(f"{path} has no weights for {missing[0]} and {len(missing) - 1} others")


@contextmanager
def repaired() -> Iterator[None]:
    """What groundingdino-py 0.4.0 expects of BertModel and transformers 5 took away, for as long as
    this runs: get_extended_attention_mask, invert_attention_mask, get_head_mask.
    """
    from transformers import BertModel

    methods = {
        "get_extended_attention_mask": _extended_attention_mask,
        "invert_attention_mask": _invert_attention_mask,
        "get_head_mask": _head_mask,
    }
    lent = [name for name in methods if not hasattr(BertModel, name)]
    for name in lent:
        setattr(BertModel, name, methods[name])
    try:
        yield
    finally:
        for name in lent:
            delattr(BertModel, name)


def _extended_attention_mask(self: Any, mask: Tensor, *_: Any, **__: Any) -> Tensor:
    """Mask [B, L] or [B, L, L], 1 where attended → additive [B, 1, 1 or L, L] for the scores."""
    wide = mask[:, None, :, :] if mask.dim() == 3 else mask[:, None, None, :]
    dtype = next(self.parameters()).dtype
    return (1.0 - wide.to(dtype)) * torch.finfo(dtype).min


def _invert_attention_mask(self: Any, mask: Tensor) -> Tensor:
    """The same for the mask of an encoder's states."""
    return _extended_attention_mask(self, mask)


def _head_mask(self: Any, head_mask: Any, layers: int, *_: Any, **__: Any) -> list[None]:
    """No head is masked: GroundingDINO never asks for it."""
    if head_mask is not None:
        raise ValueError("masks of heads are not supported")
    return [None] * layers
