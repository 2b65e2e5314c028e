"""The command line with blank pictures in its reports, for torchrun: to draw them takes most of the time of a short run."""

from __future__ import annotations

import sys

from modular_manifolds.cli.main import main
from modular_manifolds.training import figures

if __name__ == "__main__":
    figures.as_svg = lambda _: "<svg></svg>"
    sys.exit(main())
