"""Causal attention, with a Lipschitz bound that depends on the norms of queries, keys and values."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from torch import Tensor, fx
from torch.autograd.forward_ad import unpack_dual
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from modular_manifolds.arguments import POSITIVE, check_count, check_number
from modular_manifolds.composition.radius import Radius, each_of, times, total
from modular_manifolds.composition.space import ProductSpace, Space
from modular_manifolds.nn.heads import POSITIONS
from modular_manifolds.nn.leaf import Bond
from modular_manifolds.nn.tracing import sizes_of_the_network


class CausalAttention(Bond):
    """`softmax(scale · Q Kᵀ/d) V` over the tuple (Q, K, V); a position attends to itself and earlier positions.

    Queries have shape (…, heads, positions, d). Keys and values have the same shape, or fewer heads, which are then
    shared; their number divides that of the queries. A tuple's norm is the sum of the three parts' norms, each the
    largest rms over heads and positions. For parts of norm at most r_q, r_k, r_v the slope is at most
    `max(1, scale · r_k · r_v, scale · r_q · r_v)`; without bounds on all three parts there is no bound. No output is
    larger than r_v.

    The sensitivity is this slope for parts of norm 1, `max(1, scale)`. The rate scale, by which the budget divides the
    learning rate, is the slope for parts of norm `typical`, `max(1, scale · typical²)`. If `typical` is below 1, the
    learning rate is an expectation, not a bound. Certificates, and the budget's bound on a step, use the bounds on the
    actual inputs.

    Proof. With weights p and logits a, an output moves by `Σ p_j δv_j + Cov_p(δa, v)`. The first term is a mean: at
    most the largest `‖δv_j‖`. The inner product `⟨u, ·⟩/d` of the second term with any u of unit norm is a covariance
    of numbers of size at most `max |δa|` and r_v. It is at most their product (Cauchy–Schwarz; a variance is at most
    the mean square). And `|δa_j| = scale |⟨δq, k_j⟩ + ⟨q, δk_j⟩|/d ≤ scale (‖δq‖ r_k + r_q max ‖δk‖)`. Two keys ±k
    with values ±v and q = 0 attain the bound in q, so it is tight. Balls are convex, so the bound on the derivative
    bounds slopes.

    Args:
        head_features: d.
        scale: the largest logit for queries and keys of unit norm.
        typical: the typical rms of queries, keys and values, for which the learning rate is meant.

    Raises:
        ArgumentError: `head_features`, `scale` or `typical` is out of range.

    Source: Large et al., "Scalable optimization in the modular norm" (2024), appendix, for unit radii.
    """

    def __init__(self, head_features: int, *, scale: float = 1.0, typical: float = 1.0) -> None:
        head_features = check_count(head_features, argument="CausalAttention(head_features)")
        remedy = "Pass the largest logit for queries and keys of unit norm."
        scale = check_number(scale, POSITIVE, argument="CausalAttention(scale)", remedy=remedy)
        remedy = "Leave it at 1, the largest norm if every input is in its unit ball."
        typical = check_number(
            typical, POSITIVE, argument="CausalAttention(typical)", remedy=remedy
        )
        space = Space(head_features, "rms")
        super().__init__(
            sensitivity=max(1.0, scale),
            rate_scale=max(1.0, scale * typical**2),
            source=ProductSpace((space, space, space)),
            target=space,
            leading=(2, POSITIONS),
        )
        self.head_features = head_features
        self.scale = scale
        self.typical = typical

    def lipschitz_within(self, radius: Radius) -> float:
        query, key, value = (total(each) for each in each_of(radius, 3))
        return max(1.0, times(self.scale, times(max(query, key), value)))

    def output_within(self, radius: Radius) -> float:
        return total(each_of(radius, 3)[2])

    def forward(self, x: Any) -> Tensor:
        return _attend(x[0], x[1], x[2], self.scale / self.head_features)


@fx.wrap
def _attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Scaled dot-product attention; `torch.fx` sees one call."""
    # The fast kernels have no forward-mode derivative.
    forward_mode = any(unpack_dual(each).tangent is not None for each in (query, key, value))
    with sdpa_kernel(SDPBackend.MATH) if forward_mode else nullcontext():
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            is_causal=True,
            scale=scale,
            enable_gqa=_share_keys(query, key),
        )


def _share_keys(query: Tensor, key: Tensor) -> bool:
    """Whether there are fewer heads of keys than of queries; the answer is a constant in a traced program."""
    with sizes_of_the_network():
        return bool(query.shape[-3] != key.shape[-3])
