"""Laws of every solver for one of its pairs: functions that raise AssertionError."""

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
    at_least,
    at_most,
    close,
    equal,
    finite,
    separate_memory,
    unchanged,
)
from modular_manifolds.testing.draws import draw_point, tangent_share
from modular_manifolds.testing.measure import inner, size
from modular_manifolds.testing.sample import SIZES, Sample

SolverLaw = Callable[[Solver, Manifold, Norm, Sample], None]


def direction_is_tangent(solver: Solver, manifold: Manifold, norm: Norm, sample: Sample) -> None:
    """`P(A) = A` up to rounding, or to half the digits for a solver with `half_the_digits`.

    A tangent part that is small relative to the gradient has the rounding error of the whole gradient.
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
    """`‖A‖ ≤ 1` up to rounding, or to half the digits for a solver with `half_the_digits`."""
    for kind, (w, g) in _problems(manifold, sample).items():
        a = _solve(solver, manifold, norm, w, g).direction
        law = f"{_name(solver, manifold, norm)}: length of the direction ({kind} gradient)"
        length = norm.value(manifold.coordinates(w, a))
        at_most(length, 1 + sample.accuracy + _rounding(solver, sample), law)


def descends_as_steeply_as_any(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """`−<G, A> ≥ (1 − gap) · (−<G, B>)` for random tangent B of unit length, also close to A.

    So the gap is a certificate. The descent is also at most its upper bound `dual(P(G))`.
    """
    for kind, (w, g) in _problems(manifold, sample).items():
        solution = _solve(solver, manifold, norm, w, g)
        a, descent = solution.direction, -inner(g, solution.direction)
        slack = (sample.accuracy + _rounding(solver, sample)) * _dual(manifold, norm, w, g)
        others = [sample.normal(f"other {i}", tuple(w.shape)) for i in range(24)]
        others += [-g, norm.steepest(g), norm.steepest(manifold.tangent(w, g))]
        length = size(a)[..., None, None]
        for i, distance in enumerate((1e-3, 1e-2, 0.1, 0.5)):
            noise = sample.normal(f"near {i}", tuple(w.shape))
            others += [a + distance * length * noise, a - distance * length * noise]
        law = f"{_name(solver, manifold, norm)}: as steep as others ({kind} gradient)"
        b = _to_unit(manifold, norm, w.expand(len(others), *w.shape), torch.stack(others))
        best = -inner(g, b).amin(dim=0)
        at_least(descent, (1 - solution.gap) * best - slack, law)
        dual = _dual(manifold, norm, w, manifold.tangent(w, g))
        largest_descent = dual * (1 + sample.tolerance) + slack
        law = f"{_name(solver, manifold, norm)}: descent is at most the dual ({kind} gradient)"
        at_most(descent, largest_descent, law)


def status_says_what_the_gap_says(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """The gap has the shape of the batch and is not negative; CONVERGED means that it is within the tolerance."""
    for kind, (w, g) in _problems(manifold, sample).items():
        solution = _solve(solver, manifold, norm, w, g)
        law = f"{_name(solver, manifold, norm)}: gap and status ({kind} gradient)"
        equal(tuple(solution.gap.shape), tuple(w.shape[:-2]), law)
        at_least(solution.gap, 0.0, f"{law}, gap")
        if solution.tolerance is not None:
            converged = bool((solution.gap <= solution.tolerance).all())
            equal(solution.status is Status.CONVERGED, converged, law)


def size_of_the_gradient_does_not_matter(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """The direction for cG is that for G, for c from 2^-100 to 2^100.

    Multiplication by powers of two does not round, so even an iteration that amplifies rounding must give nearly the
    same bits. The law does not hold for solvers with a fixed step size, such as dual ascent.
    """
    w, g = _problems(manifold, sample)["normal"]
    expected = _solve(solver, manifold, norm, w, g).direction
    for c in SIZES:
        direction = _solve(solver, manifold, norm, w, c * g).direction
        law = f"{_name(solver, manifold, norm)}: direction for a gradient {c:g} times as large"
        close(direction, expected, tolerance=sample.rounding, law=law)


def zero_gradient_gives_zero(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """The direction for a zero gradient is zero, not NaN; the gap is 0, or at most the norm's accuracy."""
    w, g = _problems(manifold, sample)["normal"]
    solution = _solve(solver, manifold, norm, w, torch.zeros_like(g))
    law = f"{_name(solver, manifold, norm)}: zero gradient"
    equal(int(solution.direction.count_nonzero()), 0, f"{law}, entries that are not zero")
    allowed_gap = norm.accuracy if isinstance(solver, NormSteepest) else 0.0
    at_most(solution.gap, allowed_gap, f"{law}, gap")


