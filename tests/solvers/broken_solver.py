"""A solver with a planted fault, and what the laws say of each fault."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.linalg.matrices import normalise
from modular_manifolds.solvers import Solver
from modular_manifolds.solvers.solution import Solution


@dataclasses.dataclass(frozen=True)
class Broken(Solver):
    """Hyperspherical descent, with one fault."""

    fault: str = "none"
    name = "broken"
    reason = "it is a test"

    def solve(
        self,
        manifold: mm.Manifold,
        norm: mm.Norm,
        point: Tensor,
        gradient: Tensor,
        dual: Tensor | None,
    ) -> Solution:
        del norm, dual
        flat = (-2, -1)
        scaled = normalise(gradient, dim=flat)
        a = manifold.tangent(point, scaled)
        size = torch.linalg.matrix_norm(a, keepdim=True)
        a = torch.where(size <= 1e-6, 0.0, -a / size.clamp_min(1e-6))
        gap = torch.zeros(a.shape[:-2], dtype=a.dtype)
        match self.fault:
            case "not tangent":
                a = -scaled
            case "too long":
                a = 1.1 * a
            case "not steepest":
                a = 0.9 * a
            case "not steepest, and says how much":
                a, gap = 0.9 * a, torch.where(size[..., 0, 0] > 0, 0.1 + 1e-12, 0.0)
            case "gap too small":
                a, gap = 0.9 * a, gap + 0.05
            case "negative gap":
                gap = gap - 0.1
            case "noise at full length":
                a = -normalise(manifold.tangent(point, scaled), dim=flat)
            case "an epsilon":
                a = -manifold.tangent(point, gradient)
                a = a / (torch.linalg.matrix_norm(a, keepdim=True) + 1e-14)
            case "writes":
                gradient.mul_(1.0)
            case "norm of the stack" if a.dim() > 2:
                a = a / torch.linalg.vector_norm(a)
            case "zero of the stack" if bool((size == 0).any()):
                a = torch.zeros_like(a)
        return Solution(a, gap, tolerance=1e-6)


FAULTS = {
    "not tangent": "the direction is tangent",
    "too long": "length of the direction",
    "not steepest": "as steep as others",
    "gap too small": "as steep as others",
    "negative gap": "gap and status",
    "noise at full length": "is tangent|without a tangent part",
    "an epsilon": "times as large",
    "writes": "written into",
    "norm of the stack": "one by one",
    "zero of the stack": "one by one",
}
