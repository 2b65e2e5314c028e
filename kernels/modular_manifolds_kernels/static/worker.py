"""A process that compiles one configuration after another: JSON lines in, JSON lines out.

What the compiler raises ends the process; whoever started it reads the last line of the traceback and
starts another. So a crash of the compiler is no different from an error.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

from modular_manifolds_kernels.configuration import Configuration
from modular_manifolds_kernels.static.compile import compile_one
from modular_manifolds_kernels.static.row import row
from modular_manifolds_kernels.static.seal import sealed


def main() -> None:
    """Serve until the input ends. Nothing but rows goes to the output that was given."""
    rows = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1, encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for line in sys.stdin:
            configuration = Configuration(**json.loads(line))
            made = sealed(row(configuration, compile_one(configuration)), configuration)
            print(json.dumps(made.plain()), file=rows)


if __name__ == "__main__":
    main()
