"""Draw the pictures of the pages, from the library itself.

    python docs/pictures [FOLDER]

Without a folder they are written to docs/figures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import manifold_step
import matplotlib as mpl
import method_grid
import rate_split
import scale_ways
import three_bounds

FIGURES = Path(__file__).parents[1] / "figures"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

if __name__ == "__main__":
    # The folder of the computation of scale, which is not installed.
    sys.path.append(str(BENCHMARKS))
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES
    with mpl.rc_context({"svg.hashsalt": "modular-manifolds", "font.family": "DejaVu Sans"}):
        for picture in (manifold_step, rate_split, three_bounds, method_grid, scale_ways):
            picture.draw(folder / f"{picture.__name__}.svg")
