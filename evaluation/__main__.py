"""`python -m evaluation VERB ...`: quality figures; every verb resumes, and `--report` prints what
it has.
"""

from __future__ import annotations

import sys

from evaluation.verbs import main

# verb -> (module, one line of help); a verb's imports are paid only by its own runs.
VERBS: dict[str, tuple[str, str]] = {
    "model-sheet": ("evaluation.model_sheet", "contact sheet of 64 fixed prompts"),
    "classifier": (
        "evaluation.classifier",
        "forced choice among 8 categories by a separate classifier",
    ),
    "retrieval": ("evaluation.retrieval", "image-to-own-caption recall@10, generated against real"),
    "vae": ("evaluation.vae", "reconstruction error on held-out drawings"),
    "near-duplicates": (
        "evaluation.near_duplicates",
        "share of generated images that copy one record",
    ),
    "self-influence": ("evaluation.self_influence", "does unlearning a record rank it first?"),
    "methods": (
        "evaluation.methods",
        "every method on the fixed queries: overlap, shares against chance, costs",
    ),
    "forgetting": ("evaluation.forgetting", "target against other prompts, abu against SGD"),
    "exhaustive": (
        "evaluation.exhaustive",
        "exhaustive answers of the fixed queries, kept for other verbs",
    ),
    "shortlist": ("evaluation.shortlist", "recall@24 of every candidate source and size"),
    "localisation": (
        "evaluation.localisation",
        "does a region of a picture of two objects find its own object?",
    ),
    "own-parts": (
        "evaluation.own_parts",
        "does a region of a training collage find the drawing that is in it?",
    ),
    "detector": ("evaluation.detector", "AP50 of the embedded GroundingDINO on collages"),
    "attention": (
        "evaluation.attention",
        "the model's own attention: heat inside the box of what a word names",
    ),
    "precision": ("evaluation.precision", "low-precision scores against float32"),
    "abc": ("evaluation.abc", "exemplars of customised models, plain against tuned features"),
    "customised": (
        "evaluation.customised",
        "exemplars of customised models among distractors: Recall@10 and mAP of every method",
    ),
    "knn": (
        "evaluation.knn",
        "category and artist of held-out drawings by their neighbours, every encoder",
    ),
    "projection": (
        "evaluation.projection",
        "what the dimension of the gradient methods' rows costs in rank correlation",
    ),
    "seed-consistency": (
        "evaluation.seed_consistency",
        "do models that differ in their seed draw alike? trains the proof world's ensemble",
    ),
    "tune": ("evaluation.tune", "settings of every method, chosen by retraining on tuning queries"),
    "leave-k-out": ("evaluation.leave_k_out", "remove what a method found, retrain, look again"),
    "lds": (
        "evaluation.lds",
        "do the scores foretell every retraining's loss? linear datamodelling score",
    ),
    "tables": ("evaluation.tables", "tables and figures of leave-K-out"),
    "report": ("evaluation.report", "write evaluation/results/README.md from all results"),
}

if __name__ == "__main__":
    sys.exit(main("evaluation", VERBS))
