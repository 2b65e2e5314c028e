"""The residual block, whose sensitivity does not grow with depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from modular_manifolds.arguments import check_count
from modular_manifolds.composition import tree as trees
from modular_manifolds.composition.leaf import identity
from modular_manifolds.composition.tree import Tree
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.module import Module, check_part
from modular_manifolds.nn.sharing import joined, refuse_shared_weights
from modular_manifolds.nn.tuples import apply_part


class Residual(Module):
    """`(1 − 1/L) · x + (1/L) · block(x)` with L = `depth`: sensitivity 1 if the block's is 1.

    Repeat it L times (`mm.Residual(block, depth=L) ** L`) for a residual network whose sensitivity
    does not grow with depth. Source: Large et al. (2024), section 3.

    Raises:
        ArgumentError: `depth` is not a positive whole number.
        SpaceError: the block's source and target differ.
    """

    def __init__(self, block: Module, *, depth: int) -> None:
        super().__init__()
        self.block: Module = check_part(block, argument="Residual(block)")
        self.depth: int = check_count(
            depth, argument="Residual(depth)", what="blocks in the whole chain"
        )
        self.tree()

    def tree(self, path: str = "") -> Tree:
        if not path:
            refuse_shared_weights(self)
        block = self.block.tree(joined(path, "block"))
        skip = identity(joined(path, "skip"))
        if self.depth == 1:
            trees.Sum(path, (skip, block))  # raises if the block's source and target differ
            return block
        weight = 1.0 / self.depth
        return trees.Sum(
            path,
            (
                trees.Scale(joined(path, "skip"), 1.0 - weight, skip),
                trees.Scale(joined(path, "block"), weight, block),
            ),
        )

    def geometries(self, path: str = "") -> Iterator[tuple[str, Geometry]]:
        return self.block.geometries(joined(path, "block"))

    def forward(self, x: Any) -> Any:
        return interpolate(x, apply_part(self.block, x), 1.0 / self.depth)

    def extra_repr(self) -> str:
        return f"depth={self.depth}"


def interpolate(x: Any, y: Any, weight: float) -> Any:
    """`(1 − weight) x + weight y` of tensors, or of tuples part by part; for a weight of at most 1/2, or 1."""
    if isinstance(x, tuple):
        return tuple(interpolate(a, b, weight) for a, b in zip(x, y, strict=True))
    return torch.lerp(x, y, weight)
