"""The start: move fresh weights onto their manifolds, or choose manifolds that contain the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn

from modular_manifolds.adaptation.fresh import is_fresh
from modular_manifolds.adaptation.nearest import largest_singular_value_bound, nearest
from modular_manifolds.adaptation.row import Row
from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.linalg.rounding import singular_values
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.fixed_gram import FixedGram
from modular_manifolds.manifolds.spectral_ball import SpectralBall
from modular_manifolds.manifolds.spectral_sphere import SpectralSphere
from modular_manifolds.manifolds.sphere import Sphere
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece
from modular_manifolds.nn.sharded import whole

MAX_RESIDUAL_RELATIVE: Final = 1e-5
"""A weight with at most this residual, relative to the radius, is on its manifold."""


def check_finite(rows: Sequence[Row], parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        NonFiniteError: the message names the first one.
    """
    for name in dict.fromkeys(row.parameter for row in rows):
        weight = whole(parameters[name].detach())
        # One pass over the memory: NaN and infinity survive a sum.
        if bool(torch.isfinite(weight.sum(dtype=torch.float64))):
            continue
        finite = torch.isfinite(weight)
        if not bool(finite.all()):
            raise NonFiniteError(
                f"the weight '{name}'",
                "must be finite",
                f"{int((~finite).sum())} of {finite.numel()} entries NaN or infinite",
                "Load an earlier checkpoint, or initialise it again.",
            )


@torch.no_grad()
def project_(
    rows: Sequence[Row], parameters: Mapping[str, nn.Parameter], *, seed: int, force: bool
) -> tuple[Row, ...]:
    """Move every fresh weight onto its manifold; return the rows with the relative distances.

    A weight on its manifold does not change. A zero matrix becomes a random point. All weights are checked before the
    first is changed.

    Raises:
        ArgumentError: a weight looks trained, and `force` is false.
    """
    off_manifold: list[Row] = []
    for row in rows:
        if row.geometry.manifold.compact:
            value = row.read(parameters[row.parameter])
            if not _is_on(row.geometry.manifold, value):
                off_manifold.append(row)
    if not force:
        _refuse_trained(off_manifold, parameters)
    moved: dict[str, float] = {}
    generator = torch.Generator().manual_seed(seed)
    for row in off_manifold:
        parameter = parameters[row.parameter]
        value = row.read(parameter)
        point = _start_point(row.geometry.manifold, value, generator)
        size = float(value.float().norm())
        moved[row.name] = float((point - value).float().norm()) / size if size else math.inf
        row.write_(parameter, point)
    return tuple(replace(row, moved=moved.get(row.name)) for row in rows)


def _start_point(manifold: Manifold, value: Tensor, generator: torch.Generator) -> Tensor:
    """The nearest point of each matrix; a random point for a constant matrix."""
    matrices = value.reshape(-1, *value.shape[-2:]) if value.dim() > 1 else value[None]
    if not bool((matrices[..., 0, :1] == matrices[..., -1, -1:]).any()):
        # A cheap test: matrices with different corners are not constant.
        return nearest(manifold, value)
    flat = matrices.flatten(1)
    constant = (flat.amax(dim=1) == flat.amin(dim=1)) & (flat.shape[1] > 1)
    if not bool(constant.any()):
        return nearest(manifold, value)
    shape = tuple(value.shape)
    random = manifold.random(shape, generator=generator, dtype=value.dtype).to(value.device)
    filled = torch.where(
        constant.reshape(-1, *[1] * (matrices.dim() - 1)), random.reshape(matrices.shape), matrices
    )
    return nearest(manifold, filled.reshape(shape))


def _refuse_trained(rows: Sequence[Row], parameters: Mapping[str, nn.Parameter]) -> None:
    trained: list[tuple[float, Row]] = []
    for row in rows:
        value = row.read(parameters[row.parameter])
        if value.dim() < 2 or is_fresh(value):
            continue
        point = nearest(row.geometry.manifold, value)
        trained.append((float((point - value).norm() / value.norm()), row))
    if not trained:
        return
    distance, row = max(trained, key=lambda each: each[0])
    raise ArgumentError(
        "adapt(start)",
        "projects fresh weights only, because a projection would destroy trained ones",
        f"{len(trained)} weights that look trained; the worst, '{row.name}', would move by {distance:.3g} of its size",
        "Pass start='keep' for manifolds that contain the weights, or force=True.",
    )


