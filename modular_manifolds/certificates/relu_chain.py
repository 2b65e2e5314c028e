"""A chain of linear maps and ReLUs in a ball around a point: the units with a fixed sign, and the undecided units.

A unit with a fixed sign in the ball is linear there: it passes its input if it is on, and is zero if it is off.
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
    """The chain in a ball, as linear maps of `ξ = (Δx, u)`, in which u are the changes of the undecided units.

    Between two points of the ball the output changes by `output @ ξ`, and the inputs of the undecided units change by
    `preactivation @ ξ`; each `u_i` lies between 0 and the change of its input.

    Args:
        output: (out, inputs + undecided).
        preactivation: (undecided, inputs + undecided).
        output_error: a bound on the rounding error of `output`, in the Frobenius norm.
        preactivation_error: the same of `preactivation`.
        inputs: the number of inputs.
        units: the number of hidden units.
        undecided: the number of units that can be on or off in the ball.
        slope: a Lipschitz bound in the ball, by norms: the product over the units that can be on, or the
            norm of the one matrix if none is undecided.
        undecided_gain: G with `‖u‖₂ ≤ G ‖Δx‖₂`.
    """

    output: Tensor
    preactivation: Tensor
    output_error: float
    preactivation_error: float
    inputs: int
    units: int
    undecided: int
    slope: float
    undecided_gain: float

    @property
    def in_range(self) -> bool:
        """Whether all its numbers, and their squares, are in the range of float64."""
        sizes = torch.stack(
            [each.abs().sum() for each in (self.output, self.preactivation)]
        ).tolist()
        return max(*sizes, self.slope, self.undecided_gain) < math.sqrt(sys.float_info.max)


def chain_of(tree: Tree) -> list[Layer]:
    """The layers of a network that is a series of linear maps and ReLUs.

    Raises:
        SpaceError: the network is not such a series; the message names the module.
    """
    layers: list[Layer] = []
    for leaf in chain(tree):
        if not isinstance(leaf, Leaf):
            raise _chain_error(leaf.where)
        matrix = matrix_of(leaf)
        if leaf.kind in ("flatten", "identity"):
            # Points are vectors already.
            continue
        if leaf.kind == "relu":
            if not layers:
                raise _chain_error("a ReLU before the first Linear")
            layers[-1] = replace(layers[-1], relu=True)
        elif matrix is not None and matrix.dim() == 2:
            weight = matrix.detach().to("cpu", torch.float64)
            layers.append(Layer(weight))
        else:
            raise _chain_error(leaf.where)
    return layers


def region_around(layers: list[Layer], point: Tensor, radius: float) -> Region:
    """The chain within the l2 distance `radius` of `point`, (features,) in float64.

    The centre is propagated with a bound on its rounding, `|fl(Wh) − Wh| ≤ γ |W||h|`. The input of a unit moves by at most
    the smallest of three bounds: `‖w_i‖₂ B r` with a Lipschitz bound B of the earlier layers; `Σ_j |w_ij| d_j` if the
    previous units move by at most d; and `‖p_i‖₂ r` if the earlier layers are one matrix with rows p.

    Source: for γ, N. Higham, "Accuracy and Stability of Numerical Algorithms" (2002), section 3.5; for
    units whose sign is fixed, H. Zhang et al., "RecurJac" (2019).
    """
    h, centre_error = point, torch.zeros_like(point)
    inputs, undecided = len(point), 0
    # The hidden vector changes by A @ ξ, with a bound on the rounding error of A.
    A, error = torch.eye(inputs, dtype=torch.float64, device="cpu"), 0.0
    slope, units, undecided_gain = 1.0, 0, 0.0
    preactivation: list[Tensor] = []
    preactivation_error = 0.0
    shifts: Tensor | None = None
    active = torch.ones(inputs, dtype=torch.bool, device="cpu")
    for layer in layers:
        W = layer.weight * active
        up = 1 + 4 * (W.shape[1] + 4) * EPS
        gamma = W.shape[1] * EPS / (1 - W.shape[1] * EPS)
        z = W @ h
        centre_error = (W.abs() @ centre_error + gamma * (W.abs() @ (h.abs() + centre_error))) * up
        P = W @ A
        product = gamma * _norm_bound(W) * _norm_bound(A) + _norm_bound(W) * error
        shift = torch.linalg.vector_norm(W, dim=1) * (slope * radius * up)
        if not undecided:
            # The earlier layers are one known matrix.
            rows = torch.linalg.vector_norm(P, dim=1) * (1 + 4 * (inputs + 4) * EPS)
            shift = torch.minimum(shift, (rows + product) * (radius * (1 + 4 * EPS)))
        if shifts is not None:
            shift = torch.minimum(shift, W.abs() @ shifts * up)
        # The slack covers the rounding of the two sums in each comparison.
        low, high = ((z + sign * (centre_error + shift) * (1 + 4 * EPS)) for sign in (-1.0, 1.0))
        slack = 4 * EPS * (z.abs() + centre_error + shift)
        off = (high + slack <= 0) if layer.relu else torch.zeros_like(z, dtype=torch.bool)
        on = ~off & (low - slack >= 0) if layer.relu else ~off
        undecided_mask = ~on & ~off
        new_undecided = int(undecided_mask.sum())
        units += len(z) if layer.relu else 0
        active = ~off
        slope = slope * largest_singular_value(W[active]) if bool(active.any()) else 0.0
        if new_undecided:
            preactivation.append(P[undecided_mask])
            preactivation_error = math.hypot(preactivation_error, product) * (1 + 8 * EPS)
            undecided_gain = math.hypot(undecided_gain, slope) * (1 + 8 * EPS)
        A = torch.cat((P * on.unsqueeze(1), P.new_zeros(len(z), new_undecided)), dim=1)
        A[undecided_mask, inputs + undecided + torch.arange(new_undecided, device="cpu")] = 1.0
        undecided += new_undecided
        error = product * (1 + 8 * EPS)
        if not undecided and bool(torch.isfinite(A).all()):
            slope = min(slope, largest_singular_value(A) + error)
        h = torch.where(off, 0.0, z.clamp_min(0) if layer.relu else z)
        centre_error = torch.where(off, 0.0, centre_error)
        shifts = torch.where(off, 0.0, shift)
    padded = [
        torch.cat((P, P.new_zeros(len(P), A.shape[1] - P.shape[1])), dim=1) for P in preactivation
    ]
    return Region(
        output=A,
        preactivation=torch.cat(padded) if padded else A[:0],
        output_error=error,
        preactivation_error=preactivation_error,
        inputs=inputs,
        units=units,
        undecided=undecided,
        slope=slope * (1 + 4 * (len(layers) + 2) * EPS),
        undecided_gain=undecided_gain * (1 + 4 * (len(layers) + 2) * EPS),
    )


def _norm_bound(x: Tensor) -> float:
    """A bound on the Frobenius norm, rounded up."""
    return float(torch.linalg.matrix_norm(x)) * (1 + x.numel() * EPS)


def _chain_error(seen: str) -> SpaceError:
    return SpaceError(
        "local_lipschitz(net)",
        "must be a series of mm.Linear and mm.ReLU",
        seen,
        "Use mm.lipschitz, which bounds every network.",
    )
