"""Empirical slopes: lower bounds on the true Lipschitz constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from modular_manifolds.certificates.inputs import as_vectors
from modular_manifolds.composition.folding import flow, fold
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.space import AnySpace, ProductSpace, Space, VectorNorm
from modular_manifolds.composition.tree import Tree, leading, leaves
from modular_manifolds.errors import ArgumentError
from modular_manifolds.nn.tuples import scale_output, sum_outputs

DUALS: Final[dict[VectorNorm, VectorNorm]] = {"l2": "l2", "rms": "rms", "l1": "linf", "linf": "l1"}
"""The dual of each norm, up to a factor for rms."""


twice_differentiable = sdpa_kernel(SDPBackend.MATH)
"""A context and decorator for second derivatives: torch's fused attention has none, so the plain formula is used."""


def vector_norm(x: Tensor, norm: VectorNorm) -> Tensor:
    """The norm of each vector (last dimension)."""
    if norm == "rms":
        return x.square().mean(dim=-1).sqrt()
    order = {"l2": 2.0, "l1": 1.0, "linf": float("inf")}[norm]
    return torch.linalg.vector_norm(x, ord=order, dim=-1)


def largest_norm(x: Tensor, norm: VectorNorm) -> Tensor:
    """The norm of each input (first dimension): the largest over its vectors."""
    return vector_norm(x, norm).flatten(1).amax(dim=1) if x.dim() > 2 else vector_norm(x, norm)


def rounded_down(value: float, entries: int) -> float:
    """A lower bound on a quotient of norms over `entries` numbers that was computed in float64."""
    return value * (1 - 4 * entries * torch.finfo(torch.float64).eps)


def search_points(
    network: nn.Module,
    tree: Tree,
    *,
    norm: VectorNorm,
    radius: float | None,
    points: Any,
    starts: int,
    generator: torch.Generator,
) -> Tensor:
    """The first `starts` of `points`, or `starts` random ones of several sizes within `radius`, in float64.

    The result has shape (batch, features), or (batch, *leading, features); `points` have any shape that the network takes.

    Raises:
        ArgumentError: a point lies outside the radius, or `points` are not inputs of the network.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    source = tree.signature.source
    assert isinstance(source, Space)
    if points is None:
        shape = (starts, *leading(tree), source.size)
        at = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        sizes = torch.logspace(-1, 1, starts, dtype=torch.float64, device="cpu")
        sizes = sizes.reshape(-1, *[1] * (len(shape) - 1))
        if radius is not None:
            # The margin exceeds the rounding of the norm.
            at = at / vector_norm(at, norm).unsqueeze(-1) * (radius * (1 - 1e-9) / 10)
        return (at * sizes).to(device)
    at = as_vectors(points, tree, argument="points")[:starts]
    if radius is not None and at.numel():
        largest = float(vector_norm(at, norm).amax())
        if largest > radius:
            raise ArgumentError(
                "points",
                f"must lie within radius={radius:g} in {norm}",
                f"a point of norm {largest:.6g}",
                "Pass a larger radius, or other points.",
            )
    return at.to(device)


@torch.enable_grad()
def power_step(
    function: Callable[[Tensor], Tensor],
    at: Tensor,
    v: Tensor,
    input_norm: VectorNorm,
    output_norm: VectorNorm,
) -> tuple[Tensor, Tensor, Tensor]:
    """The slopes `‖J(x) v‖_out / ‖v‖_in`, rounded down, and unit directions with slopes at least as large.

    `‖J(x) ·‖` is convex, so it is at least its linearisation at v, `<u, J ·>` with `<u, J v> = ‖J v‖`. The next v maximises
    this linearisation over the unit ball. In l2 this is power iteration on `JᵀJ`. A direction with slope zero does not
    change.

    Returns:
        The slopes, the next v, and u up to a factor.

    Source: D. Boyd, "The power method for l^p norms" (1974).
    """
    v = v / as_factors(largest_norm(v, input_norm), v).clamp_min(1e-300)
    x = at.detach().requires_grad_()
    y = function(x)
    # J v is the derivative of `<Jᵀu, v>` in u, which is several times faster than torch's forward mode.
    u = torch.zeros_like(y, requires_grad=True)
    back = pull_back(y, x, u)
    forward = pull_back(back, u, v).detach()
    lengths = largest_norm(v, input_norm)
    slopes = torch.where(lengths > 0, largest_norm(forward, output_norm) / lengths, 0.0)
    slopes = slopes * rounded_down(1.0, max(at[:1].numel(), forward[:1].numel()))
    # A subgradient of the largest norm over several vectors is nonzero at the largest one only.
    u = _norm_subgradient(forward, output_norm) * _largest_vector_mask(forward, output_norm)
    back = pull_back(y, x, u).detach()
    moves = as_factors((back != 0).flatten(1).any(dim=1), back)
    return slopes, torch.where(moves, _norm_subgradient(back, DUALS[input_norm]), v), u


def as_factors(numbers: Tensor, like: Tensor) -> Tensor:
    """One number for each input, as factors for the inputs `like`."""
    return numbers.reshape(-1, *[1] * (like.dim() - 1))


def _largest_vector_mask(x: Tensor, norm: VectorNorm) -> Tensor:
    """A mask of the largest vectors of each input, shape (batch, …, 1)."""
    norms = vector_norm(x, norm).unsqueeze(-1)
    return norms >= as_factors(largest_norm(x, norm), norms)


def pull_back(y: Tensor, x: Tensor, u: Tensor) -> Tensor:
    """`Jᵀu` of y as a function of x, differentiable; zero if y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    return torch.autograd.grad(y, x, u, create_graph=True, materialize_grads=True)[0]


