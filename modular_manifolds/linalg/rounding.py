"""Upper bounds on singular values: computed in float64 and rounded up."""

from __future__ import annotations

import torch
from torch import Tensor


def singular_values(weight: Tensor) -> Tensor:
    """Singular values in float64 (complex128), largest first; a vector counts as one column.

    LAPACK's error is a small multiple of `eps · σ_max`; see `slack`.
    """
    matrix = weight.detach().to("cpu", torch.promote_types(weight.dtype, torch.float64))
    return torch.linalg.svdvals(matrix.unsqueeze(-1) if matrix.dim() == 1 else matrix)


def slack(weight: Tensor) -> float:
    """A bound on the relative error of the largest computed singular value: `(m + n) · eps`, m × n the shape.

    The computed values are the exact ones of a matrix within `p(m, n) · eps · ‖W‖₂` of W with p a
    modest polynomial (LAPACK Users' Guide, section 4.9), in practice well below m + n.
    """
    rows, columns = (
        (weight.shape[-2], weight.shape[-1]) if weight.dim() > 1 else (weight.numel(), 1)
    )
    return (rows + columns) * torch.finfo(torch.float64).eps


def largest_singular_value(weight: Tensor) -> float:
    """An upper bound on the largest `σ_max` of a stack: the decomposition's value, rounded up by `slack`."""
    return float(singular_values(weight).amax()) * (1 + slack(weight))
