"""The processes, layouts and models of the sharded training runs."""

from __future__ import annotations

from typing import Final

CASES: Final = (
    (2, "fsdp", ("mlp", "gpt", "gpt2")),
    (2, "hsdp", ("mlp",)),
    (2, "tp", ("mlp", "gpt", "gpt2")),
    (2, "fsdp_tp", ("mlp",)),
    (4, "fsdp", ("mlp", "gpt", "gpt2")),
    (4, "hsdp", ("mlp", "gpt2")),
    (4, "tp", ("mlp", "gpt2")),
    (4, "fsdp_tp", ("mlp", "gpt", "gpt2")),
)
"""Processes, layout and models. GPTs of all layouts give the same differences, and take longest.
Of two processes, those of `hsdp` and `fsdp_tp` have a mesh of 2×1."""
ALL: Final = tuple((world, layout, name) for world, layout, names in CASES for name in names)
USUAL: Final = (
    *((2, "fsdp", name) for name in ("mlp", "gpt2")),
    *((2, layout, "mlp") for layout in ("hsdp", "tp", "fsdp_tp")),
)
"""Those of a plain run."""
