"""Runs the arena: `python benchmarks/arena`, or `python -m arena` with benchmarks/ on the path."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from arena.command import main

    main()
