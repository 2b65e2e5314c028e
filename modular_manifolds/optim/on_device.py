"""A step that reads no number: for weights on an accelerator, for a compiler and for captured graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import gate_by_kernels_, land_by_kernels_, resolve
from modular_manifolds.linalg.matrices import MATRIX, readable
from modular_manifolds.optim import foreach
from modular_manifolds.optim.bucket import Bucket
from modular_manifolds.optim.descent import (
    Decays,
    Descent,
    Group,
    States,
    by_operators,
    gradient_of,
    held,
    in_one_pass,
    takes_one_pass,
)
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.fallback import step_plain
from modular_manifolds.optim.mailbox import Report
from modular_manifolds.optim.step import take_planned


def step_on_device(
    reports: Sequence[Report], groups: Sequence[Group], state: States, diagnoses: Diagnoses
) -> None:
    """Step every weight, or none if a gradient is not finite or a rate too large: a flag on the device decides.

    A step that is left out writes to no weight and to no state, and is counted in the reports.
    """
    gates = _gates(reports, groups)
    for report, (ok, reached) in zip(reports, gates, strict=True):
        together = [takes_one_pass(each, groups[each.group], state) for each in report.buckets]
        others = [each for each, one in zip(report.buckets, together, strict=True) if not one]
        decays = _decay_momenta_(others, groups, state, ok)
        counts = [len(bucket.weights) for bucket in report.buckets]
        parts = (reached[: sum(counts)] if report.plain else reached).split(counts)
        lengths = _lengths(report.buckets, groups, ok)
        gaps: list[Tensor] = []
        for bucket, one, part, length in zip(report.buckets, together, parts, lengths, strict=True):
            group = groups[bucket.group]
            descent = (
                in_one_pass(bucket, group, state, ok, part)
                if one
                else by_operators(bucket, group, state, ok, part, decays)
            )
            gap = _step_bucket(bucket, group, state, diagnoses, ok, descent, length, one=one)
            if bucket.has_deeper_plans:
                gaps.append(gap)
        if gaps:
            worst = [each.to(torch.float32) for each in foreach.largest_numbers(gaps)]
            torch.stack(worst, out=report.gaps)
    plain = [each for report in reports for each in report.plain]
    if plain:
        flags = {report.device: ok for report, (ok, _) in zip(reports, gates, strict=True)}
        step_plain(plain, groups, state, flags)


def _lengths(buckets: Sequence[Bucket], groups: Sequence[Group], ok: Tensor) -> list[Tensor]:
    """The lengths of the steps, in shapes that broadcast over the stacks; rates that are numbers take one call a group."""
    found: dict[int, Tensor] = {}
    for index in dict.fromkeys(bucket.group for bucket in buckets):
        lr, members = groups[index]["lr"], [each for each in buckets if each.group == index]
        shares = [each.shares for each in members]
        if isinstance(lr, Tensor):
            # A rate that leaves out the step may be NaN.
            lengths = [torch.where(ok, each * lr, 0.0) for each in shares]
        else:
            lengths = foreach.multiplied(shares, lr)
        found |= {id(each): length for each, length in zip(members, lengths, strict=True)}
    return [found[id(each)] for each in buckets]


def _largest_entries(report: Report) -> Tensor:
    """`max |G_ij|` of each weight's gradient, shape (weights,): finite only if every entry is."""
    gradients = [gradient_of(each) for bucket in report.buckets for each in bucket.weights]
    gradients += [each.parameter.grad for each in report.plain if each.parameter.grad is not None]
    double = any(each.dtype is torch.float64 for each in gradients)
    dtype = torch.float64 if double else torch.float32
    return foreach.largest_entries(gradients, dtype)


