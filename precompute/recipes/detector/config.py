"""Every hyper-parameter of the embedded detector.

The class is transformers' GroundingDinoForObjectDetection; its sizes are for a CPU: 1.6 M
parameters, 3.3 MB in half precision. The picture comes in at 64 px, the size the embedded model
draws, and the patches are of 2 px, so that the feature maps (16 x 16 and 8 x 8 cells) are as fine
as those of a four times larger picture in the published models.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectorConfig:
    """Sizes, data and schedule of one training run."""

    side: int = 64  # px, the longer side of the input
    # ConvNeXt stages; the last two are what the transformer sees. A ResNet would come with batch
    # norms that the class freezes as they are drawn, so nothing could be trained from scratch.
    backbone: tuple[int, ...] = (32, 64, 128)
    depths: tuple[int, ...] = (2, 2, 2)
    patch: int = 2  # px
    width: int = 96  # d_model; a multiple of 32, for the class's group norms
    heads: int = 6
    hidden: int = 192  # of the feed-forward layers
    encoder_layers: int = 2
    decoder_layers: int = 3
    queries: int = 24
    text_layers: int = 2
    vocab_size: int = 2000
    max_tokens: int = 64

    batch_size: int = 32
    steps: int = 4500
    warmup_steps: int = 300
    decay_steps: int = 2000  # linear to zero at the end
    learning_rate: float = 6e-4
    weight_decay: float = 0.02
    ema_decay: float = 0.999
    seed: int = 0

    real_share: float = 0.25  # of a batch: the set's own drawings and collages, the rest composed
    objects: tuple[float, ...] = (
        0.15,
        0.6,
        0.25,
    )  # chances of 1, 2 and 3 objects in a composed one
    most_absent: int = 3  # phrases of a prompt that name nothing in the picture
    proposals: int = 6  # cells of the encoder that learn one object together
    logit_prior: float = -4.0  # logit of every (query, token) pair before training
    fusion_gate: float = 0.1  # share of the other modality at the start; 1e-4 in the class


RECIPES = {"openclipart": DetectorConfig()}
