"""Anderson mixing: a fixed point from the last few rounds instead of the last one."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor


class Mixing:
    """`x ← x + f(x)`, with the combination of the last points whose steps f nearly cancel.

    Source: D. G. Anderson, "Iterative procedures for nonlinear integral equations" (1965), in the form of H. Walker, P. Ni,
    "Anderson acceleration for fixed-point iterations" (2011).
    """

    def __init__(self) -> None:
        self._points: list[Tensor] = []
        self._steps: list[Tensor] = []

    def next(self, point: Tensor, step: Tensor, weight: Tensor) -> Tensor:
        """The next point, after `step = f(point)`, with `weight` on each entry; shapes (*batch, m, 1)."""
        self._points = [*self._points, point][-MEMORY - 1 :]
        self._steps = [*self._steps, step][-MEMORY - 1 :]
        if len(self._steps) == 1:
            return point + step
        moved = torch.cat([point - each for each in self._points[:-1]], dim=-1)
        changed = torch.cat([step - each for each in self._steps[:-1]], dim=-1)
        root = weight.sqrt()
        a, b = (root * changed).double(), (root * step).double()
        # Columns of unit length: the differences shrink from round to round.
        size = torch.linalg.vector_norm(a, dim=-2, keepdim=True).clamp_min(1e-300)
        a = a / size
        normal = a.mT @ a
        normal.diagonal(dim1=-2, dim2=-1).add_(REGULARISATION)
        factor, _ = torch.linalg.cholesky_ex(normal, upper=True)
        half = torch.linalg.solve_triangular(factor.mT, a.mT @ b, upper=False)
        share = torch.linalg.solve_triangular(factor, half, upper=True) / size.mT
        return point + step - ((moved + changed).double() @ share).to(point.dtype)


MEMORY: Final = 5
"""The number of earlier rounds."""
REGULARISATION: Final = 1e-10
"""What is added to the diagonal of the normal equations of unit columns."""
