"""The conditioning of each weight: singular values, condition number, distance from the manifold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from modular_manifolds.linalg.rounding import singular_values
from modular_manifolds.linalg.snapshot import device_of, plain_surroundings, snapshot
from modular_manifolds.nn import Geometry, Weighted
from modular_manifolds.nn.composed import Adapted
from modular_manifolds.nn.network import check_network, check_values
from modular_manifolds.tables import Printable, Table


@dataclass(frozen=True)
class ConditioningRow:
    """One weight: `largest` and `smallest` singular value, their ratio, and the manifold's residual.

    A `vector`, such as a bias, has one singular value, its length.
    """

    path: str
    manifold: str
    largest: float
    smallest: float
    residual: float
    vector: bool = False

    @property
    def condition(self) -> float | None:
        """`largest / smallest`; infinite for a rank-deficient weight, None for a vector."""
        if self.vector:
            return None
        return self.largest / self.smallest if self.smallest > 0 else math.inf


@dataclass(frozen=True)
class ConditioningReport(Printable):
    """One row for each weight, measured in float64; `print` it to read it."""

    rows: tuple[ConditioningRow, ...]

    def header(self) -> list[str]:
        """The names of the columns of `cells`."""
        return ["weight", "manifold", "largest σ", "smallest σ", "condition", "off manifold"]

    def cells(self) -> list[list[float | str | None]]:
        """The rows as texts and numbers, for a table; a vector has None as its condition number."""
        return [
            [r.path, r.manifold, r.largest, r.smallest, r.condition, r.residual] for r in self.rows
        ]

    def printed(self) -> list[Table | str]:
        """The table."""
        return [Table(self.header(), self.cells())]


def conditioning(net: Weighted) -> ConditioningReport:
    """Measure every current weight of `net`, or every logical matrix of an adapted model, in float64.

    The row of a stack has the extreme singular values and the largest residual of all its matrices. A weight that
    `torch.nn.utils` computes, as by pruning or a parametrization, has the value of the forward pass in evaluation mode.

    Raises:
        ArgumentError: `net` is not `Weighted`, or a weight is complex or has no values yet.
        NonFiniteError: a weight holds NaN or infinity.
    """
    network = check_network(net, argument="conditioning(net)")
    check_values(network, argument="conditioning(net)")
    if not isinstance(network, nn.Module):
        return _report(_logical_weights(network), dict(network.geometries()))
    with plain_surroundings(device_of(network)):
        # The copy stores computed weights as parameters.
        parameters = dict(snapshot(network).named_parameters())
        return _report(parameters, dict(network.geometries()))


def _logical_weights(network: Weighted) -> dict[str, Tensor]:
    """The weights by the paths of their geometries, including pieces of stored tensors."""
    weights: dict[str, Tensor] = {
        path: parameter.detach() for path, parameter in network.named_parameters()
    }
    if isinstance(network, Adapted):
        stored = dict(weights)
        for path, (name, piece) in network.pieces().items():
            matrix = piece.read(stored[name])
            # A vector of several dimensions is one column.
            weights[path] = matrix if piece.columns else matrix.squeeze(-1)
    return weights


def _report(
    parameters: Mapping[str, Tensor], geometries: Mapping[str, Geometry]
) -> ConditioningReport:
    rows: list[ConditioningRow] = []
    for path, geometry in geometries.items():
        weight = parameters[path].detach()
        values = singular_values(weight)
        residual = float(geometry.manifold.residual(weight.double()).amax())
        rows.append(
            ConditioningRow(
                path,
                str(geometry.manifold),
                float(values.amax()),
                float(values.amin()),
                # NaN means that squares leave the range of float64: the distance is large.
                math.inf if math.isnan(residual) else residual,
                vector=weight.dim() == 1,
            )
        )
    return ConditioningReport(tuple(rows))
