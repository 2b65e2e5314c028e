"""`python -m modular_manifolds`: the command line, in the form that torchrun starts."""

from __future__ import annotations

import sys

from modular_manifolds.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
