"""Lipschitz bounds of a network: what the manifolds promise, what today's weights prove, what was found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from modular_manifolds.arguments import check_count
from modular_manifolds.certificates.advice import Culprit, remedy_for, sentences
from modular_manifolds.certificates.ascent import steeper_points
from modular_manifolds.certificates.bounds import (
    bounds_of,
    check_radius,
    one_space_to_another,
    rounding_up,
)
from modular_manifolds.certificates.empirical import (
    largest_slope,
    points_to_try,
    slopes_of_leaves,
)
from modular_manifolds.certificates.examined import Examined, examined
from modular_manifolds.certificates.forward_error import forward_error
from modular_manifolds.certificates.propagation import Passage
from modular_manifolds.composition.leaf import Leaf
from modular_manifolds.composition.space import VectorNorm, check_vector_norm, conversion
from modular_manifolds.nn.composed import Composed
from modular_manifolds.tables import Printable, Table


@dataclass(frozen=True)
class LipschitzRow:
    """One atom or bond, in the norms of its own spaces.

    `declared`, `certified` and `empirical` are as in the report, the last at what arrives at the module
    from the points that are searched; None if it takes or gives tuples, which are not searched.
    `remedy` says what to do if there is no finite bound. `rounding` bounds how far the module alone, as
    torch computes it, is from the exact one for what arrives there; None without a radius.
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
    """Three numbers for `‖f(x) − f(y)‖_output ≤ L ‖x − y‖_input`, and a row a module; `print` it.

    `declared` holds at every point of the product manifold; infinite if a manifold is unbounded.
    `certified` holds for the weights as they are now, in exact arithmetic.
    `empirical` is the largest slope found: no true bound lies below it. It is 0 if no slope was found at the `searched`
    points, or if nothing was searched; `advice` says which.
    `rounding` closes the gap to the network f̂ that torch computes in its weights' dtype:
    `‖f̂(x) − f̂(y)‖ ≤ certified · ‖x − y‖ + rounding` for inputs of norm at most `radius`. It grows with
    the radius, so it is None if none was given; infinite if a module does not bound its rounding.
    `merged` names the modules that were multiplied out to one matrix, a tuple a matrix: there the
    certified bound is below the product of the rows.
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
        """The rows as text and numbers, for a table; a dash if nothing was searched."""
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
        """A sentence for every reason why a bound is infinite, and one if no slope was found."""
        lines = sentences(
            Culprit(row.path, row.label, row.remedy, math.isfinite(row.certified))
            for row in self.rows
        )
        if not self.empirical > 0 and self.certified > 0:
            lines.append(
                f"no slope was found at {self.searched} points, so nothing is known of the tightness: the network is "
                "constant near them, or its numbers leave the range of float64; pass other points="
                if self.searched
                else "no slope was looked for, so nothing is known of the tightness; pass points, and "
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

    The bound of a series is the product of the bounds of its parts, of a parallel or a sum their sum,
    of a scale |c| times; norms are converted at the two ends only. Certified: each weight's operator
    norm through `σ_max` in float64, rounded up; linear maps with nothing nonlinear between them, in
    series or in a sum, are multiplied out first if that gives less. It is no larger than the declared
    bound only if the weights are on their manifolds.

    The bounds are those of the network in the mode it is in, with the values that its forward pass uses: call
    `net.eval()` for those without dropout. Slopes are looked for in evaluation mode. The report works on a copy in float64
    without hooks, and is the same in every mode and precision that torch may be in.

    Args:
        net: a network from one space to another (not from or to a tuple).
        input_norm: l2, rms, l1 or linf; the network's own by default.
        output_norm: l2, rms, l1 or linf; the network's own by default.
        radius: the largest `input_norm` of an input; the bounds then hold for such inputs, modules whose
            bound depends on the size of their input are taken at what arrives there, and the report has
            its `rounding`. Without it the bounds hold for all inputs.
        points: inputs at which slopes are looked for, in any shape that the network takes; random ones by default.
        starts: effort and seed of the search for the largest slope.
        iterations: effort and seed of the search for the largest slope.
        seed: effort and seed of the search for the largest slope.

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
    with examined(net, argument="lipschitz(net)") as seen:
        return _report(
            seen,
            input_norm=input_norm,
            output_norm=output_norm,
            radius=radius,
            points=points,
            starts=starts,
            iterations=iterations,
            seed=seed,
        )


def _report(
    seen: Examined,
    *,
    input_norm: VectorNorm | None,
    output_norm: VectorNorm | None,
    radius: float | None,
    points: Any,
    starts: int,
    iterations: int,
    seed: int,
) -> LipschitzReport:
    network = seen.network
    source, target = one_space_to_another(seen.tree, "lipschitz(net)")
    given = source.norm if input_norm is None else input_norm
    wanted = target.norm if output_norm is None else output_norm
    check_vector_norm(given, argument="input_norm")
    check_vector_norm(wanted, argument="output_norm")
    if radius is not None:
        radius = check_radius(radius)
    known = bounds_of(seen.bounded, input_norm=given, output_norm=wanted, radius=radius)
    promised, proved = known.promised, known.proved

    generator = torch.Generator("cpu").manual_seed(seed)
    asked = points_to_try(
        network,
        seen.tree,
        norm=given,
        radius=radius,
        points=points,
        starts=starts,
        generator=generator,
    )
    at = steeper_points(
        network,
        asked,
        input_norm=given,
        output_norm=wanted,
        radius=radius,
        iterations=iterations,
        generator=generator,
    )
    empirical = largest_slope(
        network,
        at,
        input_norm=given,
        output_norm=wanted,
        iterations=iterations,
        generator=generator,
    )
    spaces = {each.leaf.path: (each.source, each.target) for each in proved.passages}
    found = slopes_of_leaves(seen.tree, spaces, asked, iterations=iterations, generator=generator)
    rounding = None
    if radius is not None:
        after = conversion(target.norm, wanted, target.size)
        error = forward_error(
            seen.bounded, source, known.arriving, Leaf.certified_within, seen.dtype
        )
        rounding = 2 * after * rounding_up(proved) * error
    pairs = zip(promised.passages, proved.passages, strict=True)
    return LipschitzReport(
        input_norm=given,
        output_norm=wanted,
        declared=known.declared,
        certified=known.certified,
        empirical=empirical,
        rows=tuple(_row(one, other, found, radius, seen.dtype) for one, other in pairs),
        radius=radius,
        rounding=rounding,
        merged=proved.merged,
        searched=len(asked) if iterations else 0,
    )


def _row(
    promised: Passage,
    proved: Passage,
    found: dict[str, float],
    radius: float | None,
    dtype: torch.dtype,
) -> LipschitzRow:
    leaf = promised.leaf
    return LipschitzRow(
        leaf.path,
        leaf.label,
        promised.slope,
        proved.slope,
        found.get(leaf.path),
        remedy_for(promised, proved, radius),
        None if radius is None else leaf.rounding_within(proved.radii, dtype),
    )
