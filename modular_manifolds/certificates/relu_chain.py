"""A chain of linear maps and ReLUs near a point: which units keep their sign, and what is left of it.

A unit whose sign cannot change in the ball is linear there: on, it passes its input; off, it gives zero.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modular_manifolds.certificates.linear_map import matrix_of
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.tree import Tree, chain
from modular_manifolds.errors import SpaceError
from modular_manifolds.linalg.rounding import largest_singular_value

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Layer:
    """`W x`, or `max(W x, 0)`; W is (out, in) in float64."""

    weight: Tensor
    relu: bool = False


@dataclass(frozen=True)
class Region:
    """The chain in a ball, as linear maps of `ξ = (Δx, u)`: u are the changes of the undecided units.

    For every two points of the ball the output changes by `output @ ξ`, and the input of the undecided
    units by `before @ ξ`; each `u_i` lies between 0 and that input's change.

    Args:
        output: (out, inputs + undecided).
        before: (undecided, inputs + undecided).
        output_error: bounds on the Frobenius norm of what rounding did to the two.
        before_error: bounds on the Frobenius norm of what rounding did to the two.
        inputs: how many there are.
        units: how many there are.
        undecided: how many there are.
        slope: a Lipschitz bound in the ball, by norms: the product over the units that can be on, or the
            norm of the one matrix if none is undecided.
        reach: G with `‖u‖₂ ≤ G ‖Δx‖₂`.
    """

    output: Tensor
    before: Tensor
    output_error: float
    before_error: float
    inputs: int
    units: int
    undecided: int
    slope: float
    reach: float

    @property
    def in_range(self) -> bool:
        """Whether all its numbers, and their squares, are in the range of float64."""
        sizes = torch.stack([each.abs().sum() for each in (self.output, self.before)]).tolist()
        return max(*sizes, self.slope, self.reach) < math.sqrt(sys.float_info.max)


def chain_of(tree: Tree) -> list[Layer]:
    """The layers of a network that is a series of linear maps and ReLUs.

    Raises:
        SpaceError: it is not; the message names the module.
    """
    layers: list[Layer] = []
    for leaf in chain(tree):
        if not isinstance(leaf, Leaf):
            raise _not_a_chain(leaf.where)
        matrix = matrix_of(leaf)
        if leaf.kind in ("flatten", "identity"):
            # Points arrive as vectors, which Flatten leaves as they are.
            continue
        if leaf.kind == "relu":
            if not layers:
                raise _not_a_chain("a ReLU in front of every Linear")
            layers[-1] = replace(layers[-1], relu=True)
        elif matrix is not None and matrix.dim() == 2:
            weight = matrix.detach().to("cpu", torch.float64)
            layers.append(Layer(weight))
        else:
            raise _not_a_chain(leaf.where)
    return layers


def near(layers: list[Layer], point: Tensor, radius: float) -> Region:
    """The chain within the l2 distance `radius` of `point`, (features,) in float64.

    The centre is carried with a bound on its rounding, `|fl(Wh) − Wh| ≤ γ |W||h|`. A unit's input moves by
    at most `‖w_i‖₂ B r` with B a Lipschitz bound of what is in front, by at most `Σ_j |w_ij| d_j` if the
    units in front move by at most d, and by `‖p_i‖₂ r` if all in front is one matrix of rows p; the
    smallest counts.

    Source: for γ, N. Higham, "Accuracy and Stability of Numerical Algorithms" (2002), section 3.5; for
    units whose sign is fixed, H. Zhang et al., "RecurJac" (2019).
    """
    h, off_by = point, torch.zeros_like(point)
    inputs, undecided = len(point), 0
    # Of the hidden vector as a function of ξ, and what rounding did to it at most.
    A, error = torch.eye(inputs, dtype=torch.float64, device="cpu"), 0.0
    slope, units, reach = 1.0, 0, 0.0
    before: list[Tensor] = []
    before_error = 0.0
    moves: Tensor | None = None
    alive = torch.ones(inputs, dtype=torch.bool, device="cpu")
    for layer in layers:
        W = layer.weight * alive
        up = 1 + 4 * (W.shape[1] + 4) * EPS
        gamma = W.shape[1] * EPS / (1 - W.shape[1] * EPS)
        z = W @ h
        off_by = (W.abs() @ off_by + gamma * (W.abs() @ (h.abs() + off_by))) * up
        P = W @ A
        product = gamma * _size(W) * _size(A) + _size(W) * error
        move = torch.linalg.vector_norm(W, dim=1) * (slope * radius * up)
        if not undecided:
            # All in front is one matrix, whose rows are known.
            rows = torch.linalg.vector_norm(P, dim=1) * (1 + 4 * (inputs + 4) * EPS)
            move = torch.minimum(move, (rows + product) * (radius * (1 + 4 * EPS)))
        if moves is not None:
            move = torch.minimum(move, W.abs() @ moves * up)
        # Two sums at the end of either comparison.
        low, high = ((z + sign * (off_by + move) * (1 + 4 * EPS)) for sign in (-1.0, 1.0))
        spare = 4 * EPS * (z.abs() + off_by + move)
        off = (high + spare <= 0) if layer.relu else torch.zeros_like(z, dtype=torch.bool)
        on = ~off & (low - spare >= 0) if layer.relu else ~off
        open_ = ~on & ~off
        fresh = int(open_.sum())
        units += len(z) if layer.relu else 0
        alive = ~off
        slope = slope * largest_singular_value(W[alive]) if bool(alive.any()) else 0.0
        if fresh:
            before.append(P[open_])
            before_error = math.hypot(before_error, product) * (1 + 8 * EPS)
            reach = math.hypot(reach, slope) * (1 + 8 * EPS)
        A = torch.cat((P * on.unsqueeze(1), P.new_zeros(len(z), fresh)), dim=1)
        A[open_, inputs + undecided + torch.arange(fresh, device="cpu")] = 1.0
        undecided += fresh
        error = product * (1 + 8 * EPS)
        if not undecided and bool(torch.isfinite(A).all()):
            slope = min(slope, largest_singular_value(A) + error)
        h = torch.where(off, 0.0, z.clamp_min(0) if layer.relu else z)
        off_by = torch.where(off, 0.0, off_by)
        moves = torch.where(off, 0.0, move)
    padded = [torch.cat((P, P.new_zeros(len(P), A.shape[1] - P.shape[1])), dim=1) for P in before]
    return Region(
        output=A,
        before=torch.cat(padded) if padded else A[:0],
        output_error=error,
        before_error=before_error,
        inputs=inputs,
        units=units,
        undecided=undecided,
        slope=slope * (1 + 4 * (len(layers) + 2) * EPS),
        reach=reach * (1 + 4 * (len(layers) + 2) * EPS),
    )


def _size(x: Tensor) -> float:
    """A bound on the Frobenius norm, rounded up."""
    return float(torch.linalg.matrix_norm(x)) * (1 + x.numel() * EPS)


def _not_a_chain(seen: str) -> SpaceError:
    return SpaceError(
        "local_lipschitz(net)",
        "must be a series of mm.Linear and mm.ReLU",
        seen,
        "Use mm.lipschitz, whose bounds hold for every network.",
    )
