"""Certified radii from the margins of logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.certificates.bounds import bounds_of, endpoint_spaces, rounding_factor
from modular_manifolds.certificates.forward_error import forward_error
from modular_manifolds.certificates.linear_map import matrix_of
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.radius import times
from modular_manifolds.composition.space import Space, conversion
from modular_manifolds.composition.tree import Series, Tree, chain

EPS = torch.finfo(torch.float64).eps
ROUNDINGS_PER_LEAF = 16
"""A bound on the roundings between an input and an output number of any bond."""


def pair_bounds(tree: Tree, bound: float, classes: int) -> tuple[Tensor, bool]:
    """K with `|(f_c − f_j)(x) − (f_c − f_j)(y)| ≤ K[c, j] ‖x − y‖₂`, and whether K uses the last weight.

    `K = √2 L`, because `f_c − f_j` is an inner product of f with a vector of length √2. If the last
    module is a matrix W after a map with bound B, `K[c, j] = ‖w_c − w_j‖₂ B` also holds, and the smaller is used.

    Args:
        tree: the tree of a network in float64.
        bound: L, the certified bound of the whole network from l2 to l2.
        classes: the number of outputs.

    Source: Y. Tsuzuku, I. Sato, M. Sugiyama, "Lipschitz-Margin Training" (2018), proposition 1; for the
    pairs S. Singla, S. Singla, S. Feizi, "Improved deterministic l2 robustness on CIFAR-10 and
    CIFAR-100" (2022), the last layer's normalisation.
    """
    global_bound = math.sqrt(2.0) * bound * (1 + 4 * EPS)
    pairs = torch.full((classes, classes), global_bound, dtype=torch.float64, device="cpu")
    *parts, last = chain(tree)
    matrix = matrix_of(last) if isinstance(last, Leaf) else None
    if matrix is None or matrix.dim() != 2:
        return pairs, False
    before = 1.0
    if parts:
        front = Series("", tuple(parts))
        ends = front.signature.source, front.signature.target
        if not all(isinstance(end, Space) for end in ends):
            return pairs, False
        before = bounds_of(front, input_norm="l2", output_norm="l2").certified
    weight = matrix.detach().to("cpu", torch.float64)
    distances = torch.linalg.vector_norm(weight[:, None] - weight[None, :], dim=-1)
    by_rows = distances * before * (1 + (weight.shape[1] + 8) * EPS)
    return torch.minimum(pairs, torch.where(torch.isnan(by_rows), math.inf, by_rows)), True


def rounding_of_outputs(tree: Tree, radius: float) -> float:
    """An e with `‖f̂(x) − f(x)‖₂ ≤ e` for `‖x‖₂ ≤ radius`, f̂ being the forward pass in float64.

    This is `forward_error` if every module bounds its rounding. Otherwise a module with n weights is assumed to round like
    `n + 16` operations on a number as large as its output, `s r + ‖f(0)‖`: the error of a product with W of shape (m, n) is
    at most `n eps ‖|W| |x|‖₂ ≤ n √min(m, n) eps ‖W‖₂ ‖x‖₂`, and `n √min(m, n) ≤ m n`. The slopes of later modules multiply
    this error. The sum is doubled.

    Source: N. Higham, "Accuracy and Stability of Numerical Algorithms" (2002), section 3.5.
    """
    source, target = endpoint_spaces(tree, "robustness(net)")
    bounds = bounds_of(tree, input_norm="l2", output_norm="l2", radius=radius)
    error = forward_error(tree, source, bounds.arriving, Leaf.certified_within, torch.float64)
    if math.isinf(error):
        error = math.fsum(
            times(2 * EPS * (each.leaf.entries + ROUNDINGS_PER_LEAF), each.leaving) * each.gradient
            for each in bounds.certified_propagation.passages
        )
    return (
        conversion(target.norm, "l2", target.size)
        * error
        * rounding_factor(bounds.certified_propagation)
    )


def certified_radii(outputs: Tensor, labels: Tensor, pairs: Tensor, error: float) -> Tensor:
    """The certified l2 radius of each point: within it, its label stays the largest output.

    `min_j (f_c − f_j − 2 error)/K[c, j]` over `j ≠ c`, rounded down; 0 if that is not positive, as for ties and wrong
    predictions.

    Args:
        outputs: (points, classes), float64.
        labels: (points,).
        pairs: K of `pair_bounds`.
        error: a bound on the error of each output.
    """
    rows = torch.arange(len(labels), device="cpu")
    margins = outputs[rows, labels].unsqueeze(1) - outputs - 2 * error
    radii = torch.where(margins > 0, margins / pairs[labels], 0.0)
    radii[rows, labels] = math.inf
    # No radius is claimed for a network with one class.
    nearest = radii.amin(dim=1) if outputs.shape[1] > 1 else outputs.new_zeros(len(labels))
    return torch.nan_to_num(nearest * (1 - 8 * EPS), nan=0.0, posinf=math.inf)
