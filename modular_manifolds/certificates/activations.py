"""The sizes of activations and gradients: what is guaranteed, beside what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.arguments import check_count
from modular_manifolds.certificates.advice import Culprit, remedy_for, sentences
from modular_manifolds.certificates.bounds import (
    bounds_of,
    check_radius,
    one_space_to_another,
    rounding_up,
)
from modular_manifolds.certificates.empirical import (
    DUALS,
    as_factors,
    largest_norm,
    points_to_try,
    rounded_down,
    traced,
    vector_norm,
)
from modular_manifolds.certificates.examined import Examined, examined
from modular_manifolds.certificates.inputs import as_vectors
from modular_manifolds.certificates.propagation import Passage
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.space import AnySpace, ProductSpace, Space, VectorNorm
from modular_manifolds.composition.tree import Tree
from modular_manifolds.nn.composed import Composed
from modular_manifolds.tables import Printable, Table


@dataclass(frozen=True)
class Size:
    """A bound for every point of the manifolds, one for the weights as they are, and the largest one seen.

    `measured` is None if nothing could be measured: there are no points, or numbers leave the range of float64.
    """

    declared: float
    certified: float
    measured: float | None


@dataclass(frozen=True)
class ActivationRow:
    """One atom or bond: the norms of its input and output, each in its own space, and of the gradient.

    `gradient` is the dual norm of the gradient at the module's output, for a gradient of unit dual norm
    at the network's output.
    """

    path: str
    label: str
    input: Size
    output: Size
    gradient: Size
    remedy: str = ""


@dataclass(frozen=True)
class ActivationReport(Printable):
    """The sizes at every module for inputs of norm at most `radius` in `norm`; `print` it to read it.

    The bounds are for exact arithmetic; the measurements are in float64.
    """

    radius: float
    norm: VectorNorm
    rows: tuple[ActivationRow, ...]

    def header(self) -> list[str]:
        """The names of the columns of `cells`."""
        sizes = ["declared", "certified", "measured"]
        return ["module", "kind", "input", *sizes[1:], "output", *sizes[1:], "gradient", *sizes[1:]]

    def cells(self) -> list[list[float | str]]:
        """The rows as text and numbers, for a table: of each size the declared, certified and measured one."""
        return [
            [
                row.path or "(whole)",
                row.label,
                *_three(row.input),
                *_three(row.output),
                *_three(row.gradient),
            ]
            for row in self.rows
        ]

    def printed(self) -> list[Table | str]:
        """The table, the meaning of its columns, and the advice."""
        return [
            Table(self.header(), self.cells()),
            f"for inputs of norm at most {self.radius:g} in {self.norm}; of input, output and gradient "
            "the declared bound, the certified one and the largest measured",
            *self.advice(),
        ]

    def advice(self) -> list[str]:
        """A sentence for every reason why a bound is infinite."""
        return sentences(
            Culprit(row.path, row.label, row.remedy, math.isfinite(row.output.certified))
            for row in self.rows
        )


def activations(
    net: Composed,
    *,
    radius: float | None = None,
    points: Any = None,
    seed: int = 0,
) -> ActivationReport:
    """Bound every activation of `net`, and every gradient, for inputs of norm at most `radius`.

    A module of slope bound L whose inputs are within r gives outputs within `L r + ‖f(0)‖`; a gradient of
    dual norm g at the end is at most g times the product of the slopes behind the module. Each module's
    slope is taken at the radius that arrives there. Modes and precisions are treated as in `mm.lipschitz`: bounds are
    those of the network's own mode, and sizes are measured in evaluation mode.

    Args:
        net: a network from one space to another (not from or to a tuple).
        radius: the largest norm of an input, in the network's own input norm; that of the points by
            default, and 1 without points.
        points: inputs to measure on, in any shape that the network takes; random ones of norm `radius` by default.
        seed: the seed of the random inputs and output gradients.

    Raises:
        ArgumentError: `radius` is not finite and positive or a point lies outside it, or `net` has
            no tree (see `Composed`) or a weight that is complex.
        SpaceError: the network takes any space, or takes or gives a tuple.
        NonFiniteError: a weight or a point holds NaN or infinity.
        ShapeError: the network does not take such points.
    """
    seed = check_count(seed, argument="activations(seed)", what="the random draw", least=0)
    with examined(net, argument="activations(net)") as seen:
        return _report(seen, radius, points, seed)


def _report(seen: Examined, radius: float | None, points: Any, seed: int) -> ActivationReport:
    network = seen.network
    source, target = one_space_to_another(seen.tree, "activations(net)")
    given = None if points is None else as_vectors(points, seen.tree, argument="points")
    if radius is None and given is not None and given.numel():
        radius = float(vector_norm(given, source.norm).amax()) or None
    radius = check_radius(1.0 if radius is None else radius)
    known = bounds_of(seen.bounded, input_norm=source.norm, output_norm=target.norm, radius=radius)
    proved = known.proved.passages
    generator = torch.Generator("cpu").manual_seed(seed)
    at = points_to_try(
        network,
        seen.tree,
        norm=source.norm,
        radius=radius,
        points=given,
        starts=64 if given is None else len(given),
        generator=generator,
    )
    found = _measured(seen.tree, target, proved, at, generator)
    up = rounding_up(known.proved)
    rows: list[ActivationRow] = []
    for one, other in zip(known.promised.passages, proved, strict=True):
        measured = found.get(one.leaf.path, (None, None, None))
        pairs = (
            (one.arriving, other.arriving),
            (one.leaving, other.leaving),
            (one.gradient, other.gradient),
        )
        sizes = [Size(a, b * up, m) for (a, b), m in zip(pairs, measured, strict=True)]
        remedy = remedy_for(one, other, radius)
        rows.append(ActivationRow(one.leaf.path, one.leaf.label, *sizes, remedy=remedy))
    return ActivationReport(radius, source.norm, tuple(rows))


def _measured(
    tree: Tree,
    target: Space,
    passages: tuple[Passage, ...],
    at: Tensor,
    generator: torch.Generator,
) -> dict[str, tuple[float | None, float | None, float | None]]:
    """The largest input, output and gradient of each leaf at the points; empty if none can be traced."""
    if not at.numel():
        return {}
    try:
        output, seen = traced(tree, at.clone().requires_grad_(), _node)
    except LookupError:
        return {}
    gradients: dict[str, float | None] = dict.fromkeys(seen, 0.0)
    ends = [part for path in seen for part in _parts(seen[path][1])]
    entries = sum(end[:1].numel() for end in ends)
    random = torch.randn(output.shape, generator=generator, dtype=torch.float64, device="cpu")
    coordinate = (random == random.amax(dim=-1, keepdim=True)).to(torch.float64)
    for direction in (random, random.sign(), coordinate):
        g = direction.to(output.device)
        g = g / as_factors(_dual_norm(g, target), g)
        arriving = iter(
            torch.autograd.grad(output, ends, g, retain_graph=True, materialize_grads=True)
        )
        for passage in passages:
            path = passage.leaf.path
            own = [next(arriving) for _ in _parts(seen[path][1])]
            size = _largest(_dual_norm(_like(seen[path][1], own), passage.target), entries)
            before = gradients[path]
            gradients[path] = None if size is None or before is None else max(before, size)
    return {
        each.leaf.path: (
            _largest(_norm(seen[each.leaf.path][0], each.source), entries),
            _largest(_norm(seen[each.leaf.path][1], each.target), entries),
            gradients[each.leaf.path],
        )
        for each in passages
    }


def _node(leaf: Leaf, x: Any, output: Any) -> Any:
    """A node of the graph for this leaf alone: an identity gives back what other modules use too."""
    if isinstance(output, tuple):
        return tuple(_node(leaf, x, part) for part in output)
    return output.view_as(output)


def _parts(x: Any) -> list[Tensor]:
    """The vectors of a tuple, in order."""
    return [each for part in x for each in _parts(part)] if isinstance(x, tuple) else [x]


def _like(x: Any, vectors: list[Tensor]) -> Any:
    """The vectors as a tuple of the same form as `x`; they are taken from the front of the list."""
    return tuple(_like(part, vectors) for part in x) if isinstance(x, tuple) else vectors.pop(0)


def _norm(x: Any, space: AnySpace) -> Tensor:
    """The norm of each input, the largest over its vectors; of a tuple the sum over its parts."""
    if isinstance(space, ProductSpace):
        parts = zip(x, space.parts, strict=True)
        return torch.stack([_norm(part, each) for part, each in parts]).sum(dim=0)
    assert isinstance(space, Space)
    return largest_norm(x.detach(), space.norm)


def _dual_norm(g: Any, space: AnySpace) -> Tensor:
    """The dual norm for each input, the sum over its vectors, `√d ‖g‖₂` for rms; of a tuple the largest of its parts'."""
    if isinstance(space, ProductSpace):
        parts = zip(g, space.parts, strict=True)
        return torch.stack([_dual_norm(part, each) for part, each in parts]).amax(dim=0)
    assert isinstance(space, Space)
    size, norm = (math.sqrt(space.size), "l2") if space.norm == "rms" else (1.0, DUALS[space.norm])
    dual = size * vector_norm(g.detach(), norm)
    return dual.flatten(1).sum(dim=1) if dual.dim() > 1 else dual


def _largest(sizes: Tensor, entries: int) -> float | None:
    """The largest size, rounded down; None if the numbers leave the range of float64."""
    largest = float(sizes.amax())
    return rounded_down(largest, entries) if math.isfinite(largest) else None


def _three(size: Size) -> list[float | str]:
    return [size.declared, size.certified, "-" if size.measured is None else size.measured]
