"""A step without host reads: for weights on an accelerator, for compiled steps and for captured graphs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from modular_manifolds.linalg.backend import gate_by_kernels_, resolve
from modular_manifolds.linalg.matrices import MATRIX, readable
from modular_manifolds.optim import foreach
from modular_manifolds.optim.bucket import Bucket
from modular_manifolds.optim.descent import (
    Decays,
    Descent,
    Group,
    States,
    can_use_kernels,
    descend_by_kernels,
    descend_by_operators,
    gradient_of,
    state_entries,
)
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.exchange import Exchange
from modular_manifolds.optim.fallback import step_fallback
from modular_manifolds.optim.landing import project_momenta_, receive_, write_
from modular_manifolds.optim.mailbox import Report
from modular_manifolds.optim.step import take_planned_step

Flags = tuple[Tensor, Tensor]


def step_on_device(
    reports: Sequence[Report],
    groups: Sequence[Group],
    state: States,
    diagnoses: Diagnoses,
    exchange: Exchange | None = None,
    *,
    flags: Sequence[Flags] | None = None,
) -> None:
    """Step every weight, or none if a gradient is not finite or a rate is too large. A flag on the device decides.

    A cancelled step changes no weight and no state, and the reports count it.

    Args:
        reports: the weights of each device.
        groups: the parameter groups.
        state: the state of every parameter.
        diagnoses: takes the outcomes.
        exchange: the processes that share the solves; None without others.
        flags: for each report, whether the step is taken, and whether each of its weights moves; by default they follow
            from the gradients.
    """
    flags = _step_flags(reports, groups, exchange) if flags is None else flags
    for report, (ok, reached) in zip(reports, flags, strict=True):
        by_kernels = [can_use_kernels(each, groups[each.group], state) for each in report.buckets]
        others = [each for each, use in zip(report.buckets, by_kernels, strict=True) if not use]
        decays = _decay_momenta_(others, groups, state, ok)
        counts = [len(bucket.weights) for bucket in report.buckets]
        parts = (reached[: sum(counts)] if report.fallback_weights else reached).split(counts)
        lengths = _step_lengths(report.buckets, groups, ok)
        gaps: list[Tensor] = []
        for bucket, use, part, length in zip(
            report.buckets, by_kernels, parts, lengths, strict=True
        ):
            group = groups[bucket.group]
            descent = (
                descend_by_kernels(bucket, group, state, ok, part)
                if use
                else descend_by_operators(bucket, group, state, ok, part, decays)
            )
            if not bucket.solves:
                continue
            shared = exchange if bucket.shared else None
            gap = _step_bucket(
                bucket, group, state, diagnoses, ok, descent, length, shared, by_kernels=use
            )
            if bucket.has_deeper_plans:
                gaps.append(gap)
        if gaps:
            worst = [each.to(torch.float32) for each in foreach.largest_numbers(gaps)]
            torch.stack(worst, out=report.gaps)
    if exchange is not None:
        exchange.gather(state)
        for report, (ok, _) in zip(reports, flags, strict=True):
            for bucket in report.buckets:
                if bucket.shared:
                    receive_(bucket, groups[bucket.group], state, ok, exchange)
        exchange.release()
    fallback = [each for report in reports for each in report.fallback_weights]
    if fallback:
        by_device = {report.device: ok for report, (ok, _) in zip(reports, flags, strict=True)}
        step_fallback(fallback, groups, state, by_device)


def _step_lengths(buckets: Sequence[Bucket], groups: Sequence[Group], ok: Tensor) -> list[Tensor]:
    """The lengths of the steps, in shapes that broadcast over the stacks."""
    by_bucket: dict[int, Tensor] = {}
    for index in dict.fromkeys(bucket.group for bucket in buckets):
        lr, members = groups[index]["lr"], [each for each in buckets if each.group == index]
        shares = [each.shares for each in members]
        if isinstance(lr, Tensor):
            # The rate of a cancelled step may be NaN.
            lengths = [torch.where(ok, each * lr, 0.0) for each in shares]
        else:
            lengths = foreach.multiply(shares, lr)
        by_bucket |= {id(each): length for each, length in zip(members, lengths, strict=True)}
    return [by_bucket[id(each)] for each in buckets]


def _largest_entries(report: Report) -> Tensor:
    """`max |G_ij|` of each weight's gradient, shape (weights,): finite only if every entry is."""
    gradients = [gradient_of(each) for bucket in report.buckets for each in bucket.weights]
    gradients += [
        each.parameter.grad for each in report.fallback_weights if each.parameter.grad is not None
    ]
    if not gradients:
        return torch.zeros(0, device=report.device)
    double = any(each.dtype is torch.float64 for each in gradients)
    dtype = torch.float64 if double else torch.float32
    return foreach.largest_entries(gradients, dtype)


