"""The start: fresh weights go onto their manifolds, or manifolds go through the weights as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn

from modular_manifolds.adapt.fresh import is_fresh
from modular_manifolds.adapt.nearest import largest_rounded_up, nearest
from modular_manifolds.adapt.row import Row
from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.linalg.rounding import singular_values
from modular_manifolds.manifolds.base import Manifold
from modular_manifolds.manifolds.spectral_ball import SpectralBall
from modular_manifolds.manifolds.spectral_sphere import SpectralSphere
from modular_manifolds.manifolds.sphere import Sphere
from modular_manifolds.manifolds.stiefel import Stiefel
from modular_manifolds.nn.geometry import Geometry
from modular_manifolds.nn.piece import Piece

ON_MANIFOLD: Final = 1e-5
"""The largest residual of a weight that counts as a point of its manifold."""


def check_finite(rows: Sequence[Row], parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        NonFiniteError: the message names the first one.
    """
    for name in dict.fromkeys(row.parameter for row in rows):
        weight = parameters[name].detach()
        # One pass: a sum of finite numbers is hardly ever out of range, and a sum with NaN or infinity never in it.
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
    """Move every fresh weight onto its manifold; a row says how far its weight moved, relative to its size.

    A weight on its manifold keeps its bits. A zero matrix gets a random point. Nothing is written before every weight has
    been looked at.

    Raises:
        ArgumentError: a weight looks trained, and `force` is false.
    """
    away: list[Row] = []
    for row in rows:
        if row.geometry.manifold.compact:
            value = row.read(parameters[row.parameter])
            if not _is_on(row.geometry.manifold, value):
                away.append(row)
    if not force:
        _refuse_trained(away, parameters)
    moved: dict[str, float] = {}
    generator = torch.Generator().manual_seed(seed)
    for row in away:
        parameter = parameters[row.parameter]
        value = row.read(parameter)
        point = _start_point(row.geometry.manifold, value, generator)
        size = float(value.float().norm())
        moved[row.name] = float((point - value).float().norm()) / size if size else math.inf
        row.write_(parameter, point)
    return tuple(replace(row, moved=moved.get(row.name)) for row in rows)


def _start_point(manifold: Manifold, value: Tensor, generator: torch.Generator) -> Tensor:
    """The nearest point of each matrix; a random one for a matrix of equal entries, which says nothing."""
    matrices = value.reshape(-1, *value.shape[-2:]) if value.dim() > 1 else value[None]
    if not bool((matrices[..., 0, :1] == matrices[..., -1, -1:]).any()):
        # The corners differ, and to look at them costs nothing.
        return nearest(manifold, value)
    flat = matrices.flatten(1)
    empty = (flat.amax(dim=1) == flat.amin(dim=1)) & (flat.shape[1] > 1)
    if not bool(empty.any()):
        return nearest(manifold, value)
    shape = tuple(value.shape)
    random = manifold.random(shape, generator=generator, dtype=value.dtype).to(value.device)
    mixed = torch.where(
        empty.reshape(-1, *[1] * (matrices.dim() - 1)), random.reshape(matrices.shape), matrices
    )
    return nearest(manifold, mixed.reshape(shape))


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
        "projects fresh weights only, because it would destroy what trained ones have learned",
        f"{len(trained)} weights that look trained; the worst, '{row.name}', would move by {distance:.3g} of its size",
        "Pass start='keep' for manifolds that go through the weights, or force=True.",
    )


def _is_on(manifold: Manifold, value: Tensor) -> bool:
    if type(manifold) is Stiefel and value.dim() > 1:
        # Every point has this length; to see it costs one pass instead of a product.
        length = float(value.norm()) / manifold.radius
        rank = value.numel() / max(value.shape[-2:])
        if abs(length**2 / rank - 1) > 10 * ON_MANIFOLD:
            return False
    return bool((manifold.residual(value) <= ON_MANIFOLD).all())


def keep(
    rows: Sequence[Row],
    parameters: Mapping[str, nn.Parameter],
    *,
    given: Sequence[Manifold | None],
) -> tuple[Row, ...]:
    """Let the manifolds go through the weights as they are; no bit of a weight changes.

    Args:
        rows: the rows as the rules give them.
        parameters: the weights.
        given: for each row the manifold that its rule names; None for the default, which becomes a `SpectralBall` of today's
            `σ_max`.

    Raises:
        ArgumentError: a weight is not on the manifold that its rule names.
    """
    found: list[Row] = []
    for row, manifold in zip(rows, given, strict=True):
        found += _kept(row, manifold, row.read(parameters[row.parameter]))
    return tuple(found)


def _kept(row: Row, given: Manifold | None, value: Tensor) -> list[Row]:
    manifold = row.geometry.manifold
    if not manifold.compact:
        return [row]
    if given is None:
        # A weight of zeros gets the ball of the default size.
        ball = SpectralBall(largest_rounded_up(value) or row.radius or 1.0)
        return [replace(row, geometry=Geometry(ball, row.geometry.norm))]
    if isinstance(given, SpectralBall | SpectralSphere | Sphere) and given.radius == 1.0:
        if not isinstance(given, SpectralBall) and value.dim() > 2:
            pieces = _each(row.piece, value.shape)
            return [
                _through(replace(row, piece=piece, shape=tuple(value.shape[-2:])), given, matrix)
                for piece, matrix in zip(pieces, value.flatten(0, -3), strict=True)
            ]
        return [_through(row, given, value)]
    if not _is_on(manifold, value):
        raise ArgumentError(
            f"{row.rule} for '{row.name}': {manifold}",
            "must hold the weight as it is, because start='keep' changes no bit",
            f"a residual of {float(manifold.residual(value).amax()):.3g}",
            "Use SpectralBall(), SpectralSphere(), Sphere() or Euclidean(), or start='project'.",
        )
    return [row]


def _through(row: Row, given: Manifold, value: Tensor) -> Row:
    """The row with a manifold of this class whose radius is that of the weight."""
    if isinstance(given, Sphere):
        size = float(value.double().norm())
    elif isinstance(given, SpectralBall):
        size = largest_rounded_up(value)
    else:
        size = float(singular_values(value).amax())
    if not size:
        raise ArgumentError(
            f"{row.rule} for '{row.name}': {given}",
            "must go through the weight as it is",
            "a weight of zeros",
            "Use Euclidean(), or start='project'.",
        )
    return replace(row, geometry=Geometry(replace(given, radius=size), row.geometry.norm))


def _each(piece: Piece | None, shape: Sequence[int]) -> list[Piece]:
    """Every matrix of a stack as a piece of its own."""
    n = len(shape)
    whole = piece or Piece("", tuple(shape), (), tuple(range(n - 2)), (n - 2,), (n - 1,))
    cut = {dim: (start, length) for dim, start, length in whole.narrowed}
    found = [whole]
    for dim in whole.batch:
        start, length = cut.get(dim, (0, whole.unflattened[dim]))
        found = [
            replace(
                each,
                name=f"{each.name}.{i}" if each.name else str(i),
                narrowed=(*(c for c in each.narrowed if c[0] != dim), (dim, start + i, 1)),
                batch=tuple(d for d in each.batch if d != dim),
                rows=(dim, *each.rows),
            )
            for each in found
            for i in range(length)
        ]
    return found
