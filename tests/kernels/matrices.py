"""Matrices for the kernels' tests, and how far a result may be from its specification in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SHAPES = [(1, 1), (17, 17), (63, 65), (64, 64), (65, 64), (100, 70), (128, 128), (3, 20, 33)]
"""Odd and even, one tile and several, square, tall and wide, one matrix and a stack."""

FLOAT32 = 5e-6
BFLOAT16 = 2e-2
"""Relative error in the Frobenius norm: the bar for products in float32 and in bfloat16."""


def well_conditioned(*shape: int, lowest: float = 0.3) -> Tensor:
    """A random matrix (or stack) with singular values from 1 down to `lowest`, float64."""
    u, _, v = torch.linalg.svd(torch.randn(*shape, dtype=torch.float64), full_matrices=False)
    values = torch.logspace(0, math.log10(lowest), u.shape[-1], dtype=torch.float64)
    return (u * values) @ v


def polar(x: Tensor) -> Tensor:
    """The exact matrix sign in float64."""
    u, _, v = torch.linalg.svd(x.double(), full_matrices=False)
    return u @ v


def error(found: Tensor, wanted: Tensor) -> float:
    """`‖found − wanted‖ / ‖wanted‖`; infinite where something found is not finite."""
    if not bool(found.isfinite().all()):
        return math.inf
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())
