"""A step that reads no number: for weights on an accelerator, for a compiler and for captured graphs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.linalg.matrices import MATRIX
from modular_manifolds.linalg.surroundings import readable
from modular_manifolds.optim import foreach
from modular_manifolds.optim.bucket import Bucket
from modular_manifolds.optim.damping import signal
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.fallback import step_plain
from modular_manifolds.optim.mailbox import Report
from modular_manifolds.optim.step import take_planned
from modular_manifolds.optim.weight import Weight

Group = Mapping[str, Any]
States = Mapping[Tensor, dict[str, Any]]


def step_on_device(
    reports: Sequence[Report], groups: Sequence[Group], state: States, diagnoses: Diagnoses
) -> None:
    """Step every weight, or none if a gradient is not finite or a rate too large: a flag on the device decides.

    A step that is left out writes to no weight and to no state, and is counted in the reports.
    """
    largest = [_largest_entries(report) for report in reports]
    flags = [
        _usable(report, groups, entries) for report, entries in zip(reports, largest, strict=True)
    ]
    agreed = _agreed(flags)
    for report, entries, ok in zip(reports, largest, agreed, strict=True):
        report.left_out.add_(torch.logical_not(ok))
        decays = _decay_momenta_(report.buckets, groups, state, ok)
        reached = (entries > 0) & ok
        counts = [len(bucket.weights) for bucket in report.buckets]
        parts = reached[: sum(counts)].split(counts) if report.plain else reached.split(counts)
        gaps: list[Tensor] = []
        for bucket, part in zip(report.buckets, parts, strict=True):
            gap = _step_bucket(bucket, groups[bucket.group], state, diagnoses, ok, part, decays)
            if bucket.has_deeper_plans:
                gaps.append(gap.amax().to(torch.float32))
        if gaps:
            torch.stack(gaps, out=report.gaps)
    plain = [each for report in reports for each in report.plain]
    if plain:
        devices = [report.device for report in reports]
        step_plain(plain, groups, state, dict(zip(devices, agreed, strict=True)))


def _largest_entries(report: Report) -> Tensor:
    """`max |G_ij|` of each weight's gradient, shape (weights,): finite only if every entry is."""
    gradients = [_gradient(each) for bucket in report.buckets for each in bucket.weights]
    gradients += [each.parameter.grad for each in report.plain if each.parameter.grad is not None]
    double = any(each.dtype is torch.float64 for each in gradients)
    dtype = torch.float64 if double else torch.float32
    return foreach.largest_entries(gradients, dtype)


def _usable(report: Report, groups: Sequence[Group], largest: Tensor) -> Tensor:
    """Whether a step can be taken: every gradient is finite, and every rate within what the plans allow.

    Entries beyond a quarter of what the dtype can hold count as infinite: sums with the momentum may be.
    """
    finite = largest < torch.finfo(largest.dtype).max / 4
    report.nonfinite.add_(torch.logical_not(finite))
    ok = finite.all()
    bounds: dict[int, float] = {}
    for bucket in report.buckets:
        lr = groups[bucket.group]["lr"]
        if isinstance(lr, Tensor) and not readable(lr):
            bound = bucket.largest_rate(lr)
            bounds[bucket.group] = min(bound, bounds.get(bucket.group, bound))
    for index, bound in bounds.items():
        lr = groups[index]["lr"]
        # NaN is equal to nothing.
        allowed = lr.clamp(0.0, bound) == lr
        if allowed.device != ok.device:
            allowed = allowed.to(ok.device, non_blocking=True)
        report.too_long.add_(torch.logical_not(allowed))
        ok = ok & allowed
    return ok


def _agreed(flags: Sequence[Tensor]) -> list[Tensor]:
    """One flag for all devices: no weight moves unless every one may."""
    if len(flags) == 1:
        return list(flags)
    together = flags[0]
    for each in flags[1:]:
        together = together & each.to(together.device, non_blocking=True)
    return [together.to(each.device, non_blocking=True) for each in flags]


def _decay_momenta_(
    buckets: Sequence[Bucket], groups: Sequence[Group], state: States, ok: Tensor
) -> dict[tuple[float, torch.dtype], Tensor]:
    """`B ← μB` for all momenta, or B if the step is left out; give back these factors by μ and dtype."""
    alike: dict[tuple[float, torch.dtype], list[Tensor]] = {}
    for bucket in buckets:
        key = groups[bucket.group]["momentum"], bucket.full
        alike.setdefault(key, []).extend(_held(bucket, state, "momentum"))
    decays: dict[tuple[float, torch.dtype], Tensor] = {}
    for (mu, dtype), momenta in alike.items():
        if momenta:
            factor = torch.full((), mu, dtype=dtype, device=ok.device)
            decays[mu, dtype] = torch.where(ok, factor, 1.0)
            foreach.multiply_(momenta, decays[mu, dtype])
    return decays


