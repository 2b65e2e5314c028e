"""Ways of a step: who multiplies, and what is sent, for each optimiser and each kind of parallel training."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from modular_manifolds_scale.loads import (
    ITEM,
    by_rank,
    muon_solves,
    numbers,
    placed,
    solved,
    solver_of,
    solves,
)
from modular_manifolds_scale.machine import Machine, Seconds
from modular_manifolds_scale.models import Model

MOMENTUM_PASSES: Final = 4
"""Numbers read or written for each number of a weight: gradient and momentum read, momentum and direction written."""
STEP_PASSES: Final = 7
"""The same for a step: direction and point into stacks, the unit length, and the new point into the weight."""
COPY_PASSES: Final = 2
"""The same for a copy into or out of a buffer."""
ADAMW_PASSES: Final = 7
"""The same for a fused AdamW: gradient, weight and two moments read, weight and moments written."""
MUON_PASSES: Final = 10
"""The same for Muon's momentum, its Nesterov combination, the cast and the update."""
ELEMENTWISE_LAUNCHES: Final = 10
"""Launches of everything in a step that is no solve."""
ROWS_SUMS: Final = {"skew-sign": 3, "norm-steepest": 1}
"""The sums of n×n numbers over all ranks for a matrix that is cut by rows, by solver."""


@dataclass(frozen=True)
class Step:
    """A step of one optimiser. It ends when the slowest rank ends.

    Args:
        way: a key of `WAYS`.
        ranks: the number of ranks.
        seconds: the time by term.
        received: bytes that the busiest rank receives.
        memory: bytes of weights, gradients, state and buffers on the fullest rank.
        imbalance: of owners, as `Placement.imbalance`; 1 without owners.
    """

    way: str
    ranks: int
    seconds: Seconds
    received: float
    memory: float
    imbalance: float = 1.0


def agreement_bytes(members: int) -> int:
    """The bytes of the all-reduce before a step, for so many weights."""
    return 4 * (3 * members + 3)


def ddp_replicate(model: Model, machine: Machine, ranks: int) -> Step:
    """Every rank solves every matrix and sends nothing."""
    seconds = (
        _passes(machine, (MOMENTUM_PASSES + STEP_PASSES) * model.numbers)
        + solves(machine, solved(model.weights))
        + machine.launches(ELEMENTWISE_LAUNCHES)
    )
    return Step("DDP, replicate", ranks, seconds, 0.0, 12.0 * model.numbers)


def ddp_owner(model: Model, machine: Machine, ranks: int) -> Step:
    """Each matrix is solved by its owner, then all points are gathered by all ranks."""
    placement = placed(model.weights, ranks)
    owned = by_rank(model.weights, placement)
    flags, points = agreement_bytes(len(model.weights)), placement.buffer_bytes
    sent, kept = numbers(solved(model.weights)), max(map(numbers, owned))
    copied = COPY_PASSES * (sent + kept) if ranks > 1 else 0
    stepped = model.numbers - sent + kept
    seconds = (
        _passes(machine, MOMENTUM_PASSES * model.numbers + STEP_PASSES * stepped + copied)
        + _slowest(solves(machine, each) for each in owned)
        + machine.launches(ELEMENTWISE_LAUNCHES)
        + machine.all_reduce(flags, ranks)
        + machine.all_gather(points, ranks)
    )
    received = (ranks - 1) * (2 * flags / ranks + points)
    memory = 12.0 * model.numbers + ranks * points
    return Step("DDP, owner", ranks, seconds, received, memory, placement.imbalance)


def fsdp_owner(model: Model, machine: Machine, ranks: int) -> Step:
    """Direction and point of each matrix go to its owner, the new point comes back."""
    return _fsdp("FSDP2, owner", model, machine, ranks, cut=())


def fsdp_rows(model: Model, machine: Machine, ranks: int) -> Step:
    """Each rank keeps its rows; sums of n×n numbers, and every rank solves in n columns."""
    return _fsdp("FSDP2, rows", model, machine, ranks, cut=("skew-sign", "norm-steepest"))


def fsdp_mixed(model: Model, machine: Machine, ranks: int) -> Step:
    """The unembedding, which has no manifold, by rows; all other matrices by their owners."""
    return _fsdp("FSDP2, mixed", model, machine, ranks, cut=("norm-steepest",))


