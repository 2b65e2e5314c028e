"""RMS normalisation, with its Lipschitz constant."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from modular_manifolds.arguments import POSITIVE, check_count, check_number
from modular_manifolds.composition.space import Space, VectorNorm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.leaf import Bond


class RMSNorm(Bond):
    """`x/√(mean(x²) + ε)`; sensitivity `1/√ε`, and outputs of rms norm below 1 for every input.

    With `r² = mean(x²)` over d features and `s = √(r² + ε)` the Jacobian is `(I − x xᵀ/(d s²))/s`. It is symmetric,
    with eigenvalues 1/s and, along x, `(1 − r²/s²)/s`. All are at most 1/√ε, which is attained at x = 0. So the
    constant holds if input and output are both in rms or both in l2. In linf and l1 it would be larger by a factor
    that grows with √d, so these norms are refused. An input of rms norm r has an output of rms norm `r/√(r² + ε)`.

    With the default ε = 1 the sensitivity is 1. The customary 1e-6 makes it 1000.

    Args:
        features: the size of the vectors.
        eps: ε, finite and positive.
        vector_norm: rms or l2, of input and output.

    Raises:
        ArgumentError: `features` or `eps` is out of range, or `vector_norm` is neither rms nor l2.
    """

    def __init__(self, features: int, *, eps: float = 1.0, vector_norm: VectorNorm = "rms") -> None:
        features = check_count(features, argument="RMSNorm(features)")
        remedy = "Pass 1.0 for a sensitivity of 1; it is 1/√eps."
        eps = check_number(eps, POSITIVE, argument="RMSNorm(eps)", remedy=remedy)
        if vector_norm not in ("rms", "l2"):
            raise ArgumentError(
                "RMSNorm(vector_norm)",
                "must be rms or l2, for which its Lipschitz bound does not grow with the features",
                repr(vector_norm),
                "Use rms or l2 as the target_norm of the module before it.",
            )
        space = Space(features, vector_norm)
        super().__init__(sensitivity=1 / math.sqrt(eps), source=space, target=space)
        self.features = features
        self.eps = eps
        self.vector_norm: VectorNorm = vector_norm

    def output_within(self, radius: float) -> float:
        """A bound on `‖f(x)‖` for `‖x‖ ≤ radius`: `r/√(r² + ε)` in rms, never above 1; √d times as much in l2."""
        unit = 1.0 if self.vector_norm == "rms" else math.sqrt(self.features)
        root = math.sqrt(self.eps)
        # r/√(r² + ε) grows with r; this form cannot overflow.
        size = 1 / math.hypot(1, root * unit / radius) if radius > 0 else 0.0
        return unit * min(1.0, size * (1 + 2.0**-50))

    def rounding_within(self, radius: float, dtype: torch.dtype) -> float:
        # The relative error of a sum of d squares is at most γ_{d+1}, and of its root half of that. A mean, a sum
        # with ε, a root, a quotient and a product follow. All are relative to the size of the output.
        terms = (self.features + 10) * torch.finfo(dtype).eps
        return terms / (1 - terms) * self.output_within(radius) if terms < 1 else math.inf

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (self.features,), eps=self.eps)