def _is_on(manifold: Manifold, value: Tensor) -> bool:
    if type(manifold) is Stiefel and value.dim() > 1:
        # A cheap test: all points have the same Frobenius norm.
        length = float(value.norm()) / manifold.radius
        rank = value.numel() / max(value.shape[-2:])
        if abs(length**2 / rank - 1) > 10 * MAX_RESIDUAL_RELATIVE:
            return False
    return bool((manifold.residual(value) <= MAX_RESIDUAL_RELATIVE).all())


def fit_manifolds(
    rows: Sequence[Row],
    parameters: Mapping[str, nn.Parameter],
    *,
    rule_manifolds: Sequence[Manifold | None],
) -> tuple[Row, ...]:
    """Choose manifolds that contain the weights, which do not change.

    Args:
        rows: the rows of the assignment.
        parameters: the weights by name.
        rule_manifolds: for each row the manifold of its rule; None for the default, which becomes a `SpectralBall` of radius
            `σ_max`.

    Raises:
        ArgumentError: a weight is not on the manifold of its rule.
    """
    fitted: list[Row] = []
    for row, manifold in zip(rows, rule_manifolds, strict=True):
        fitted += _fit_manifold(row, manifold, row.read(parameters[row.parameter]))
    return tuple(fitted)


def _fit_manifold(row: Row, rule_manifold: Manifold | None, value: Tensor) -> list[Row]:
    manifold = row.geometry.manifold
    if not manifold.compact:
        return [row]
    if rule_manifold is None:
        # A zero weight gets a ball of the default radius.
        ball = SpectralBall(largest_singular_value_bound(value) or row.radius or 1.0)
        return [replace(row, geometry=Geometry(ball, row.geometry.norm))]
    if (
        isinstance(rule_manifold, FixedGram | SpectralBall | SpectralSphere | Sphere)
        and rule_manifold.radius == 1.0
    ):
        if not isinstance(rule_manifold, FixedGram | SpectralBall) and value.dim() > 2:
            pieces = _single_pieces(row.piece, value.shape)
            return [
                _with_weight_radius(
                    replace(row, piece=piece, shape=tuple(value.shape[-2:])), rule_manifold, matrix
                )
                for piece, matrix in zip(pieces, value.flatten(0, -3), strict=True)
            ]
        return [_with_weight_radius(row, rule_manifold, value)]
    if not _is_on(manifold, value):
        raise ArgumentError(
            f"{row.rule} for '{row.name}': {manifold}",
            "must contain the weight, because start='keep' does not change it",
            f"a residual of {float(manifold.residual(value).amax()):.3g}",
            "Use FixedGram(), SpectralBall(), SpectralSphere(), Sphere() or Euclidean(), or start='project'.",
        )
    return [row]


def _with_weight_radius(row: Row, rule_manifold: Manifold, value: Tensor) -> Row:
    """The row with a manifold of this class, with the radius of the weight."""
    if isinstance(rule_manifold, Sphere):
        size = float(value.double().norm())
    elif isinstance(rule_manifold, FixedGram | SpectralBall):
        size = largest_singular_value_bound(value)
    else:
        size = float(singular_values(value).amax())
    if not size:
        raise ArgumentError(
            f"{row.rule} for '{row.name}': {rule_manifold}",
            "must contain the weight",
            "a zero weight",
            "Use Euclidean(), or start='project'.",
        )
    return replace(row, geometry=Geometry(replace(rule_manifold, radius=size), row.geometry.norm))


def _single_pieces(piece: Piece | None, shape: Sequence[int]) -> list[Piece]:
    """One piece for each matrix of a stack."""
    n = len(shape)
    whole = piece or Piece("", tuple(shape), (), tuple(range(n - 2)), (n - 2,), (n - 1,))
    ranges = {dim: (start, length) for dim, start, length in whole.narrowed}
    pieces = [whole]
    for dim in whole.batch:
        start, length = ranges.get(dim, (0, whole.unflattened[dim]))
        pieces = [
            replace(
                each,
                name=f"{each.name}.{i}" if each.name else str(i),
                narrowed=(*(c for c in each.narrowed if c[0] != dim), (dim, start + i, 1)),
                batch=tuple(d for d in each.batch if d != dim),
                rows=(dim, *each.rows),
            )
            for each in pieces
            for i in range(length)
        ]
    return pieces
