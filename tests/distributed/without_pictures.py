"""The command line with blank pictures in its reports, for torchrun: to draw them takes most of the time of a short run."""

from __future__ import annotations

import sys
from typing import Any

from modular_manifolds.cli.main import main
from modular_manifolds.training import figures

FIGURES = ("learning", "singular_values", "split", "bounds", "certified")


def leave_out_pictures() -> None:
    """Draw nothing in this process."""
    drawn: Any = figures
    for name in FIGURES:
        setattr(drawn, name, lambda *_: None)
    drawn.as_svg = lambda _: "<svg></svg>"


if __name__ == "__main__":
    leave_out_pictures()
    sys.exit(main())