def _gates(reports: Sequence[Report], groups: Sequence[Group]) -> list[tuple[Tensor, Tensor]]:
    """For each device whether the step is taken, and for each weight whether it is and its gradient is not zero."""
    largest = [_largest_entries(report) for report in reports]
    rates = [groups[bucket.group]["lr"] for report in reports for bucket in report.buckets]
    known = all(not isinstance(lr, Tensor) or readable(lr) for lr in rates)
    if known and len(reports) == 1 and resolve("auto", largest[0]) == "triton":
        return [gate_by_kernels_(largest[0], reports[0].counts, _bound(largest[0]))]
    flags = [
        _usable(report, groups, entries) for report, entries in zip(reports, largest, strict=True)
    ]
    found: list[tuple[Tensor, Tensor]] = []
    for report, entries, ok in zip(reports, largest, _agreed(flags), strict=True):
        report.left_out.add_(torch.logical_not(ok))
        found.append((ok, (entries > 0) & ok))
    return found


def _bound(largest: Tensor) -> float:
    """Entries from here on count as infinite: sums with the momentum may be."""
    return torch.finfo(largest.dtype).max / 4


def _usable(report: Report, groups: Sequence[Group], largest: Tensor) -> Tensor:
    """Whether a step can be taken: every gradient is finite, and every rate within what the plans allow."""
    finite = largest < _bound(largest)
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
) -> Decays:
    """`B ← μB` for all momenta, or B if the step is left out; give back these factors by μ and dtype."""
    alike: dict[tuple[float, torch.dtype], list[Tensor]] = {}
    for bucket in buckets:
        key = groups[bucket.group]["momentum"], bucket.full
        alike.setdefault(key, []).extend(held(bucket, state, "momentum"))
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
    descent: Descent,
    length: Tensor,
    *,
    one: bool,
) -> Tensor:
    """Step one bucket and give back the gaps; in `one` launch, by the kernels, the weights are written."""
    point = _points(bucket, state)
    start = point
    if group["weight_decay"]:
        start = point = point * torch.where(ok, 1 - length * group["weight_decay"], 1.0)
    if descent.signals is not None:
        length = length * descent.signals
    duals = held(bucket, state, "dual")
    dual = bucket.stack(duals, turn=False) if duals else None
    step = take_planned(
        bucket.geometry,
        bucket.plan,
        point,
        descent.stack,
        length,
        bucket.longest(group["lr"]),
        dual,
    )
    found = step.solution
    _write_(bucket, state, step.point, start, descent.moving, one=one)
    if found.dual is not None and dual is not None:
        # A matrix at rest keeps its dual. It broadcasts over numbers for whole matrices only.
        changes = descent.moving if bucket.geometry.coupled_dims == MATRIX else ok
        after = torch.where(changes, found.dual.to(dual.dtype), dual)
        foreach.copy_(duals, bucket.unstack(after, turn=False))
    momenta = held(bucket, state, "momentum")
    if group["tangent_momentum"] and momenta:
        before = bucket.stack(momenta)
        landed = torch.where(descent.moving, step.point, start)
        tangent = bucket.geometry.manifold.tangent(landed, before)
        foreach.copy_(momenta, bucket.unstack(torch.where(ok, tangent, before)))
    diagnoses.put(bucket.names, replace(found, gap=bucket.by_weight(found.gap)))
    return found.gap


def _points(bucket: Bucket, state: States) -> Tensor:
    """The weights in at least float32: their master copies, except for entries that somebody has changed since."""
    weights = bucket.stack([each.read(each.parameter) for each in bucket.weights])
    masters = held(bucket, state, "master")
    if not masters:
        return weights
    master = bucket.stack(masters)
    return torch.where(master.to(weights.dtype) == weights, master, weights.to(master.dtype))


def _write_(
    bucket: Bucket, state: States, landed: Tensor, start: Tensor, moving: Tensor, *, one: bool
) -> None:
    """Write the points at which units have landed, or the start of those that rest, to the weights and their master copies."""
    masters = held(bucket, state, "master")
    if one and len(masters) in (0, len(bucket.weights)):
        if bucket.shares.dim() == 2:
            landed, start, moving = landed.unsqueeze(0), start.unsqueeze(0), moving.unsqueeze(0)
        land_by_kernels_(bucket.parameters, masters, landed, start, moving, turned=bucket.turned)
        return
    points = bucket.unstack(torch.where(moving, landed, start))
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