def nan_is_not_hidden(solver: Solver, manifold: Manifold, norm: Norm, sample: Sample) -> None:
    """A gradient with NaN gives NaN or an error, never a finite direction."""
    w, g = _problems(manifold, sample)["normal"]
    g[..., 0] = torch.nan
    try:
        solution = _solve(solver, manifold, norm, w, g)
    except (RuntimeError, ValueError):
        return
    law = f"{_name(solver, manifold, norm)}: NaN in the gradient, entries of the direction that are NaN"
    at_least(solution.direction.isnan().sum(), 1, law)


def normal_gradient_gives_no_length(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """The direction for a gradient without a tangent part is zero.

    The projection of such a gradient is rounding error. Divided by its own length it would be a step of full length
    in a random direction, away from a stationary point.
    """
    w, g = _problems(manifold, sample)["normal"]
    normal = g - manifold.tangent(w, g)
    # The rounding of the first projection is small relative to g, but not to a small normal part, so it is repeated.
    normal = normal - manifold.tangent(w, normal)
    normal = normal - manifold.tangent(w, normal)
    # If every direction is tangent, only zero is normal.
    normal = torch.where(size(normal)[..., None, None] > sample.rounding, normal, 0.0)
    solution = _solve(solver, manifold, norm, w, normal)
    law = f"{_name(solver, manifold, norm)}: direction for a gradient without a tangent part"
    finite(solution.direction, law)
    length = norm.value(manifold.coordinates(w, solution.direction))
    at_most(length, sample.tolerance, law)


def batched_equals_looped(solver: Solver, manifold: Manifold, norm: Norm, sample: Sample) -> None:
    """Each matrix of a stack is solved independently, also next to a zero gradient and much larger gradients.

    The descents are compared. They may differ by the gaps, because an iterative solver may continue for one matrix
    after another has converged.
    """
    batch, matrix_shape = (2, 3), sample.matrix_shape
    w = draw_point(manifold, sample, (*batch, *matrix_shape))
    g = sample.normal("g", (*batch, *matrix_shape))
    g[0, 1] = 0.0
    g[1, 2] *= 1e12
    stacked = _solve(solver, manifold, norm, w, g)
    descent = -inner(g, stacked.direction)
    for i in range(batch[0]):
        for j in range(batch[1]):
            single = _solve(solver, manifold, norm, w[i, j], g[i, j])
            difference = (descent[i, j] + inner(g[i, j], single.direction)).abs()
            slack = stacked.gap[i, j] + single.gap + math.sqrt(sample.eps)
            law = f"{_name(solver, manifold, norm)}: a stack equals one by one, descent"
            at_most(difference, slack * _dual(manifold, norm, w[i, j], g[i, j]), law)


def warm_start_does_not_worsen(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """A solver converges from the dual of its own solution in at most as many rounds as before.

    From the dual of another gradient, its direction is feasible and its certificate holds.
    """
    w, g = _problems(manifold, sample)["normal"]
    cold = _solve(solver, manifold, norm, w, g)
    if cold.dual is None:
        return
    law = f"{_name(solver, manifold, norm)}: warm start"
    with unchanged(law, dual=cold.dual):
        warm = solver.solve(manifold, norm, w, g, cold.dual)
    if cold.tolerance is not None and cold.status is Status.CONVERGED:
        at_most(warm.iterations, cold.iterations, f"{law}, rounds")
        at_most(warm.gap, cold.tolerance, f"{law}, gap")
    other = sample.normal("other", tuple(w.shape))
    foreign = solver.solve(manifold, norm, w, other, cold.dual)
    tolerance = sample.accuracy + _rounding(solver, sample)
    length = norm.value(manifold.coordinates(w, foreign.direction))
    at_most(length, 1 + tolerance, f"{law} from elsewhere, length")
    best = (1 - foreign.gap) * -inner(other, _solve(solver, manifold, norm, w, other).direction)
    slack = tolerance * _dual(manifold, norm, w, other)
    at_least(-inner(other, foreign.direction), best - slack, f"{law} from elsewhere, certificate")


def arguments_are_not_written_into(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample
) -> None:
    """Neither the point nor the gradient is changed, and the direction shares no memory with them."""
    w, g = _problems(manifold, sample)["normal"]
    law = _name(solver, manifold, norm)
    with unchanged(law, point=w, gradient=g):
        solution = _solve(solver, manifold, norm, w, g)
    equal(
        (solution.direction.shape, solution.direction.dtype),
        (w.shape, w.dtype),
        f"{law}, the direction's shape and dtype",
    )
    separate_memory(solution.direction, law, point=w, gradient=g)


SCALE_FREE: Final[SolverLaw] = size_of_the_gradient_does_not_matter
"""The law that does not hold for a solver with a fixed step size."""

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
"""All laws of a solver, for parametrised tests."""


def check_solver(
    solver: Solver, manifold: Manifold, norm: Norm, sample: Sample, *, scale_free: bool = True
) -> None:
    """Check all of SOLVER_LAWS on this pair; raises AssertionError at the first law that fails.

    `scale_free=False` leaves out `SCALE_FREE`, which does not hold for a solver with a fixed step size.
    """
    for law in SOLVER_LAWS:
        if scale_free or law is not SCALE_FREE:
            law(solver, manifold, norm, sample)


def _problems(manifold: Manifold, sample: Sample) -> dict[str, tuple[Tensor, Tensor]]:
    """Pairs of a point and a gradient, as matrices, by the kind of gradient."""
    shape = (*sample.shape[:-2], *sample.matrix_shape)
    w = draw_point(manifold, sample, shape)
    g = sample.normal("g", shape)
    rank_one = g[..., :1] @ g[..., :1, :]
    return {
        "normal": (w, g),
        "rank-one": (w, rank_one),
        "sparse": (w, torch.where(sample.normal("where", shape) > 0.5, g, 0.0)),
        "uneven": (w, g * torch.logspace(0, -6, shape[-1], dtype=g.dtype, device=g.device)),
    }


def _rounding(solver: Solver, sample: Sample) -> float:
    """The relative error of feasibility that the solver's directions may have."""
    half = math.sqrt(sample.eps) if solver.half_the_digits else 0.0
    return max(sample.rounding, half)


def _solve(solver: Solver, manifold: Manifold, norm: Norm, w: Tensor, g: Tensor) -> Solution:
    return solver.solve(manifold, norm, w, g, None)


def _to_unit(manifold: Manifold, norm: Norm, w: Tensor, x: Tensor) -> Tensor:
    """The tangent part of `x` at unit length; zero if it is only rounding error."""
    tangent = manifold.tangent(w, x)
    length, original_length = (norm.value(manifold.coordinates(w, a)) for a in (tangent, x))
    significant = length > 1e-4 * original_length
    factor = torch.where(significant, 1 / torch.where(significant, length, 1.0), 0.0)
    # Projected twice: the division magnified the rounding of the first projection.
    return manifold.tangent(w, tangent * factor[..., None, None])


def _dual(manifold: Manifold, norm: Norm, w: Tensor, g: Tensor) -> Tensor:
    """The largest `<G, A>` over steps A of unit length, whether or not they are tangent."""
    return norm.dual(manifold.gradient_coordinates(w, g))


def _unit(norm: Norm, a: Tensor) -> Tensor:
    """The Frobenius norm of a direction whose length in `norm` is about 1."""
    return size(a).clamp_min(size(norm.steepest(a)))


def _name(solver: Solver, manifold: Manifold, norm: Norm) -> str:
    return f"{solver.name} for {manifold} × {norm}"
