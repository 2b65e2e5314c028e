"""The sizes of activations and gradients: declared, certified and measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.arguments import check_count
from modular_manifolds.certificates.advice import UnboundedModule, advice_lines, remedy_for
from modular_manifolds.certificates.bounds import (
    bounds_of,
    check_radius,
    endpoint_spaces,
    rounding_factor,
)
from modular_manifolds.certificates.empirical import (
    DUALS,
    as_factors,
    largest_norm,
    rounded_down,
    search_points,
    trace_leaves,
    vector_norm,
)
from modular_manifolds.certificates.examination import Examination, examine
from modular_manifolds.certificates.inputs import as_vectors
from modular_manifolds.certificates.propagation import Passage
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.space import AnySpace, ProductSpace, Space, VectorNorm
from modular_manifolds.composition.tree import Tree
from modular_manifolds.nn.composed import Composed
from modular_manifolds.tables import Printable, Table


@dataclass(frozen=True)
class Size:
    """The bound on the whole manifolds, the bound for the current weights, and the largest measured value.

    `measured` is None without points, or if numbers leave the range of float64.
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
        """The rows as texts and numbers, for a table."""
        return [
            [
                row.path or "(whole)",
                row.label,
                *_size_cells(row.input),
                *_size_cells(row.output),
                *_size_cells(row.gradient),
            ]
            for row in self.rows
        ]

    def printed(self) -> list[Table | str]:
        """The table, the meaning of its columns, and the advice."""
        return [
            Table(self.header(), self.cells()),
            f"for inputs of norm at most {self.radius:g} in {self.norm}",
            "each of input, output and gradient: the declared bound, the certified bound and the largest measured size",
            *self.advice(),
        ]

    def advice(self) -> list[str]:
        """One sentence for each reason for an infinite bound."""
        return advice_lines(
            UnboundedModule(row.path, row.label, row.remedy, math.isfinite(row.output.certified))
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

    A module with slope bound L maps inputs of norm r to outputs of norm at most `L r + ‖f(0)‖`. A gradient of dual norm g
    at the network's output has dual norm at most g times the product of the slopes after the module. Each slope is taken at
    the bound on the module's inputs. As in `mm.lipschitz`, bounds concern the network's current mode, and sizes are
    measured in evaluation mode.

    Args:
        net: a network from one space to another (not from or to a tuple).
        radius: the largest norm of an input, in the network's own input norm; by default the largest norm of the points,
            and 1 without points.
        points: inputs for the measurement, in any shape that the network takes; by default random ones of norm `radius`.
        seed: the seed of the random inputs and output gradients.

    Raises:
        ArgumentError: `radius` is not finite and positive or a point lies outside it, or `net` has
            no tree (see `Composed`) or a weight that is complex.
        SpaceError: the network takes any space, or takes or gives a tuple.
        NonFiniteError: a weight or a point holds NaN or infinity.
        ShapeError: the network does not take such points.
    """
    seed = check_count(seed, argument="activations(seed)", what="the random draw", least=0)
    with examine(net, argument="activations(net)") as examination:
        return _report(examination, radius, points, seed)


def _report(
    examination: Examination, radius: float | None, points: Any, seed: int
) -> ActivationReport:
    network = examination.network
    source, target = endpoint_spaces(examination.tree, "activations(net)")
    vectors = None if points is None else as_vectors(points, examination.tree, argument="points")
    if radius is None and vectors is not None and vectors.numel():
        radius = float(vector_norm(vectors, source.norm).amax()) or None
    radius = check_radius(1.0 if radius is None else radius)
    bounds = bounds_of(
        examination.bounded, input_norm=source.norm, output_norm=target.norm, radius=radius
    )
    certified = bounds.certified_propagation.passages
    generator = torch.Generator("cpu").manual_seed(seed)
    at = search_points(
        network,
        examination.tree,
        norm=source.norm,
        radius=radius,
        points=vectors,
        starts=64 if vectors is None else len(vectors),
        generator=generator,
    )
    measurements = _measure_sizes(examination.tree, target, certified, at, generator)
    factor = rounding_factor(bounds.certified_propagation)
    rows: list[ActivationRow] = []
    for declared, current in zip(bounds.declared_propagation.passages, certified, strict=True):
        leaf = declared.leaf
        measured = measurements.get(leaf.path, (None, None, None))
        pairs = (
            (declared.arriving, current.arriving),
            (declared.leaving, current.leaving),
            (declared.gradient, current.gradient),
        )
        sizes = [Size(a, b * factor, m) for (a, b), m in zip(pairs, measured, strict=True)]
        remedy = remedy_for(declared, current, radius)
        rows.append(ActivationRow(leaf.path, leaf.label, *sizes, remedy=remedy))
    return ActivationReport(radius, source.norm, tuple(rows))


def _measure_sizes(
    tree: Tree,
    target: Space,
    passages: tuple[Passage, ...],
    at: Tensor,
    generator: torch.Generator,
) -> dict[str, tuple[float | None, float | None, float | None]]:
    """The largest input, output and gradient of each leaf at the points; empty without points or without a trace."""
    if not at.numel():
        return {}
    try:
        output, trace = trace_leaves(tree, at.clone().requires_grad_(), _node)
    except LookupError:
        return {}
    gradients: dict[str, float | None] = dict.fromkeys(trace, 0.0)
    ends = [vector for path in trace for vector in _vectors_of(trace[path][1])]
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
            own = [next(arriving) for _ in _vectors_of(trace[path][1])]
            size = _largest(
                _dual_norm(_with_structure(trace[path][1], own), passage.target), entries
            )
            before = gradients[path]
            gradients[path] = None if size is None or before is None else max(before, size)
    return {
        each.leaf.path: (
            _largest(_norm(trace[each.leaf.path][0], each.source), entries),
            _largest(_norm(trace[each.leaf.path][1], each.target), entries),
            gradients[each.leaf.path],
        )
        for each in passages
    }


def _node(leaf: Leaf, x: Any, output: Any) -> Any:
    """A separate graph node for this leaf's output, because an identity returns its input, which others share."""
    if isinstance(output, tuple):
        return tuple(_node(leaf, x, part) for part in output)
    return output.view_as(output)


def _vectors_of(x: Any) -> list[Tensor]:
    """The vectors of a nested tuple, in order."""
    return [each for part in x for each in _vectors_of(part)] if isinstance(x, tuple) else [x]


def _with_structure(x: Any, vectors: list[Tensor]) -> Any:
    """The vectors in the nested structure of `x`; they are removed from the list."""
    return (
        tuple(_with_structure(part, vectors) for part in x)
        if isinstance(x, tuple)
        else vectors.pop(0)
    )


def _norm(x: Any, space: AnySpace) -> Tensor:
    """The norm of each input: the largest over its vectors; for a tuple the sum over its parts."""
    if isinstance(space, ProductSpace):
        parts = zip(x, space.parts, strict=True)
        return torch.stack([_norm(part, each) for part, each in parts]).sum(dim=0)
    assert isinstance(space, Space)
    return largest_norm(x.detach(), space.norm)


def _dual_norm(g: Any, space: AnySpace) -> Tensor:
    """The dual norm for each input: the sum over its vectors, `√d ‖g‖₂` for rms; for a tuple the largest of its parts."""
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


def _size_cells(size: Size) -> list[float | str]:
    return [size.declared, size.certified, "-" if size.measured is None else size.measured]
