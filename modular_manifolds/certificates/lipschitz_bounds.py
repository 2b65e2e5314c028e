"""Lipschitz bounds of a network: declared by manifolds, certified for the current weights, and found by search."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from modular_manifolds.arguments import check_count
from modular_manifolds.certificates.advice import UnboundedModule, advice_lines, remedy_for
from modular_manifolds.certificates.ascent import steeper_points
from modular_manifolds.certificates.bounds import (
    bounds_of,
    check_radius,
    endpoint_spaces,
    rounding_factor,
)
from modular_manifolds.certificates.empirical import (
    largest_slope,
    search_points,
    slopes_of_leaves,
)
from modular_manifolds.certificates.examination import Examination, examine
from modular_manifolds.certificates.forward_error import forward_error
from modular_manifolds.certificates.propagation import Passage
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.space import VectorNorm, check_vector_norm, conversion
from modular_manifolds.nn.composed import Composed
from modular_manifolds.tables import Printable, Table


@dataclass(frozen=True)
class LipschitzRow:
    """One atom or bond, in the norms of its own spaces.

    `declared`, `certified` and `empirical` are as in the report. `empirical` is taken at the module's inputs for the searched
    points; it is None for modules that take or return tuples. `remedy` is an advice if there is no finite bound.
    `rounding` bounds the rounding error of the module alone; None without a radius.
    """

    path: str
    label: str
    declared: float
    certified: float
    empirical: float | None = None
    remedy: str = ""
    rounding: float | None = None


@dataclass(frozen=True)
class LipschitzReport(Printable):
    """Three bounds L in `‖f(x) − f(y)‖_output ≤ L ‖x − y‖_input`, and a row for each module; `print` it.

    `declared` holds at every point of the product manifold; infinite if a manifold is unbounded.
    `certified` holds for the current weights, in exact arithmetic.
    `empirical` is the largest slope found, a lower bound on every true L. It is 0 if no slope was found at the `searched`
    points, or if nothing was searched; `advice` tells the reason.
    `rounding` covers the network f̂ that torch computes in its weights' dtype:
    `‖f̂(x) − f̂(y)‖ ≤ certified · ‖x − y‖ + rounding` for inputs of norm at most `radius`. It is None without a radius, and
    infinite if a module does not bound its rounding.
    `merged` names the modules that were multiplied into one matrix, one tuple for each matrix: there the certified bound
    is below the product of the rows.
    """

    input_norm: VectorNorm
    output_norm: VectorNorm
    declared: float
    certified: float
    empirical: float
    rows: tuple[LipschitzRow, ...]
    radius: float | None = None
    rounding: float | None = None
    merged: tuple[tuple[str, ...], ...] = ()
    searched: int = 0

    @property
    def tightness(self) -> float:
        """`certified / empirical`, at least 1: 1 for a constant network, infinite if no slope was found."""
        if self.empirical > 0:
            return self.certified / self.empirical
        return math.inf if self.certified > 0 else 1.0

    def header(self) -> list[str]:
        """The names of the columns of `cells`."""
        return ["module", "kind", "declared", "certified", "empirical"]

    def cells(self) -> list[list[float | str]]:
        """The rows as texts and numbers, for a table; a dash if nothing was searched."""
        return [
            [
                row.path or "(whole)",
                row.label,
                row.declared,
                row.certified,
                "-" if row.empirical is None else row.empirical,
            ]
            for row in self.rows
        ]

    def printed(self) -> list[Table | str]:
        """The table, the bounds of the whole network, and the advice."""
        lines: list[Table | str] = [
            Table(self.header(), self.cells()),
            f"from {self.input_norm} to {self.output_norm}: declared {self.declared:.6g}, certified "
            f"{self.certified:.6g}, empirical {self.empirical:.6g} ({self._how_tight()})",
        ]
        if self.rounding is not None:
            lines.append(
                f"as computed: plus {self.rounding:.2g} for rounding, for inputs of norm at most {self.radius:g}"
            )
        lines.extend(f"multiplied out to one matrix: {', '.join(each)}" for each in self.merged)
        return [*lines, *self.advice()]

    def _how_tight(self) -> str:
        if self.empirical > 0 or not self.certified > 0:
            return f"tightness {self.tightness:.3g}"
        return "no slope found" if self.searched else "not searched"

    def advice(self) -> list[str]:
        """One sentence for each reason for an infinite bound, and one if no slope was found."""
        lines = advice_lines(
            UnboundedModule(row.path, row.label, row.remedy, math.isfinite(row.certified))
            for row in self.rows
        )
        if not self.empirical > 0 and self.certified > 0:
            lines.append(
                f"no slope was found at {self.searched} points, so the tightness is unknown: the network is "
                "constant near them, or its numbers leave the range of float64; pass other points="
                if self.searched
                else "no slope was searched for, so the tightness is unknown; pass points, and "
                "starts= and iterations= of at least 1"
            )
        if self.rounding is None or math.isfinite(self.rounding) or math.isinf(self.certified):
            return lines
        return lines + [
            f"no bound on the rounding holds at {row.path or '(whole)'} ({row.label}): write its "
            "rounding_within, or compute in a finer dtype"
            for row in self.rows
            if row.rounding is not None and math.isinf(row.rounding)
        ]


def lipschitz(
    net: Composed,
    *,
    input_norm: VectorNorm | None = None,
    output_norm: VectorNorm | None = None,
    radius: float | None = None,
    points: Any = None,
    starts: int = 16,
    iterations: int = 30,
    seed: int = 0,
) -> LipschitzReport:
    """Bound the slope of `net` from `input_norm` to `output_norm`.

    The bound of a series is the product of its parts' bounds, the bound of a parallel or a sum is their sum, and a scale c
    multiplies by |c|. Norms are converted at the two ends only. The certified bound uses `σ_max` of each weight in
    float64, rounded up; adjacent linear maps, in series or in a sum, are first multiplied out if that gives a smaller
    bound. It is at most the declared bound if the weights are on their manifolds.

    The bounds concern the network's current mode: call `net.eval()` for bounds without dropout. Slopes are searched in
    evaluation mode. The report uses a float64 copy without hooks, and does not depend on torch's global settings.

    Args:
        net: a network from one space to another (not from or to a tuple).
        input_norm: l2, rms, l1 or linf; by default the norm of the network's input space.
        output_norm: one of the same; by default the norm of the output space.
        radius: the largest `input_norm` of an input. The bounds then hold for such inputs only, use the resulting
            sizes at each module, and include `rounding`. Without it they hold for all inputs.
        points: inputs for the search, in any shape that the network takes; random ones by default.
        starts: the number of points at which the search for the largest slope starts.
        iterations: the number of its steps from each start.
        seed: the seed of its random numbers.

    Raises:
        ArgumentError: a norm is unknown, `radius` is not finite and positive or a point lies
            outside it, `starts` or `iterations` is negative, or `net` has no tree (see `Composed`)
            or a weight that is complex.
        SpaceError: the network takes any space, or takes or gives a tuple.
        NonFiniteError: a weight or a point holds NaN or infinity.
        ShapeError: the network does not take such points.
    """
    starts = check_count(starts, argument="lipschitz(starts)", what="starts", least=0)
    iterations = check_count(iterations, argument="lipschitz(iterations)", what="steps", least=0)
    seed = check_count(seed, argument="lipschitz(seed)", what="the random draw", least=0)
    with examine(net, argument="lipschitz(net)") as examination:
        return _report(
            examination,
            input_norm=input_norm,
            output_norm=output_norm,
            radius=radius,
            points=points,
            starts=starts,
            iterations=iterations,
            seed=seed,
        )


def _report(
    examination: Examination,
    *,
    input_norm: VectorNorm | None,
    output_norm: VectorNorm | None,
    radius: float | None,
    points: Any,
    starts: int,
    iterations: int,
    seed: int,
) -> LipschitzReport:
    network = examination.network
    source, target = endpoint_spaces(examination.tree, "lipschitz(net)")
    from_norm = source.norm if input_norm is None else input_norm
    to_norm = target.norm if output_norm is None else output_norm
    check_vector_norm(from_norm, argument="input_norm")
    check_vector_norm(to_norm, argument="output_norm")
    if radius is not None:
        radius = check_radius(radius)
    bounds = bounds_of(
        examination.bounded, input_norm=from_norm, output_norm=to_norm, radius=radius
    )
    declared, certified = bounds.declared_propagation, bounds.certified_propagation

    generator = torch.Generator("cpu").manual_seed(seed)
    starting_points = search_points(
        network,
        examination.tree,
        norm=from_norm,
        radius=radius,
        points=points,
        starts=starts,
        generator=generator,
    )
    at = steeper_points(
        network,
        starting_points,
        input_norm=from_norm,
        output_norm=to_norm,
        radius=radius,
        iterations=iterations,
        generator=generator,
    )
    empirical = largest_slope(
        network,
        at,
        input_norm=from_norm,
        output_norm=to_norm,
        iterations=iterations,
        generator=generator,
    )
    spaces = {each.leaf.path: (each.source, each.target) for each in certified.passages}
    slopes = slopes_of_leaves(
        examination.tree, spaces, starting_points, iterations=iterations, generator=generator
    )
    rounding = None
    if radius is not None:
        after = conversion(target.norm, to_norm, target.size)
        error = forward_error(
            examination.bounded, source, bounds.arriving, Leaf.certified_within, examination.dtype
        )
        rounding = 2 * after * rounding_factor(certified) * error
    pairs = zip(declared.passages, certified.passages, strict=True)
    return LipschitzReport(
        input_norm=from_norm,
        output_norm=to_norm,
        declared=bounds.declared,
        certified=bounds.certified,
        empirical=empirical,
        rows=tuple(_row(one, other, slopes, radius, examination.dtype) for one, other in pairs),
        radius=radius,
        rounding=rounding,
        merged=certified.merged,
        searched=len(starting_points) if iterations else 0,
    )


def _row(
    declared: Passage,
    certified: Passage,
    slopes: dict[str, float],
    radius: float | None,
    dtype: torch.dtype,
) -> LipschitzRow:
    leaf = declared.leaf
    return LipschitzRow(
        leaf.path,
        leaf.label,
        declared.slope,
        certified.slope,
        slopes.get(leaf.path),
        remedy_for(declared, certified, radius),
        None if radius is None else leaf.rounding_within(certified.radii, dtype),
    )
