"""The Lipschitz bound of a ReLU network near one point, below the one that holds everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from torch import Tensor

from modular_manifolds.certificates.bounds import bounds_of, check_radius
from modular_manifolds.certificates.examined import examined
from modular_manifolds.certificates.inputs import as_vectors
from modular_manifolds.certificates.relu_chain import chain_of, near
from modular_manifolds.certificates.semidefinite import checked_bound, multipliers
from modular_manifolds.composition.tree import Tree
from modular_manifolds.errors import ArgumentError, ShapeError
from modular_manifolds.nn.composed import Composed
from modular_manifolds.tables import Printable, Table

MOST_UNITS: Final = 256
"""The semidefinite program grows with the square of the units; its solvers with a higher power."""


class LocalStatus(Enum):
    """The origin of a local bound. The value is the sentence a user needs."""

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

    `certified` is the bound for all inputs, from l2 to l2, and `by_norms` that of the units that can be on:
    `bound` is no larger than either. `undecided` of the `units` may change their sign.
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

    Units whose sign is fixed in the ball, by intervals from certified norms, are linear there. For the
    others a semidefinite program finds multipliers; what they prove is checked in float64 with all
    rounding counted, so the solver need not be trusted. For exact arithmetic, as `mm.lipschitz`.

    Args:
        net: a series of mm.Linear and mm.ReLU with at most 256 units.
        point: the centre, one input in a shape that the network takes.
        radius: the l2 radius of the ball.

    Raises:
        SpaceError: `net` is not such a chain.
        ArgumentError: `radius` is not finite and positive, there are too many units, a weight is
            complex, or cvxpy is needed and cannot be imported.
        ShapeError: `point` is not one input.
        NonFiniteError: `point` or a weight holds NaN or infinity.

    Source: M. Fazlyab et al., "Efficient and accurate estimation of Lipschitz constants for deep neural
    networks" (2019).
    """
    with examined(net, argument="local_lipschitz(net)") as seen:
        return _report(seen.tree, point, radius)


def _report(tree: Tree, point: Any, radius: float) -> LocalLipschitzReport:
    everywhere = bounds_of(tree, input_norm="l2", output_norm="l2").certified
    layers = chain_of(tree)
    radius = check_radius(radius)
    units = sum(len(layer.weight) for layer in layers if layer.relu)
    if units > MOST_UNITS:
        raise ArgumentError(
            "local_lipschitz(net)",
            f"must have at most {MOST_UNITS} units",
            units,
            "Take a smaller network, or mm.lipschitz.",
        )
    region = near(layers, _checked(tree, point), radius)
    bound, status = region.slope, LocalStatus.LINEAR
    if region.undecided and region.slope > 0:
        bound, status = region.slope, LocalStatus.BY_NORMS
        found = multipliers(region) if region.in_range else None
        proved = region.slope if found is None else checked_bound(region, found[0])
        if found is not None and proved < bound:
            bound = proved
            status = LocalStatus.SOLVED if found[1] else LocalStatus.INACCURATE
    return LocalLipschitzReport(
        bound=min(bound, everywhere),
        certified=everywhere,
        by_norms=min(region.slope, everywhere),
        radius=radius,
        units=region.units,
        undecided=region.undecided,
        status=status,
    )


def _checked(tree: Tree, point: Any) -> Tensor:
    vectors = as_vectors(point, tree, argument="local_lipschitz(point)")
    if len(vectors) != 1:
        raise ShapeError(
            "local_lipschitz(point)",
            f"must be of shape ({vectors.shape[-1]},), as the network takes, or a batch of one",
            f"{len(vectors)} points",
            "Pass one point.",
        )
    return vectors[0]
