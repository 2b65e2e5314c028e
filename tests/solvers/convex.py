"""Steepest descent as a convex problem, written from its definition and solved by an interior-point method."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.solvers.solution import Solution


def length_of(norm: mm.Norm, a: Any) -> Any:
    """The norm as the convex solver writes it."""
    import cvxpy as cp  # takes two seconds

    m, n = a.shape
    match norm:
        case mm.Frobenius():
            return cp.norm(a, "fro")
        case mm.Max():
            return cp.max(cp.abs(a))
        case mm.Spectral():
            return cp.sigma_max(a)
        case mm.RMSOperator():
            return math.sqrt(n / m) * cp.sigma_max(a)
        case mm.RowRMS():
            return cp.max(cp.norm(a, 2, axis=1)) / math.sqrt(n)
        case _:
            raise AssertionError(f"write {norm} down here for the convex solver")


def measured(manifold: mm.Manifold, w: np.ndarray, a: Any) -> Any:
    """The step as its norm measures it: on a fixed Gram matrix C the turn Ω of `A = ΩW`, for which `‖Ω‖ = ‖A C^{-1/2}‖`."""
    if not isinstance(manifold, mm.FixedGram):
        return a
    tall = w.shape[0] >= w.shape[1]
    values, vectors = np.linalg.eigh(w.T @ w if tall else w @ w.T)
    inverse_root = manifold.radius * (vectors / np.sqrt(values)) @ vectors.T
    return a @ inverse_root if tall else inverse_root @ a


def off_tangent(manifold: mm.Manifold, w: np.ndarray, a: np.ndarray) -> np.ndarray:
    """The derivative of the manifold's equation along A: linear in A, and zero for a tangent A."""
    match manifold:
        case mm.Euclidean():
            return np.zeros(1)
        case mm.Sphere():
            return (w * a).sum(keepdims=True)
        case mm.Oblique():
            return (w * a).sum(axis=1)
        case mm.BalancedRows():
            return np.concatenate([(w * a).sum(axis=1), a.sum(axis=1)])
        case mm.SpectralBall():
            return np.zeros(1)
        case mm.SpectralSphere():
            u, _, vh = np.linalg.svd(w)
            return u[:, :1].T @ a @ vh[:1].T
        case mm.Stiefel() | mm.FixedGram():
            tall = w.shape[0] >= w.shape[1]
            return w.T @ a + a.T @ w if tall else w @ a.T + a @ w.T
        case _:
            raise AssertionError(f"write the equation of {manifold} down here")


def tangent_basis(manifold: mm.Manifold, w: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span the tangent space at W, flattened; found by elimination alone."""
    units = np.eye(w.size).reshape(-1, *w.shape)
    equations = np.stack([off_tangent(manifold, w, unit).ravel() for unit in units], axis=1)
    _, sigma, vh = np.linalg.svd(equations)
    return vh[int((sigma > 1e-10).sum()) :].T


def steepest_descent_possible(manifold: mm.Manifold, norm: mm.Norm, w: Tensor, g: Tensor) -> float:
    """`max −<G, A>` subject to `‖A‖ ≤ 1` and A tangent, by an interior-point method.

    The equations of the tangent space are eliminated beforehand: many of them say the same, which an
    interior-point method answers with a warning.
    """
    return _possible(manifold, norm, tuple(w.shape), w.numpy().tobytes(), g.numpy().tobytes())


@cache
def _possible(
    manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, ...], point: bytes, gradient: bytes
) -> float:
    """The same problem is asked for by several solvers, and solved once."""
    import cvxpy as cp  # takes two seconds

    w, g = (np.frombuffer(each).reshape(shape) for each in (point, gradient))
    m, n = shape
    basis = tangent_basis(manifold, w)
    x = cp.Variable(basis.shape[1])
    a = cp.reshape(basis @ x, (m, n), order="C")
    problem = cp.Problem(
        cp.Maximize(-(g.ravel() @ basis) @ x), [length_of(norm, measured(manifold, w, a)) <= 1]
    )
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL, problem.status
    assert isinstance(problem.value, float)
    return problem.value


def problem_of(
    manifold: mm.Manifold, shape: tuple[int, int], seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    w = manifold.random(shape, generator=generator, dtype=torch.float64)
    return w, torch.randn(shape, generator=generator, dtype=torch.float64)


def descent(g: Tensor, solution: Solution) -> float:
    return -float((g * solution.direction).sum())


CONVEX = 1e-7
"""Clarabel stops at a relative gap of 1e-8."""


def certified(best: float, g: Tensor, found: Solution) -> None:
    """The true shortfall is not negative, and never more than the gap, to the convex solver's accuracy."""
    shortfall = 1 - descent(g, found) / best
    assert -CONVEX <= shortfall <= float(found.gap) + CONVEX
