"""Radii from logits: how far an input can move before another class wins."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modular_manifolds.certificates.bounds import bounds_of, one_space_to_another, rounding_up
from modular_manifolds.certificates.forward_error import forward_error
from modular_manifolds.certificates.linear_map import matrix_of
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.radius import times
from modular_manifolds.composition.space import Space, conversion
from modular_manifolds.composition.tree import Series, Tree, chain

EPS = torch.finfo(torch.float64).eps
OPERATIONS_A_LEAF = 16
"""More roundings than any bond makes on the way from one number to the next."""


def pair_bounds(tree: Tree, bound: float, classes: int) -> tuple[Tensor, bool]:
    """K with `|(f_c − f_j)(x) − (f_c − f_j)(y)| ≤ K[c, j] ‖x − y‖₂`, and whether the last weight was used.

    `K = √2 L`, because `f_c − f_j` is an inner product of f with a vector of length √2. If the last
    module is a matrix W after a map of bound B, also `K[c, j] = ‖w_c − w_j‖₂ B`, and the smaller counts.

    Args:
        tree: of a network in float64.
        bound: L, the certified bound of the whole network from l2 to l2.
        classes: the number of outputs.

    Source: Y. Tsuzuku, I. Sato, M. Sugiyama, "Lipschitz-Margin Training" (2018), proposition 1; for the
    pairs S. Singla, S. Singla, S. Feizi, "Improved deterministic l2 robustness on CIFAR-10 and
    CIFAR-100" (2022), the last layer's normalisation.
    """
    global_bound = math.sqrt(2.0) * bound * (1 + 4 * EPS)
    found = torch.full((classes, classes), global_bound, dtype=torch.float64, device="cpu")
    *parts, last = chain(tree)
    matrix = matrix_of(last) if isinstance(last, Leaf) else None
    if matrix is None or matrix.dim() != 2:
        return found, False
    before = 1.0
    if parts:
        front = Series("", tuple(parts))
        ends = front.signature.source, front.signature.target
        if not all(isinstance(end, Space) for end in ends):
            return found, False
        before = bounds_of(front, input_norm="l2", output_norm="l2").certified
    weight = matrix.detach().to("cpu", torch.float64)
    apart = torch.linalg.vector_norm(weight[:, None] - weight[None, :], dim=-1)
    pairs = apart * before * (1 + (weight.shape[1] + 8) * EPS)
    return torch.minimum(found, torch.where(torch.isnan(pairs), math.inf, pairs)), True


def rounding_of_outputs(tree: Tree, radius: float) -> float:
    """An e with `‖f̂(x) − f(x)‖₂ ≤ e` for `‖x‖₂ ≤ radius`, f̂ being the forward pass in float64.

    By `forward_error`, if every module bounds its rounding. If one does not, a module of n weights
    is taken to round like `n + 16` operations on a number as large as its output, `s r + ‖f(0)‖`: a
    product with W of shape (m, n) errs by at most `n eps ‖|W| |x|‖₂ ≤ n √min(m, n) eps ‖W‖₂ ‖x‖₂`, and
    `n √min(m, n) ≤ m n`. What follows stretches that by its slopes. Doubled.

    Source: N. Higham, "Accuracy and Stability of Numerical Algorithms" (2002), section 3.5.
    """
    source, target = one_space_to_another(tree, "robustness(net)")
    known = bounds_of(tree, input_norm="l2", output_norm="l2", radius=radius)
    error = forward_error(tree, source, known.arriving, Leaf.certified_within, torch.float64)
    if math.isinf(error):
        error = math.fsum(
            times(2 * EPS * (each.leaf.entries + OPERATIONS_A_LEAF), each.leaving) * each.gradient
            for each in known.proved.passages
        )
    return conversion(target.norm, "l2", target.size) * error * rounding_up(known.proved)


def certified_radii(outputs: Tensor, labels: Tensor, pairs: Tensor, error: float) -> Tensor:
    """For each point the l2 radius below which its label stays the largest output.

    `min_j (f_c − f_j − 2 error)/K[c, j]` over `j ≠ c`, rounded down; 0 if that is not positive, and so
    for ties and for wrong predictions.

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
    # A network of one class can give no other; nothing is claimed of it.
    nearest = radii.amin(dim=1) if outputs.shape[1] > 1 else outputs.new_zeros(len(labels))
    return torch.nan_to_num(nearest * (1 - 8 * EPS), nan=0.0, posinf=math.inf)
