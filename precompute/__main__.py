"""`python -m precompute VERB ...`: makes data sets, models and indexes; one verb per file."""

from __future__ import annotations

import sys
from importlib import import_module

from attribution.commands import Parser, one_line, quiet_libraries
from attribution.types import UserError

# verb -> (module, one line of help); a verb's imports are paid only by its own runs.
VERBS: dict[str, tuple[str, str]] = {
    "index": (
        "precompute.index",
        "make or resume a whole index: every verb below, down to gradients",
    ),
    "dataset": ("precompute.dataset", "read images and captions into the index's shards"),
    "latents": ("precompute.latents", "VAE latents of every record and its mirror image"),
    "losses": ("precompute.losses", "base losses of every record, caption, flip and timestep"),
    "fisher": ("precompute.fisher", "diagonal and EK-FAC curvature of the training loss"),
    "variants": (
        "precompute.variants",
        "curvature for the ablations of unlearning, beside the index",
    ),
    "features": ("precompute.features", "CLIP rows; --encoder: DINO's and others'"),
    "gradients": ("precompute.gradients", "projected loss gradients: first-order scores (Eq. 16)"),
    "trak": ("precompute.trak", "rows of TRAK, JourneyTRAK and DataInf; --models: an ensemble"),
    "dtrak": ("precompute.dtrak", "rows of D-TRAK, which also name unlearning its candidates"),
    "customise": ("precompute.customise", "teach a model a new word from a few images"),
    "abc": ("precompute.abc", "heads tuned on customised models, for clip-abc and dino-abc"),
    "examples": ("precompute.examples", "answers kept with an index, shown by the page at once"),
    "retrain": ("precompute.retrain", "train the UNet anew without some records, look again"),
    "proofs": ("precompute.proofs", "finished proofs by retraining, shown by the page at once"),
    "recipe": ("precompute.recipe", "make a training set, e.g. `recipe openclipart`"),
    "train": ("precompute.train", "train the embedded model"),
    "assets": ("precompute.assets", "remake all in assets/ that derives from the model and data"),
    "bytes": ("precompute.byte_table", "print what every part of assets/ weighs"),
}


def _usage() -> str:
    lines = [f"  {verb:10} {text}" for verb, (_, text) in VERBS.items()]
    return "usage: python -m precompute VERB [--help] ...\n\nverbs:\n" + "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """0 when done, 2 for bad input with one line on stderr."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] not in VERBS:
        print(f"precompute: no verb {argv[0]!r}; one of: {', '.join(VERBS)}", file=sys.stderr)
        return 2
    quiet_libraries()
    module = import_module(VERBS[argv[0]][0])
    parser = Parser(f"python -m precompute {argv[0]}", description=module.__doc__)
    module.add_arguments(parser)
    try:
        module.run(parser.parse_args(argv[1:]))
    except (UserError, OSError) as error:  # OSError: a full disk, a folder that may not be written
        print(f"precompute {argv[0]}: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command resumes", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