def _norm_subgradient(x: Tensor, norm: VectorNorm) -> Tensor:
    """`argmax <x, u>` over u of unit dual norm, up to a factor: a subgradient of `norm` at each x."""
    if norm == "l1":
        return x.sign()
    if norm == "linf":
        largest = x.abs().argmax(dim=-1, keepdim=True)
        return torch.zeros_like(x).scatter(-1, largest, x.gather(-1, largest).sign())
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-300)


@twice_differentiable
def largest_slope(
    function: Callable[[Tensor], Tensor],
    at: Tensor,
    *,
    input_norm: VectorNorm,
    output_norm: VectorNorm,
    iterations: int,
    generator: torch.Generator,
) -> float:
    """The largest `‖J(x) v‖_out / ‖v‖_in` found at the points `at` in float64, rounded down.

    `at` is of shape (batch, features), or (batch, …, features) if norms are the largest over the vectors
    of an input. At each point `power_step` improves the direction v. For every v the quotient is a true slope of the
    function at x.
    """
    v = torch.randn(at.shape, generator=generator, dtype=torch.float64, device="cpu").to(at.device)
    best = 0.0
    for _ in range(iterations if at.numel() else 0):
        slopes, v, _ = power_step(function, at, v, input_norm, output_norm)
        # Ignore slopes that overflow.
        finite = torch.where(torch.isfinite(slopes), slopes, 0.0)
        before, best = best, max(best, float(finite.max()))
        if best <= before * (1 + 1e-9):
            break
    return best


def trace_leaves(
    tree: Tree, x: Any, watch: Callable[[Leaf, Any, Any], Any] | None = None
) -> tuple[Any, dict[str, tuple[Any, Any]]]:
    """The network's output leaf by leaf, and the input and output of each leaf, by its path.

    `watch(leaf, input, output)` gives back what goes on in place of the output.

    Raises:
        LookupError: a leaf has no function or the path of another, as in a composition of one's own.
    """
    seen: dict[str, tuple[Any, Any]] = {}

    def through(leaf: Leaf, x: Any) -> Any:
        if leaf.path in seen:
            raise LookupError(leaf.path)
        output = leaf.output(x)
        output = output if watch is None else watch(leaf, x, output)
        seen[leaf.path] = x, output
        return output

    rules = flow(
        "outputs leaf by leaf", leaf=through, parallel=tuple, total=sum_outputs, scale=scale_output
    )
    return fold(tree, rules)(x), seen


def slopes_of_leaves(
    tree: Tree,
    spaces: dict[str, tuple[AnySpace, AnySpace]],
    at: Tensor,
    *,
    iterations: int,
    generator: torch.Generator,
) -> dict[str, float]:
    """The largest slope found for each leaf, at its inputs for the network's inputs `at`; some leaves may be missing.

    A leaf with a tuple as input is searched part by part if it takes any space, and otherwise not at all.
    """
    slopes_by_path: dict[str, float] = {}
    if not iterations or not at.numel():
        return slopes_by_path
    try:
        _, trace = trace_leaves(tree, at)
    except LookupError:
        return slopes_by_path
    for leaf in leaves(tree):
        source, target = spaces[leaf.path]
        slopes = [
            1.0
            if leaf.forward is None
            else largest_slope(
                leaf.forward,
                arriving,
                input_norm=before.norm,
                output_norm=after.norm,
                iterations=iterations,
                generator=generator,
            )
            for arriving, before, after in _vectors(leaf, trace[leaf.path][0], source, target)
        ]
        if slopes:
            slopes_by_path[leaf.path] = max(slopes)
    return slopes_by_path


def _vectors(
    leaf: Leaf, x: Any, source: AnySpace, target: AnySpace
) -> list[tuple[Tensor, Space, Space]]:
    """The vectors of `x` with their input and output spaces; empty if parts do not map to parts."""
    if isinstance(source, Space) and isinstance(target, Space):
        return [(x.detach(), source, target)]
    if isinstance(source, ProductSpace) and source == target and leaf.signature.source is None:
        parts = zip(x, source.parts, strict=True)
        return [each for part, space in parts for each in _vectors(leaf, part, space, space)]
    return []
