"""Local Lipschitz bounds: the bound of a ReLU network in a ball around one point."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from torch import Tensor

from modular_manifolds.certificates.bounds import bounds_of, check_radius
from modular_manifolds.certificates.examination import examine
from modular_manifolds.certificates.inputs import as_vectors
from modular_manifolds.certificates.relu_chain import chain_of, region_around
from modular_manifolds.certificates.semidefinite import checked_bound, multipliers
from modular_manifolds.composition.tree import Tree
from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.nn.composed import Composed
from modular_manifolds.tables import Printable, Table

MAX_UNITS: Final = 256
"""The size of the semidefinite program grows quadratically with the units, and the solving time faster."""


class LocalStatus(Enum):
    """The origin of a local bound. The value explains it to the user."""

    LINEAR = "No unit that counts changes its sign within the radius: the network is linear there."
    SOLVED = "The semidefinite program was solved, and its certificate checked in float64."
    INACCURATE = (
        "The solver stopped before its tolerance; what it had was checked in float64, and holds. A smaller "
        "radius leaves fewer units undecided."
    )
    BY_NORMS = (
        "The solver gave nothing that passed the check: the bound is the product of the norms over "
        "the units that can be on. A smaller radius leaves fewer units undecided."
    )

    def __str__(self) -> str:
        return f"{self.name}: {self.value}"


@dataclass(frozen=True)
class LocalLipschitzReport(Printable):
    """`‖f(x) − f(y)‖₂ ≤ bound · ‖x − y‖₂` for all x, y within the l2 distance `radius` of the point; `print` it.

    `certified` is the bound for all inputs, from l2 to l2. `by_norms` is the product of norms over the units that can be on.
    `bound` is at most either of them. `undecided` of the `units` may change their sign.
    """

    bound: float
    certified: float
    by_norms: float
    radius: float
    units: int
    undecided: int
    status: LocalStatus

    def printed(self) -> list[Table | str]:
        """The bounds, and their origin."""
        return [
            f"within {self.radius:g} of the point, from l2 to l2: {self.bound:.6g}; by norms alone "
            f"{self.by_norms:.6g}, for all inputs {self.certified:.6g}",
            f"{self.undecided} of {self.units} units undecided; {self.status}",
        ]


def local_lipschitz(net: Composed, point: Any, *, radius: float) -> LocalLipschitzReport:
    """Bound the slope of a chain of Linear and ReLU from l2 to l2 in the ball around a point.

    Intervals from certified norms show which units have a fixed sign in the ball; these are linear there. For the other
    units a semidefinite program finds multipliers. The bound that they prove is checked in float64 including all rounding,
    so the solver is not trusted. As in `mm.lipschitz`, the bound is for exact arithmetic.

    Args:
        net: a series of mm.Linear and mm.ReLU with at most 256 units.
        point: the centre, one input in a shape that the network takes.
        radius: the l2 radius of the ball.

    Raises:
        SpaceError: `net` is not such a chain.
        ArgumentError: `radius` is not finite and positive, there are too many units, a weight is complex, or cvxpy is
            needed but cannot be imported.
        ShapeError: `point` is not one input.
        NonFiniteError: `point` or a weight holds NaN or infinity.

    Source: M. Fazlyab et al., "Efficient and accurate estimation of Lipschitz constants for deep neural
    networks" (2019).
    """
    with examine(net, argument="local_lipschitz(net)") as seen:
        return _report(seen.tree, point, radius)


def _report(tree: Tree, point: Any, radius: float) -> LocalLipschitzReport:
    global_bound = bounds_of(tree, input_norm="l2", output_norm="l2").certified
    layers = chain_of(tree)
    radius = check_radius(radius)
    units = sum(len(layer.weight) for layer in layers if layer.relu)
    if units > MAX_UNITS:
        raise ArgumentError(
            "local_lipschitz(net)",
            f"must have at most {MAX_UNITS} units",
            units,
            "Take a smaller network, or mm.lipschitz.",
        )
    region = region_around(layers, _single_point(tree, point), radius)
    bound, status = region.slope, LocalStatus.LINEAR
    if region.undecided and region.slope > 0:
        bound, status = region.slope, LocalStatus.BY_NORMS
        solution = multipliers(region) if region.in_range else None
        checked = region.slope if solution is None else checked_bound(region, solution[0])
        if solution is not None and checked < bound:
            bound = checked
            status = LocalStatus.SOLVED if solution[1] else LocalStatus.INACCURATE
    return LocalLipschitzReport(
        bound=min(bound, global_bound),
        certified=global_bound,
        by_norms=min(region.slope, global_bound),
        radius=radius,
        units=region.units,
        undecided=region.undecided,
        status=status,
    )


def _single_point(tree: Tree, point: Any) -> Tensor:
    vectors = as_vectors(point, tree, argument="local_lipschitz(point)")
    if len(vectors) != 1:
        raise ShapeError(
            "local_lipschitz(point)",
            f"must be of shape ({vectors.shape[-1]},), as the network takes, or a batch of one",
            f"{len(vectors)} points",
            "Pass one point.",
        )
    return vectors[0]
