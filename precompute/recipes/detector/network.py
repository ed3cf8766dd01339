"""The network and its words: a small GroundingDinoForObjectDetection and a WordPiece vocabulary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers.trainers import WordPieceTrainer
from transformers import (
    BertConfig,
    BertTokenizer,
    ConvNextConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
)

from precompute.recipes.detector.config import DetectorConfig

# The class knows these by number: a phrase ends at any of 101, 102, 1012, 1029.
FIXED = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PREFERRED_MEAN = 0.5


def train_words(phrases: Sequence[str], config: DetectorConfig) -> BertTokenizer:
    """A BertTokenizer whose word pieces are learned from the phrases; any Latin letter and digit is
    in it, so that no lower-case word is unknown. The same phrases give the same vocabulary.
    """
    letters = sorted({*LETTERS, *(c for phrase in phrases for c in phrase.lower() if c.isalnum())})
    single = [*letters, *(f"##{letter}" for letter in letters)]
    blank = BertTokenizer(vocab={name: row for row, name in enumerate(FIXED)}).backend_tokenizer
    # As special tokens the letters are numbered first and in this order; the trainer would number
    # them as it meets them, in an order that differs from run to run, and so break ties otherwise.
    trainer = WordPieceTrainer(
        vocab_size=config.vocab_size - 1,
        special_tokens=[*FIXED, *single],
        show_progress=False,
    )
    blank.train_from_iterator(sorted(phrases), trainer)
    learned = json.loads(blank.to_str())["model"]["vocab"]
    pieces = [piece for piece, _ in sorted(learned.items(), key=lambda item: item[1])]
    return BertTokenizer(vocab=_numbered(pieces), model_max_length=config.max_tokens)


def _numbered(pieces: Sequence[str]) -> dict[str, int]:
    """Numbers for all pieces around the fixed ones; `[unused…]` fills what would be a gap."""
    taken = set(FIXED.values())
    wanted = [piece for piece in dict.fromkeys(pieces) if piece not in FIXED]
    vocab = dict(FIXED)
    number = 0
    while wanted or number <= max(taken):
        if number not in taken:
            vocab[wanted.pop(0) if wanted else f"[unused{number}]"] = number
        number += 1
    return dict(sorted(vocab.items(), key=lambda item: item[1]))


def build_network(config: DetectorConfig, vocab_size: int) -> GroundingDinoForObjectDetection:
    """Untrained, seeded; the caller's random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = GroundingDinoForObjectDetection(settings_of(config, vocab_size))
        _begin_well(network, config)
    return network


def settings_of(config: DetectorConfig, vocab_size: int) -> GroundingDinoConfig:
    """The sizes as the class's own configuration."""
    stages = len(config.backbone)
    backbone = ConvNextConfig(
        patch_size=config.patch,
        num_stages=stages,
        hidden_sizes=list(config.backbone),
        depths=list(config.depths),
        layer_scale_init_value=0.1,
        out_features=[f"stage{stages - 1}", f"stage{stages}"],
    )
    text = BertConfig(
        vocab_size=vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.heads,
        intermediate_size=config.hidden,
        max_position_embeddings=config.max_tokens,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=config.width,
        num_queries=config.queries,
        num_feature_levels=2,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_ffn_dim=config.hidden,
        decoder_ffn_dim=config.hidden,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        max_text_len=config.max_tokens,
        dropout=0.0,
        fusion_droppath=0.0,
        disable_custom_kernels=True,
    )


@torch.no_grad()
def _begin_well(network: Any, config: DetectorConfig) -> None:
    """Where training starts: every pair of query and token improbable, both senses fused.

    A logit is a query's state times a token's state, both from a layer norm, so their spread would
    be √width at the start. The text's last norm is scaled down to a spread of about 1, and opposite
    constant biases put the mean at `logit_prior`: layer-normed states sum to zero, so the constants
    meet only each other.
    """
    model = network.model
    text = model.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    shift = (abs(config.logit_prior) / config.width) ** 0.5
    text.weight.fill_(config.width**-0.5)
    text.bias.fill_(-shift)
    for norm in (model.decoder.layer_norm, model.enc_output_norm):
        norm.bias.fill_(shift)
    for layer in model.encoder.layers:
        layer.fusion_layer.vision_param.fill_(config.fusion_gate)
        layer.fusion_layer.text_param.fill_(config.fusion_gate)


def save_detector(
    network: GroundingDinoForObjectDetection,
    tokenizer: BertTokenizer,
    config: DetectorConfig,
    folder: Path,
) -> None:
    """A folder that GroundingDinoForObjectDetection, AutoTokenizer and GroundingDinoProcessor open:
    half-precision weights, the vocabulary, and how pictures are prepared.
    """
    network.half().save_pretrained(folder)
    network.float()
    tokenizer.save_pretrained(folder)
    settings = {
        "image_processor_type": "GroundingDinoImageProcessor",
        "processor_class": "GroundingDinoProcessor",
        "size": {"shortest_edge": config.side, "longest_edge": config.side},
        "resample": 1,  # Lanczos, as the denoiser's own pictures
        "image_mean": [PREFERRED_MEAN] * 3,
        "image_std": [PREFERRED_MEAN] * 3,
        "do_pad": False,
    }
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
