"""Laws of every solver, for a pair it is listed with. A law raises AssertionError."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.norms.base import Norm
from modular_manifolds.solvers import NormSteepest, Solution, Solver, Status
from modular_manifolds.testing.check import (
    apart,
    at_least,
    at_most,
    close,
    equal,
    finite,
    untouched,
)
from modular_manifolds.testing.draws import tangent_share
from modular_manifolds.testing.measure import inner, size
from modular_manifolds.testing.sample import SIZES, Sample

SolverLaw = Callable[[Solver, Manifold, Norm, Sample], None]


def direction_is_tangent(solver: Solver, manifold: Manifold, norm: Norm, sample: Sample) -> None:
    """`P(A) = A`, up to rounding of a direction of unit length; half the digits if the solver says so.

    A tangent part that is small beside the gradient carries the rounding of the whole gradient.
    """
    for kind, (w, g) in _problems(manifold, sample).items():
        a = _solve(solver, manifold, norm, w, g).direction
        law = f"{_name(solver, manifold, norm)}: the direction is tangent ({kind} gradient)"
        finite(a, law)
        allowed = _rounding(solver, sample) * _unit(norm, a) / tangent_share(manifold, w, g)
        at_most(size(a - manifold.tangent(w, a)), allowed, law)


def direction_has_at_most_unit_length(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """`‖A‖ ≤ 1`, up to rounding; half the digits if the solver says so."""
    for kind, (w, g) in _problems(manifold, sample).items():
        a = _solve(solver, manifold, norm, w, g).direction
        law = f"{_name(solver, manifold, norm)}: length of the direction ({kind} gradient)"
        at_most(norm.value(a), 1 + sample.accuracy + _rounding(solver, sample), law)


def descends_as_steeply_as_any(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """`−<G, A> ≥ (1 − gap) · (−<G, B>)` for random tangent B of unit length, and for B beside A.

    So the gap is a certificate. Nor may the descent exceed `dual(P(G))`, which bounds it from above.
    """
    for kind, (w, g) in _problems(manifold, sample).items():
        found = _solve(solver, manifold, norm, w, g)
        a, descent = found.direction, -inner(g, found.direction)
        slack = (sample.accuracy + _rounding(solver, sample)) * norm.dual(g)
        others = [sample.normal(f"other {i}", tuple(w.shape)) for i in range(24)]
        others += [-g, norm.steepest(g), norm.steepest(manifold.tangent(w, g))]
        length = size(a)[..., None, None]
        for i, near in enumerate((1e-3, 1e-2, 0.1, 0.5)):
            noise = sample.normal(f"near {i}", tuple(w.shape))
            others += [a + near * length * noise, a - near * length * noise]
        law = f"{_name(solver, manifold, norm)}: as steep as others ({kind} gradient)"
        b = _to_unit(manifold, norm, w.expand(len(others), *w.shape), torch.stack(others))
        best = -inner(g, b).amin(dim=0)
        at_least(descent, (1 - found.gap) * best - slack, law)
        ceiling = norm.dual(manifold.tangent(w, g)) * (1 + sample.tolerance) + slack
        law = f"{_name(solver, manifold, norm)}: descent is at most the dual ({kind} gradient)"
        at_most(descent, ceiling, law)


def status_says_what_the_gap_says(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """The gap has the shape of the batch and is not negative; converged means within the tolerance."""
    for kind, (w, g) in _problems(manifold, sample).items():
        found = _solve(solver, manifold, norm, w, g)
        law = f"{_name(solver, manifold, norm)}: gap and status ({kind} gradient)"
        equal(tuple(found.gap.shape), tuple(w.shape[:-2]), law)
        at_least(found.gap, 0.0, f"{law}, gap")
        if found.tolerance is not None:
            within = bool((found.gap <= found.tolerance).all())
            equal(found.status is Status.CONVERGED, within, law)


def size_of_the_gradient_does_not_matter(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """The direction for cG is that for G, for c from 2^-100 to 2^100.

    Powers of two, because nothing is rounded in multiplying by them: an iteration that magnifies
    rounding must still come to the same bits, nearly. Not a law for a solver with a fixed step size, such as the seed's dual ascent: leave it out there.
    """
    w, g = _problems(manifold, sample)["normal"]
    expected = _solve(solver, manifold, norm, w, g).direction
    for c in SIZES:
        found = _solve(solver, manifold, norm, w, c * g).direction
        law = f"{_name(solver, manifold, norm)}: direction for a gradient {c:g} times as large"
        close(found, expected, tolerance=sample.rounding, law=law)


def zero_gradient_gives_zero(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """No gradient, no step; never NaN, and a certificate of 0, or of what the norm promises."""
    w, g = _problems(manifold, sample)["normal"]
    found = _solve(solver, manifold, norm, w, torch.zeros_like(g))
    law = f"{_name(solver, manifold, norm)}: zero gradient"
    equal(int(found.direction.count_nonzero()), 0, f"{law}, entries that are not zero")
    promised = norm.accuracy if isinstance(solver, NormSteepest) else 0.0
    at_most(found.gap, promised, f"{law}, gap")


def nan_is_not_hidden(solver: Solver, manifold: Manifold, norm: Norm, sample: Sample) -> None:
    """A gradient with NaN gives NaN or an error, never a direction that looks like an answer."""
    w, g = _problems(manifold, sample)["normal"]
    g[..., 0] = torch.nan
    try:
        found = _solve(solver, manifold, norm, w, g)
    except (RuntimeError, ValueError):
        return
    law = f"{_name(solver, manifold, norm)}: NaN in the gradient, entries of the direction that are NaN"
    at_least(found.direction.isnan().sum(), 1, law)


def normal_gradient_gives_no_length(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """A gradient without a tangent part leaves nothing to do: the direction is zero.

    What is left of such a gradient after the projection is rounding. Divided by its own length it
    would be a step of full length in a random direction, away from a stationary point.
    """
    w, g = _problems(manifold, sample)["normal"]
    normal = g - manifold.tangent(w, g)
    # Once more: the first projection's rounding is small beside g, not beside a small normal part.
    normal = normal - manifold.tangent(w, normal)
    # Again, because the rounding of a large tangent part is large beside a small normal one.
    normal = normal - manifold.tangent(w, normal)
    # If every direction is tangent, nothing but zero is normal.
    normal = torch.where(size(normal)[..., None, None] > sample.rounding, normal, 0.0)
    found = _solve(solver, manifold, norm, w, normal)
    law = f"{_name(solver, manifold, norm)}: direction for a gradient without a tangent part"
    finite(found.direction, law)
    at_most(norm.value(found.direction), sample.tolerance, law)


def batched_equals_looped(solver: Solver, manifold: Manifold, norm: Norm, sample: Sample) -> None:
    """Each matrix of a stack is solved by itself, also beside a zero gradient and far larger ones.

    An iterative solver may go on for one matrix while another is done: what is compared is the
    descent, which then may differ by the gaps.
    """
    batch, one = (2, 3), sample.matrix_shape
    w = _points(manifold, sample, (*batch, *one))
    g = sample.normal("g", (*batch, *one))
    g[0, 1] = 0.0
    g[1, 2] *= 1e12
    together = _solve(solver, manifold, norm, w, g)
    descent = -inner(g, together.direction)
    for i in range(batch[0]):
        for j in range(batch[1]):
            alone = _solve(solver, manifold, norm, w[i, j], g[i, j])
            apart_by = (descent[i, j] + inner(g[i, j], alone.direction)).abs()
            slack = together.gap[i, j] + alone.gap + math.sqrt(sample.eps)
            law = f"{_name(solver, manifold, norm)}: a stack equals one by one, descent"
            at_most(apart_by, slack * norm.dual(g[i, j]), law)


def warm_start_does_not_worsen(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """A solver that reached its gap reaches it in no more rounds from the dual of its own solution.

    From the dual of another gradient any solver gives a feasible direction with a sound certificate.
    """
    w, g = _problems(manifold, sample)["normal"]
    cold = _solve(solver, manifold, norm, w, g)
    if cold.dual is None:
        return
    law = f"{_name(solver, manifold, norm)}: warm start"
    with untouched(law, dual=cold.dual):
        warm = solver.solve(manifold, norm, w, g, cold.dual)
    if cold.tolerance is not None and cold.status is Status.CONVERGED:
        at_most(warm.iterations, cold.iterations, f"{law}, rounds")
        at_most(warm.gap, cold.tolerance, f"{law}, gap")
    other = sample.normal("other", tuple(w.shape))
    strange = solver.solve(manifold, norm, w, other, cold.dual)
    off = sample.accuracy + _rounding(solver, sample)
    at_most(norm.value(strange.direction), 1 + off, f"{law} from elsewhere, length")
    best = (1 - strange.gap) * -inner(other, _solve(solver, manifold, norm, w, other).direction)
    slack = off * norm.dual(other)
    at_least(-inner(other, strange.direction), best - slack, f"{law} from elsewhere, certificate")


def arguments_are_not_written_into(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """Neither the point nor the gradient is changed, and the direction shares no memory with them."""
    w, g = _problems(manifold, sample)["normal"]
    law = _name(solver, manifold, norm)
    with untouched(law, point=w, gradient=g):
        found = _solve(solver, manifold, norm, w, g)
    equal(
        (found.direction.shape, found.direction.dtype),
        (w.shape, w.dtype),
        f"{law}, the direction's shape and dtype",
    )
    apart(found.direction, law, point=w, gradient=g)


SCALE_FREE: Final[SolverLaw] = size_of_the_gradient_does_not_matter
"""The law that a solver with a fixed step size cannot keep."""

SOLVER_LAWS: Final[tuple[SolverLaw, ...]] = (
    direction_is_tangent,
    direction_has_at_most_unit_length,
    status_says_what_the_gap_says,
    descends_as_steeply_as_any,
    size_of_the_gradient_does_not_matter,
    zero_gradient_gives_zero,
    nan_is_not_hidden,
    normal_gradient_gives_no_length,
    batched_equals_looped,
    warm_start_does_not_worsen,
    arguments_are_not_written_into,
)
"""All laws of a solver, for a test to be parametrised over."""


def check_solver(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample, *, scale_free: bool = True
) -> None:
    """Hold `solver` to all of SOLVER_LAWS on this pair; raises AssertionError at the first that breaks.

    `scale_free=False` leaves out the law that a solver with a fixed step size cannot keep.
    """
    for law in SOLVER_LAWS:
        if scale_free or law is not SCALE_FREE:
            law(solver, manifold, norm, sample)


def _problems(manifold: Manifold, sample: Sample) -> dict[str, tuple[Tensor, Tensor]]:
    """Points and gradients as a solver sees them: matrices."""
    shape = (*sample.shape[:-2], *sample.matrix_shape)
    w = _points(manifold, sample, shape)
    g = sample.normal("g", shape)
    rank_one = g[..., :1] @ g[..., :1, :]
    return {
        "normal": (w, g),
        "rank-one": (w, rank_one),
        "sparse": (w, torch.where(sample.normal("where", shape) > 0.5, g, 0.0)),
        "uneven": (w, g * torch.logspace(0, -6, shape[-1], dtype=g.dtype, device=g.device)),
    }


def _rounding(solver: Solver, sample: Sample) -> float:
    """How far off feasible the solver's directions may be."""
    half = math.sqrt(sample.eps) if solver.half_the_digits else 0.0
    return max(sample.rounding, half)


def _points(manifold: Manifold, sample: Sample, shape: tuple[int, ...]) -> Tensor:
    return manifold.random(
        shape, generator=sample.generator("point"), dtype=sample.dtype, device=sample.device
    )


def _solve(solver: Solver, manifold: Manifold, norm: Norm, w: Tensor, g: Tensor) -> Solution:
    return solver.solve(manifold, norm, w, g, None)


def _to_unit(manifold: Manifold, norm: Norm, w: Tensor, x: Tensor) -> Tensor:
    """The tangent part of `x` at unit length; zero if nothing but rounding is left of it."""
    tangent = manifold.tangent(w, x)
    length, whole = norm.value(tangent), norm.value(x)
    kept = length > 1e-4 * whole
    factor = torch.where(kept, 1 / torch.where(kept, length, 1.0), 0.0)
    # Twice: the rounding of the first projection grew with the division.
    return manifold.tangent(w, tangent * factor[..., None, None])


def _unit(norm: Norm, a: Tensor) -> Tensor:
    """The Frobenius length of a direction of about unit length in `norm`."""
    return size(a).clamp_min(size(norm.steepest(a)))


def _name(solver: Solver, manifold: Manifold, norm: Norm) -> str:
    return f"{solver.name} for {manifold} × {norm}"
