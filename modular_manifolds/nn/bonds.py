"""Modules without weights; each docstring states a Lipschitz constant and its proof."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from modular_manifolds.nn.leaf import Bond


class FixedBond(Bond):
    """A bond that maps any space to itself with sensitivity 1 and has no constructor arguments.

    By default it only selects and orders entries, so it has no rounding error.
    """

    def __init__(self) -> None:
        super().__init__()

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        del radius, dtype
        return 0.0


class Identity(FixedBond):
    """`x`; sensitivity 1."""

    _kind = "identity"

    def forward(self, x: Tensor) -> Tensor:
        return x


class ReLU(FixedBond):
    """`max(x, 0)`; sensitivity 1 in rms, l2, l1 and linf: no entry moves more than its input."""

    _kind = "relu"

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x)


class Abs(FixedBond):
    """`|x|`; sensitivity 1 in rms, l2, l1 and linf: no entry moves more than its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class MaxMin(FixedBond):
    """Each pair (x₂ᵢ, x₂ᵢ₊₁) becomes (max, min); an unpaired last entry is unchanged.

    Sensitivity 1 in rms, l2, l1 and linf: sorting is 1-Lipschitz in every norm that does not depend on
    the order of the entries. Source: Anil, Lucas, Grosse, "Sorting out Lipschitz function
    approximation" (2019).
    """

    def forward(self, x: Tensor) -> Tensor:
        paired = x.shape[-1] - x.shape[-1] % 2
        pairs = x[..., :paired].unflatten(-1, (-1, 2))
        ordered = torch.stack((pairs.amax(dim=-1), pairs.amin(dim=-1)), dim=-1).flatten(-2)
        return torch.cat((ordered, x[..., paired:]), dim=-1)


GELU_SLOPE = 1.1289042
"""An upper bound on the slope of GELU; the largest slope is `Φ(√2) + √2 φ(√2)` = 1.128904145…, at x = √2."""


class GELU(FixedBond):
    """`gelu(x) / 1.1289042`; sensitivity 1 in rms, l2, l1 and linf.

    The divisor is above the largest slope `Φ(√2) + √2 φ(√2)`, so no entry moves more than its input.
    """

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # For each entry |f̂(x) − f(x)| ≤ 8 eps |x|: 0.5 x (1 + erf(x/√2)) takes five operations, an erf
        # accurate to two ulps of 1 and a division, each with an error relative to at most |x|.
        return 8.0 * torch.finfo(dtype).eps * radius

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x) / GELU_SLOPE


SILU_SLOPE = 1.0998394
"""An upper bound on the slope of SiLU; the largest slope is `(x + 2)/4` = 1.09983932… at the root x = 2.39935728… of
`x tanh(x/2) = 2`."""


class SiLU(FixedBond):
    """`x σ(x) / 1.0998394`, σ the logistic function; sensitivity 1 in rms, l2, l1 and linf.

    With `t = tanh(x/2)` the slope is `σ (1 + x (1 − σ)) = (1 + t)(2 + x (1 − t))/4`. Its derivative,
    `σ (1 − σ)(2 − x t)`, is zero at x t = 2, with the slope (2 + x)/4. No slope is larger in absolute value, because the
    slopes at x and −x add to 1. So no entry moves more than its input.
    """

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # For each entry |f̂(x) − f(x)| ≤ 8 eps |x|: an exponential accurate to two ulps, a sum, two quotients.
        return 8.0 * torch.finfo(dtype).eps * radius

    def forward(self, x: Tensor) -> Tensor:
        return functional.silu(x) / SILU_SLOPE


class Flatten(FixedBond):
    """(batch, …) becomes (batch, size); sensitivity 1, because the entries are the same."""

    _kind = "flatten"

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)
