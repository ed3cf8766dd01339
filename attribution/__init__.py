"""Whence: which training images made this picture? Attribution by unlearning, for text-to-image."""

import os as _os

# OpenMP's threads wait for one another at every operation, and GNU's spin for milliseconds before
# they sleep: where other programs hold a core, a picture takes ten times as long or more. So they
# spin for a hundredth of that (`python -m benchmarks crowded`). Read when torch is loaded.
if "OMP_WAIT_POLICY" not in _os.environ:
    _os.environ.setdefault("GOMP_SPINCOUNT", "3000")
