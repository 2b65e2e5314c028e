"""A step on weights in the host's memory: it reads numbers and decides by them, at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modular_manifolds.errors import NonFiniteError
from modular_manifolds.optim.bucket import Bucket
from modular_manifolds.optim.damping import signal
from modular_manifolds.optim.diagnosis import Diagnoses
from modular_manifolds.optim.fallback import Plain, step_plain
from modular_manifolds.optim.gradients import (
    Gradient,
    first_error,
    first_plain_error,
    gradient_of,
    host_sums,
    reached_units,
)
from modular_manifolds.optim.stacks import factors, spread, stacked, unstacked
from modular_manifolds.optim.state import at_rest, has_dual, in_full
from modular_manifolds.optim.step import decay, take_planned

Group = Mapping[str, Any]


def step_on_host(
    buckets: Sequence[Bucket],
    plain: Sequence[Plain],
    groups: Sequence[Group],
    state: Mapping[Tensor, dict[str, Any]],
    diagnoses: Diagnoses,
) -> NonFiniteError | None:
    """Step every weight; give back an error instead, before anything has changed, if a gradient is not finite."""
    error = first_plain_error(plain)
    if error is not None:
        return error
    gradients = [
        gradient_of(each, state[each.parameter], each.share_in(groups[each.group]))
        for bucket in buckets
        for each in bucket.weights
    ]
    sums = host_sums(gradients)
    error = first_error(gradients, sums)
    if error is not None:
        return error
    start = 0
    for bucket in buckets:
        group, stop = groups[bucket.group], start + len(bucket.weights)
        moving = [
            _with_units(*each, group)
            for each in zip(gradients[start:stop], sums[start:stop], strict=True)
        ]
        for alike in _by_start(each for each in moving if each is not None):
            _step_bucket(bucket, alike, group, diagnoses)
        start = stop
    step_plain(plain, groups, state)
    return None


def _with_units(gradient: Gradient, sums: list[float], group: Group) -> Gradient | None:
    """The gradient with the units that it reaches; None if the weight is to be left as it is."""
    reached = reached_units(gradient, sums)
    if reached is None:
        return gradient
    partly = replace(gradient, reached=reached)
    if not bool(reached.any()) and not group["weight_decay"]:
        # Nothing moves, so no solver is asked. The averages decay all the same.
        descended(partly, group)
        return None
    return partly


def _by_start(moving: Iterable[Gradient]) -> list[list[Gradient]]:
    """Apart those that start from the dual of an earlier solve and those that do not: one call takes one kind."""
    cold: list[Gradient] = []
    warm: list[Gradient] = []
    for each in moving:
        (warm if has_dual(each.state) else cold).append(each)
    return [each for each in (cold, warm) if each]


def _step_bucket(
    bucket: Bucket, moving: list[Gradient], group: Group, diagnoses: Diagnoses
) -> None:
    count, geometry = len(moving), bucket.geometry
    states = [each.state for each in moving]
    weights = [each.weight.read(each.weight.parameter) for each in moving]
    starts = [in_full(w, s.get("master")) for w, s in zip(weights, states, strict=True)]
    point = stacked(starts)
    descents = [descended(each, group) for each in moving]
    gradient = stacked([each for each, _ in descents]).to(point.dtype)
    signals = [each for _, each in descents if each is not None]
    lr = float(group["lr"])
    lengths = [lr * each.share for each in moving]
    if group["weight_decay"]:
        rates = [each * group["weight_decay"] for each in lengths]
        point = decay(point, factors(rates, point))
        starts = unstacked(point, count)
    dual = stacked([s["dual"] for s in states]) if has_dual(states[0]) else None
    # In a stack of vectors each is a matrix of one column.
    if bucket.as_vectors:
        point, gradient = point.unsqueeze(-1), gradient.unsqueeze(-1)
    length = factors(lengths, point)
    if signals:
        parts = stacked(signals).unsqueeze(-1) if bucket.as_vectors else stacked(signals)
        length = spread(length, parts) * parts
    step = take_planned(
        geometry, bucket.plan_for(count), point, gradient, length, max(lengths), dual
    )
    landed = step.point.squeeze(-1) if bucket.as_vectors else step.point
    found = step.solution
    duals = [None] * count if found.dual is None else unstacked(found.dual, count)
    for i, new in enumerate(unstacked(landed, count)):
        each, kept = moving[i], states[i]
        if each.reached is not None:
            new = at_rest(starts[i], new, each.reached)
        if duals[i] is not None and "dual" in kept:
            kept["dual"].copy_(duals[i])
        if "master" in kept:
            kept["master"].copy_(new)
        each.weight.write_(new)
        if group["tangent_momentum"] and "momentum" in kept:
            kept["momentum"].copy_(geometry.manifold.tangent(new, kept["momentum"]))
    diagnoses.put([each.weight.name for each in moving], found)


def descended(gradient: Gradient, group: Group) -> tuple[Tensor, Tensor | None]:
    """Update the averages. Give back what the solver descends, which is zero at units that are not reached, and their signal.

    The signal is the part of the step's length that each unit takes, None for the whole of it.

    The momentum of every unit is the average over steps, and decays in a step that does not reach the unit. Such a
    unit must not move: a direction does not depend on how small the momentum has become, so a unit that was reached
    once would go on at full length in that one direction. When a unit is reached again after a long time, its new
    gradient outweighs the old ones, which were taken at points that the network has left.
    """
    mu, state = group["momentum"], gradient.state
    buffer: Tensor | None = state.get("momentum")
    value, reached = gradient.value, gradient.reached
    if buffer is None:
        return value, None
    value = value.to(buffer.dtype)
    # Not lerp, whose difference of two large gradients of opposite sign overflows.
    buffer.mul_(mu).add_(value, alpha=1 - mu)
    if reached is not None:
        # The smallest denormal number times 0.9 rounds to itself. It would never decay, and processors are slow with it.
        normal = torch.hardshrink(buffer, torch.finfo(buffer.dtype).tiny)
        buffer.copy_(torch.where(reached, buffer, normal))
    length = None
    if group["noise_damping"]:
        dims = gradient.weight.geometry.coupled_dims
        length = signal(state, gradient.value, reached, dims, momentum=mu, decay=mu)
    ahead = value.mul(1 - mu).add_(buffer, alpha=mu) if group["nesterov"] else buffer
    return (ahead if reached is None else torch.where(reached, ahead, 0.0)), length