def _step_bucket(
    bucket: Bucket,
    group: Group,
    state: States,
    diagnoses: Diagnoses,
    ok: Tensor,
    reached: Tensor,
    decays: Mapping[tuple[float, torch.dtype], Tensor],
) -> Tensor:
    """Step one bucket and give back the gaps. `reached` says for each weight whether its gradient is not zero."""
    # Zero if the step is left out, so that no NaN arrives anywhere.
    gradient = bucket.stack([_gradient(each) for each in bucket.weights])
    gradient = torch.where(ok, gradient.to(bucket.full), 0.0)
    moving = _moving_units(bucket, gradient, reached)
    descent = _descended(bucket, group, state, gradient)
    point = _points(bucket, state)
    length: Tensor = bucket.shares * group["lr"]
    if isinstance(group["lr"], Tensor):
        # A rate that leaves out the step may be NaN.
        length = torch.where(ok, length, 0.0)
    start = point
    if group["weight_decay"]:
        start = point = point * torch.where(ok, 1 - length * group["weight_decay"], 1.0)
    if group["noise_damping"]:
        decay = decays[group["momentum"], bucket.full]
        length = length * _signals(bucket, group, state, gradient, moving, decay)
    duals = _held(bucket, state, "dual")
    dual = bucket.stack(duals, turn=False) if duals else None
    step = take_planned(
        bucket.geometry, bucket.plan, point, descent, length, bucket.longest(group["lr"]), dual
    )
    found = step.solution
    landed = torch.where(moving, step.point, start)
    _write_(bucket, state, landed)
    if found.dual is not None and dual is not None:
        # A matrix at rest keeps its dual. It broadcasts over numbers for whole matrices only.
        changes = moving if bucket.geometry.coupled_dims == MATRIX else ok
        after = torch.where(changes, found.dual.to(dual.dtype), dual)
        foreach.copy_(duals, bucket.unstack(after, turn=False))
    momenta = _held(bucket, state, "momentum")
    if group["tangent_momentum"] and momenta:
        before = bucket.stack(momenta)
        tangent = bucket.geometry.manifold.tangent(landed, before)
        foreach.copy_(momenta, bucket.unstack(torch.where(ok, tangent, before)))
    diagnoses.put(bucket.names, replace(found, gap=bucket.by_weight(found.gap)))
    return found.gap


def _moving_units(bucket: Bucket, gradient: Tensor, reached: Tensor) -> Tensor:
    """For each unit whether its gradient is not zero, in a shape that broadcasts over the stack.

    A unit that is not reached must not move, however small its momentum has become: see `on_host.descended`.
    """
    dims = bucket.geometry.coupled_dims
    if dims == MATRIX and len(bucket.weights[0].matrix_shape) == 2:
        return reached.reshape(bucket.shares.shape)
    if not dims:
        return gradient != 0
    return torch.linalg.vector_norm(gradient, math.inf, dim=dims, keepdim=True) != 0


def _descended(bucket: Bucket, group: Group, state: States, gradient: Tensor) -> Tensor:
    """Add the gradient to the momenta, which have decayed already, and give back what the solver descends."""
    momenta, mu = _held(bucket, state, "momentum"), group["momentum"]
    if not momenta:
        return gradient
    values = bucket.unstack(gradient)
    if mu == 0:
        # A momentum that was switched off follows the gradients. Weights that came later have none.
        held = [i for i, each in enumerate(bucket.weights) if "momentum" in state[each.parameter]]
        values = [values[i] for i in held]
    foreach.add_(momenta, values, alpha=1 - mu)
    if mu == 0:
        return gradient
    buffer = bucket.stack(momenta)
    return torch.lerp(gradient, buffer, mu) if group["nesterov"] else buffer


def _signals(
    bucket: Bucket, group: Group, state: States, gradient: Tensor, moving: Tensor, decay: Tensor
) -> Tensor:
    """The part of each unit's gradients that is signal, as factors for the stack."""
    dims, mu = bucket.geometry.coupled_dims, group["momentum"]
    parts = [
        signal(weight.held(state[weight.parameter]), value, reached, dims, momentum=mu, decay=decay)
        for weight, value, reached in zip(
            bucket.weights, bucket.unstack(gradient), bucket.unstack(moving), strict=True
        )
    ]
    return bucket.stack(parts).to(bucket.full)


def _points(bucket: Bucket, state: States) -> Tensor:
    """The weights in at least float32: their master copies, except for entries that somebody has changed since."""
    weights = bucket.stack([each.read(each.parameter) for each in bucket.weights])
    masters = _held(bucket, state, "master")
    if not masters:
        return weights
    master = bucket.stack(masters)
    return torch.where(master.to(weights.dtype) == weights, master, weights.to(master.dtype))


def _write_(bucket: Bucket, state: States, landed: Tensor) -> None:
    points = bucket.unstack(landed)
    masters = _held(bucket, state, "master")
    if masters:
        foreach.copy_(masters, points)
    targets = [each.target() for each in bucket.weights]
    if any(each.piece is not None for each in bucket.weights):
        # A stack that is cut along several stored dimensions has more dimensions than the logical shape.
        points = [
            x if x.shape == to.shape else x.reshape(to.shape)
            for x, to in zip(points, targets, strict=True)
        ]
    foreach.copy_(targets, points)


def _held(bucket: Bucket, state: States, name: str) -> list[Tensor]:
    """This entry of the weights' state, of those that have it."""
    entries = [each.held(state[each.parameter]) for each in bucket.weights]
    return [each[name] for each in entries if name in each]


def _gradient(weight: Weight) -> Tensor:
    assert weight.parameter.grad is not None
    return weight.read(weight.parameter.grad)
