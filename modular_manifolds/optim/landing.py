"""The end of a step without host reads: new points and duals go into the weights and their state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import land_by_kernels_
from modular_manifolds.optim import foreach
from modular_manifolds.optim.bucket import Bucket
from modular_manifolds.optim.descent import Group, States, state_entries
from modular_manifolds.optim.exchange import Exchange


def write_(
    bucket: Bucket,
    state: States,
    landed: Tensor,
    start: Tensor,
    moving: Tensor,
    *,
    by_kernels: bool,
) -> None:
    """Write to the weights and their master copies: the landing points of moving units, the start of the others."""
    masters = state_entries(bucket, state, "master")
    if by_kernels and len(masters) in (0, len(bucket.weights)):
        if bucket.shares.dim() == 2:
            landed, start, moving = landed.unsqueeze(0), start.unsqueeze(0), moving.unsqueeze(0)
        land_by_kernels_(bucket.parameters, masters, landed, start, moving, turned=bucket.turned)
        return
    _copy_points_(bucket, masters, bucket.unstack(torch.where(moving, landed, start)))


def _copy_points_(bucket: Bucket, masters: Sequence[Tensor], points: list[Tensor]) -> None:
    if masters:
        foreach.copy_(masters, points)
    targets = [each.target() for each in bucket.weights]
    if any(each.piece is not None for each in bucket.weights):
        # A view that cuts several stored dimensions has more dimensions than the logical shape.
        points = [
            x if x.shape == to.shape else x.reshape(to.shape)
            for x, to in zip(points, targets, strict=True)
        ]
    foreach.copy_(targets, points)


def receive_(bucket: Bucket, group: Group, state: States, ok: Tensor, exchange: Exchange) -> None:
    """Write the points and the duals that their owners have sent."""
    points = [exchange.point(each) for each in bucket.weights]
    _copy_points_(bucket, state_entries(bucket, state, "master"), points)
    received = [exchange.dual(each) for each in bucket.weights]
    duals = [each for each in received if each is not None]
    if duals:
        foreach.copy_(state_entries(bucket, state, "dual"), duals)
    if group["tangent_momentum"]:
        project_momenta_(bucket, state, bucket.stack(points), ok)


def project_momenta_(bucket: Bucket, state: States, landed: Tensor, ok: Tensor) -> None:
    """Replace the momenta by their tangent parts at the new points, unless the step is cancelled."""
    momenta = state_entries(bucket, state, "momentum")
    if momenta:
        before = bucket.stack(momenta)
        tangent = bucket.geometry.manifold.tangent(landed, before)
        foreach.copy_(momenta, bucket.unstack(torch.where(ok, tangent, before)))