def _fsdp(way: str, model: Model, machine: Machine, ranks: int, *, cut: Collection[str]) -> Step:
    """A step on sharded weights. Matrices of the solvers in `cut` stay where they are, cut by rows."""
    by_rows = tuple(each for each in solved(model.weights) if solver_of(each) in cut)
    rest = tuple(each for each in model.weights if each not in by_rows)
    placement = placed(rest, ranks)
    owned = by_rank(rest, placement)
    # Vectors have no owner in the placement. Their numbers travel too, dealt out evenly.
    vectors = numbers(each for each in rest if len(each.shape) == 1)
    sent = numbers(solved(rest)) + vectors
    kept = max(map(numbers, owned), default=0) + vectors / ranks
    copied = 3 * COPY_PASSES * (sent / ranks + kept) if ranks > 1 else 0
    stepped = (model.numbers - sent) / ranks + kept
    flags = agreement_bytes(len(model.weights))
    sums = [
        ITEM * sum(_square(each.shape) for each in by_rows if ROWS_SUMS[solver_of(each)] > number)
        for number in range(max(ROWS_SUMS.values()))
    ]
    seconds = (
        _passes(machine, MOMENTUM_PASSES * model.numbers / ranks + STEP_PASSES * stepped + copied)
        + _slowest(solves(machine, each) for each in owned)
        + solves(machine, by_rows, parts=ranks)
        + machine.launches(ELEMENTWISE_LAUNCHES)
        + machine.all_reduce(flags, ranks)
        + machine.all_to_all(2 * ITEM * kept, ranks)
        + machine.all_to_all(ITEM * kept, ranks)
        + sum((machine.all_reduce(size, ranks) for size in sums if size), Seconds())
    )
    received = (ranks - 1) / ranks * (3 * ITEM * kept + 2 * flags + 2 * sum(sums))
    memory = 12.0 * model.numbers / ranks + (3 * ITEM * kept if ranks > 1 else 0)
    return Step(way, ranks, seconds, received, memory, placement.imbalance)


def ddp_adamw(model: Model, machine: Machine, ranks: int) -> Step:
    """Every rank steps every number."""
    seconds = _passes(machine, ADAMW_PASSES * model.numbers)
    seconds += machine.launches(ELEMENTWISE_LAUNCHES)
    return Step("DDP, AdamW", ranks, seconds, 0.0, 16.0 * model.numbers)


def fsdp_adamw(model: Model, machine: Machine, ranks: int) -> Step:
    """Every rank steps its own numbers."""
    seconds = _passes(machine, ADAMW_PASSES * model.numbers / ranks)
    seconds += machine.launches(ELEMENTWISE_LAUNCHES)
    return Step("FSDP2, AdamW", ranks, seconds, 0.0, 16.0 * model.numbers / ranks)


def ddp_muon(model: Model, machine: Machine, ranks: int) -> Step:
    """`torch.optim.Muon` on hidden matrices as they are stored, on every rank, and AdamW on the rest."""
    hidden = numbers(model.muon)
    rest = model.numbers - hidden
    seconds = (
        _passes(machine, MUON_PASSES * hidden + ADAMW_PASSES * rest)
        + muon_solves(machine, model.muon)
        + machine.launches(ELEMENTWISE_LAUNCHES)
    )
    return Step("DDP, Muon", ranks, seconds, 0.0, 12.0 * hidden + 16.0 * rest)


def fsdp_muon(model: Model, machine: Machine, ranks: int) -> Step:
    """Muon with owners: the direction goes to its owner, and its sign comes back."""
    placement = placed(model.muon, ranks)
    owned = by_rank(model.muon, placement)
    hidden, kept = numbers(model.muon), max(map(numbers, owned))
    rest = model.numbers - hidden
    copied = 2 * COPY_PASSES * (hidden / ranks + kept) if ranks > 1 else 0
    seconds = (
        _passes(machine, (MUON_PASSES * hidden + ADAMW_PASSES * rest) / ranks + copied)
        + _slowest(muon_solves(machine, each) for each in owned)
        + machine.launches(ELEMENTWISE_LAUNCHES)
        + machine.all_to_all(ITEM * kept, ranks).times(2)
    )
    received = (ranks - 1) / ranks * 2 * ITEM * kept
    memory = (12.0 * hidden + 16.0 * rest) / ranks + (2 * ITEM * kept if ranks > 1 else 0)
    return Step("FSDP2, Muon", ranks, seconds, received, memory, placement.imbalance)


WAYS: Final[dict[str, Callable[[Model, Machine, int], Step]]] = {
    "DDP, replicate": ddp_replicate,
    "DDP, owner": ddp_owner,
    "DDP, Muon": ddp_muon,
    "DDP, AdamW": ddp_adamw,
    "FSDP2, owner": fsdp_owner,
    "FSDP2, rows": fsdp_rows,
    "FSDP2, mixed": fsdp_mixed,
    "FSDP2, Muon": fsdp_muon,
    "FSDP2, AdamW": fsdp_adamw,
}
"""The ways by name. Those of manifold Muon have no optimiser in their names."""


def _square(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-2]) * min(shape[-2:]) ** 2


def _passes(machine: Machine, count: float) -> Seconds:
    return machine.passes(ITEM * count)


def _slowest(ranks: Iterable[Seconds]) -> Seconds:
    return max(ranks, key=lambda each: each.total, default=Seconds())
