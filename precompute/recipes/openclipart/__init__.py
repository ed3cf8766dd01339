"""The Open Clip Art recipe: Debian's public-domain drawings → the embedded training set.

    apt-get install openclipart-svg fonts-dejavu-core
    python -m precompute recipe openclipart --out assets/openclipart

About two minutes on two cores; writes records.parquet, artists.csv, counts.json and LICENCE.md.
The result is a function of the package's bytes, of the fonts, of the tables beside the code, and of
the versions of resvg_py, Pillow and pyarrow: two runs give the same bytes.
"""

from precompute.recipes.openclipart.build import build
from precompute.recipes.openclipart.read import SVG_ROOT

__all__ = ["SVG_ROOT", "build"]
