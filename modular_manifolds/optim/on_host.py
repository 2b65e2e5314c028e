"""A step on the host: it reads numbers and branches on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.optim.bucket import Bucket
from modular_manifolds.optim.damping import signal_fraction
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.exchange import Exchange
from modular_manifolds.optim.fallback import FallbackWeight, step_fallback
from modular_manifolds.optim.gradients import (
    Gradient,
    first_error,
    first_fallback_error,
    gradient_of,
    host_sums,
    reached_units,
)
from modular_manifolds.optim.stacks import as_factor, broadcast_over, stack_tensors, unstack_tensor
from modular_manifolds.optim.state import full_precision_weight, has_dual, keep_unreached_units
from modular_manifolds.optim.step import decay, take_planned_step
from modular_manifolds.optim.weight import PieceState, Weight

Group = Mapping[str, Any]
Agree = Callable[[NonFiniteError | None], ArgumentError | None]


def step_on_host(
    buckets: Sequence[Bucket],
    fallback: Sequence[FallbackWeight],
    groups: Sequence[Group],
    state: Mapping[Tensor, dict[str, Any]],
    diagnoses: Diagnoses,
    exchange: Exchange | None = None,
    *,
    agree: Agree | None = None,
) -> ArgumentError | None:
    """Step every weight. If a gradient is not finite, on any process, return the error, and change nothing.

    Args:
        buckets: the weights of this process.
        fallback: the weights that AdamW steps.
        groups: the parameter groups.
        state: the state of every parameter.
        diagnoses: takes the outcomes.
        exchange: the processes that share the solves; None without others.
        agree: decides with other processes: it gets the error of this process, and returns the error that counts.
    """
    error = first_fallback_error(fallback)
    if error is not None and agree is None:
        return error
    gradients = [
        gradient_of(each, state[each.parameter], each.share_in(groups[each.group]))
        for bucket in buckets
        for each in bucket.weights
    ]
    sums = host_sums(gradients)
    error = error or first_error(gradients, sums)
    found = error if agree is None else agree(error)
    if found is not None:
        return found
    start = 0
    for bucket in buckets:
        group, stop = groups[bucket.group], start + len(bucket.weights)
        moving = [
            _with_units(*each, group)
            for each in zip(gradients[start:stop], sums[start:stop], strict=True)
        ]
        for alike in _by_start(each for each in moving if each is not None):
            if bucket.solves:
                _step_bucket(bucket, alike, group, diagnoses, exchange)
            else:
                for each in alike:
                    averaged_gradient(each, group)
        start = stop
    if exchange is not None:
        exchange.gather(state)
        for bucket in buckets:
            if bucket.shared:
                for each in bucket.weights:
                    entries = each.entries(state[each.parameter])
                    new, dual = exchange.point(each), exchange.dual(each)
                    _write_(each, entries, new, dual, groups[bucket.group])
        exchange.release()
    step_fallback(fallback, groups, state)
    return None


def _with_units(gradient: Gradient, sums: list[float], group: Group) -> Gradient | None:
    """The gradient with its reached units; None if the weight does not change."""
    reached = reached_units(gradient, sums)
    if reached is None:
        return gradient
    with_units = replace(gradient, reached=reached)
    if not bool(reached.any()) and not group["weight_decay"]:
        # No unit moves, so no solver runs. The averages decay nevertheless.
        averaged_gradient(with_units, group)
        return None
    return with_units


def _by_start(moving: Iterable[Gradient]) -> list[list[Gradient]]:
    """Separate the weights without and with the dual of an earlier solve: one call takes one kind."""
    cold: list[Gradient] = []
    warm: list[Gradient] = []
    for each in moving:
        (warm if has_dual(each.state) else cold).append(each)
    return [each for each in (cold, warm) if each]


def _step_bucket(
    bucket: Bucket,
    moving: list[Gradient],
    group: Group,
    diagnoses: Diagnoses,
    exchange: Exchange | None,
) -> None:
    count, geometry = len(moving), bucket.geometry
    batched = bucket.is_stack(count)
    states = [each.state for each in moving]
    weights = [each.weight.read(each.weight.parameter) for each in moving]
    starts = [
        full_precision_weight(w, s.get("master")) for w, s in zip(weights, states, strict=True)
    ]
    point = stack_tensors(starts, batched=batched)
    descents = [averaged_gradient(each, group) for each in moving]
    gradient = stack_tensors([each for each, _ in descents], batched=batched).to(point.dtype)
    signals = [each for _, each in descents if each is not None]
    lr = float(group["lr"])
    lengths = [lr * each.share for each in moving]
    if group["weight_decay"]:
        rates = [each * group["weight_decay"] for each in lengths]
        point = decay(point, as_factor(rates, point))
        starts = unstack_tensor(point, count, batched=batched)
    duals = [s["dual"] for s in states] if has_dual(states[0]) else []
    dual = stack_tensors(duals, batched=batched) if duals else None
    # Each vector of a stack is a matrix with one column.
    if bucket.as_vectors:
        point, gradient = point.unsqueeze(-1), gradient.unsqueeze(-1)
    length = as_factor(lengths, point)
    if signals:
        parts = stack_tensors(signals, batched=batched)
        parts = parts.unsqueeze(-1) if bucket.as_vectors else parts
        length = broadcast_over(length, parts) * parts
    step = take_planned_step(
        geometry, bucket.plan_for(count), point, gradient, length, max(lengths), dual
    )
    landed = step.point.squeeze(-1) if bucket.as_vectors else step.point
    solution = step.solution
    found = solution.dual
    after = [None] * count if found is None else unstack_tensor(found, count, batched=batched)
    for i, new in enumerate(unstack_tensor(landed, count, batched=batched)):
        each, entries = moving[i], states[i]
        if each.reached is not None:
            new = keep_unreached_units(starts[i], new, each.reached)
        if exchange is not None and bucket.shared:
            sent = after[i] if "dual" in entries else None
            exchange.pack([each.weight], [new], None if sent is None else [sent])
        else:
            _write_(each.weight, entries, new, after[i], group)
    if batched and count == 1:
        solution = replace(solution, gap=solution.gap.squeeze(0))
    diagnoses.record([each.weight.name for each in moving], solution)


def _write_(
    weight: Weight,
    entries: dict[str, Any] | PieceState,
    new: Tensor,
    dual: Tensor | None,
    group: Group,
) -> None:
    """Move a weight to its new point, and its state with it."""
    if dual is not None and "dual" in entries:
        entries["dual"].copy_(dual)
    if "master" in entries:
        entries["master"].copy_(new)
    weight.write_(new)
    if group["tangent_momentum"] and "momentum" in entries:
        tangent = weight.geometry.manifold.tangent(new, entries["momentum"])
        entries["momentum"].copy_(tangent)


def averaged_gradient(gradient: Gradient, group: Group) -> tuple[Tensor, Tensor | None]:
    """Update the averages; return the solver's input, and the signal fraction of each unit (None for 1 everywhere).

    The input is the gradient or the momentum, and zero at units that the gradient does not reach. Such a unit's momentum
    decays, and the unit must not move: directions are normalised, so a small old momentum would move it at full length
    in one old direction.
    """
    mu, state = group["momentum"], gradient.state
    buffer: Tensor | None = state.get("momentum")
    value, reached = gradient.value, gradient.reached
    if buffer is None:
        return value, None
    value = value.to(buffer.dtype)
    # Not lerp: its difference of two large gradients of opposite sign overflows.
    buffer.mul_(mu).add_(value, alpha=1 - mu)
    if reached is not None:
        # Denormal numbers are slow, and the smallest one never decays, because 0.9 times it rounds to itself.
        normal = torch.hardshrink(buffer, torch.finfo(buffer.dtype).tiny)
        buffer.copy_(torch.where(reached, buffer, normal))
    fraction = None
    if group["noise_damping"]:
        dims = gradient.weight.geometry.coupled_dims
        fraction = signal_fraction(state, gradient.value, reached, dims, momentum=mu, decay=mu)
    ahead = value.mul(1 - mu).add_(buffer, alpha=mu) if group["nesterov"] else buffer
    return (ahead if reached is None else torch.where(reached, ahead, 0.0)), fraction
