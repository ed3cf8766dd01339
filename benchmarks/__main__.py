"""`python -m benchmarks VERB ...`: speed and memory; `--report` prints the results so far."""

from __future__ import annotations

import sys

from evaluation.verbs import main

VERBS: dict[str, tuple[str, str]] = {
    "speed": ("benchmarks.speed", "a warm default query by stage, beside generating one image"),
    "trak": ("benchmarks.trak", "featurising for TRAK beside traker: time, memory, agreement"),
    "crowded": ("benchmarks.crowded", "pictures and forwards while other programs hold the cores"),
    "boot": ("benchmarks.boot", "time to the page and to the first answer, as a Space would boot"),
}

if __name__ == "__main__":
    sys.exit(main("benchmarks", VERBS))