def _step_flags(
    reports: Sequence[Report], groups: Sequence[Group], exchange: Exchange | None
) -> list[Flags]:
    """For each device, whether the step is taken; and for each weight, whether it moves: its gradient is also nonzero."""
    largest = [_largest_entries(report) for report in reports]
    rates = [groups[bucket.group]["lr"] for report in reports for bucket in report.buckets]
    readable_rates = all(not isinstance(lr, Tensor) or readable(lr) for lr in rates)
    alone = exchange is None and len(reports) == 1
    if readable_rates and alone and resolve("auto", largest[0]) == "triton":
        return [gate_by_kernels_(largest[0], reports[0].counts, largest_allowed(largest[0]))]
    flags = [
        _can_step(report, groups, entries, exchange)
        for report, entries in zip(reports, largest, strict=True)
    ]
    result: list[Flags] = []
    for report, entries, ok in zip(reports, largest, _agree(flags), strict=True):
        report.left_out.add_(torch.logical_not(ok))
        result.append((ok, (entries > 0) & ok))
    return result


def largest_allowed(largest: Tensor) -> float:
    """Larger entries count as infinite, because their sums with the momentum may overflow."""
    return torch.finfo(largest.dtype).max / 4


def _can_step(
    report: Report, groups: Sequence[Group], largest: Tensor, exchange: Exchange | None
) -> Tensor:
    """Whether one device can take the step: every gradient is finite, and every rate within the plans' limit."""
    finite = largest < largest_allowed(largest)
    ok = finite.all()
    allowed = rates_allowed(report.buckets, groups, ok.device)
    if allowed is not None:
        report.rate_too_large.add_(torch.logical_not(allowed))
        ok = ok & allowed
    if exchange is None:
        report.nonfinite.add_(torch.logical_not(finite))
        return ok
    ok, nonfinite, conflicts = exchange.agreement.on_device(ok, finite)
    report.nonfinite.add_(nonfinite)
    report.conflicts.add_(conflicts)
    return ok


def rates_allowed(
    buckets: Sequence[Bucket], groups: Sequence[Group], device: torch.device
) -> Tensor | None:
    """Whether every rate that the host cannot read is within the plans' limits; None if it can read all."""
    bounds: dict[int, float] = {}
    for bucket in buckets:
        lr = groups[bucket.group]["lr"]
        if isinstance(lr, Tensor) and not readable(lr):
            bound = bucket.largest_rate(lr)
            bounds[bucket.group] = min(bound, bounds.get(bucket.group, bound))
    found: Tensor | None = None
    for index, bound in bounds.items():
        lr = groups[index]["lr"]
        # False for NaN too.
        allowed = lr.clamp(0.0, bound) == lr
        if allowed.device != device:
            allowed = allowed.to(device, non_blocking=True)
        found = allowed if found is None else found & allowed
    return found


def _agree(flags: Sequence[Tensor]) -> list[Tensor]:
    """One common flag, copied to each device: no weight moves unless all may."""
    if len(flags) == 1:
        return list(flags)
    common = flags[0]
    for each in flags[1:]:
        common = common & each.to(common.device, non_blocking=True)
    return [common.to(each.device, non_blocking=True) for each in flags]


def _decay_momenta_(
    buckets: Sequence[Bucket], groups: Sequence[Group], state: States, ok: Tensor
) -> Decays:
    """`B ← μB` for all momenta, unless the step is cancelled; return the factors, μ or 1, by μ and dtype."""
    alike: dict[tuple[float, torch.dtype], list[Tensor]] = {}
    for bucket in buckets:
        key = groups[bucket.group]["momentum"], bucket.full
        alike.setdefault(key, []).extend(state_entries(bucket, state, "momentum"))
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
    exchange: Exchange | None,
    *,
    by_kernels: bool,
) -> Tensor:
    """Step one bucket and return the gaps; with `by_kernels`, one launch writes all weights.

    With an exchange the new points and duals are packed and not written.
    """
    point = _points(bucket, state)
    start = point
    if group["weight_decay"]:
        start = point = point * torch.where(ok, 1 - length * group["weight_decay"], 1.0)
    if descent.signals is not None:
        length = length * descent.signals
    duals = state_entries(bucket, state, "dual")
    dual = bucket.stack(duals, turn=False) if duals else None
    step = take_planned_step(
        bucket.geometry,
        bucket.plan,
        point,
        descent.stack,
        length,
        bucket.longest_step(group["lr"]),
        dual,
    )
    solution = step.solution
    after = None
    if solution.dual is not None and dual is not None:
        # A matrix that does not move keeps its dual.
        changes = descent.moving if bucket.geometry.coupled_dims == MATRIX else ok
        after = bucket.unstack(torch.where(changes, solution.dual.to(dual.dtype), dual), turn=False)
    if exchange is not None:
        landed = torch.where(descent.moving, step.point, start)
        exchange.pack(bucket.weights, bucket.unstack(landed), after)
    else:
        write_(bucket, state, step.point, start, descent.moving, by_kernels=by_kernels)
        if after is not None:
            foreach.copy_(duals, after)
        if group["tangent_momentum"]:
            landed = torch.where(descent.moving, step.point, start)
            project_momenta_(bucket, state, landed, ok)
    diagnoses.record(bucket.names, replace(solution, gap=bucket.per_weight(solution.gap)))
    return solution.gap


def _points(bucket: Bucket, state: States) -> Tensor:
    """The weights in at least float32: their master copies, except entries that were changed outside the optimiser."""
    weights = bucket.stack([each.read(each.parameter) for each in bucket.weights])
    masters = state_entries(bucket, state, "master")
    if not masters:
        return weights
    master = bucket.stack(masters)
    return torch.where(master.to(weights.dtype) == weights, master, weights.to(master.dtype))
