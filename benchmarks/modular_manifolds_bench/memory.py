"""Memory from the events of torch's CPU allocator, including the work space of single operations."""

from __future__ import annotations

import copy
import gc
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

MEASURED = "modular_manifolds_bench.measured"


@dataclass(frozen=True)
class Use:
    """Additional bytes: at the peak, and at the end."""

    peak: int
    kept: int


def measure(run: Callable[[], object], *, prepare: Callable[[], object] = lambda: None) -> Use:
    """The memory that `run` allocates on the CPU, from the allocator's events in the order they came.

    Every allocation of torch counts, including the work space of decompositions; allocations of other libraries do not.
    `run` may free only blocks of its own or of `prepare`, which runs before it and is not counted, because the sizes of
    older blocks are unknown.
    """
    # The garbage of earlier calls would be such blocks.
    gc.collect()
    with _quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        prepared = prepare()
        with record_function(MEASURED):
            run()
        del prepared
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    (span,) = (each for each in events if each.get("name") == MEASURED)
    begin, end = span["ts"], span["ts"] + span["dur"]
    blocks = sorted(
        (each for each in events if each.get("name") == "[memory]" and begin <= each["ts"] <= end),
        key=lambda event: event["args"]["Ev Idx"],
    )
    totals = list(itertools.accumulate((each["args"]["Bytes"] for each in blocks), initial=0))
    return Use(max(totals), totals[-1])


@dataclass(frozen=True)
class StepMemory:
    """Bytes of an optimiser beyond weights and gradients, between steps and during one.

    `largest` is the transient peak of a step of its hungriest bucket alone: the weights of one shape.
    """

    weights: int
    state: int
    transient: int
    largest: int
    allowed_state: int


def of_steps(optimizer: torch.optim.Optimizer) -> StepMemory:
    """Measure an optimiser with gradients and state: the bytes of its state, and the additional bytes of a step.

    `allowed_state` is momentum and one n×n dual a weight, n the shorter side, both as wide as the
    weights.
    """
    weights: list[Tensor] = [w for group in optimizer.param_groups for w in group["params"]]
    held = sum(_held(optimizer.state[weight]) for weight in weights)
    allowed = sum((w.numel() + min(w.shape) ** 2) * max(4, w.element_size()) for w in weights)
    before = {weight: optimizer.state[weight] for weight in weights}
    # What a step replaces must stay alive, or the allocator is told to free a block it has no size of.
    alive = _own_values(optimizer)

    def copy_state() -> None:
        for weight, state in before.items():
            optimizer.state[weight] = copy.deepcopy(state)

    def prepare() -> None:
        copy_state()
        # What an optimiser makes once, for the weights that have gradients, is no part of a step.
        optimizer.step()
        copy_state()

    def peak() -> int:
        found = measure(optimizer.step, prepare=prepare).peak
        alive.extend(_own_values(optimizer))
        for weight, state in before.items():
            optimizer.state[weight] = state
        return found

    whole = peak()
    gradients = [weight.grad for weight in weights]
    alone: list[int] = []
    for shape in dict.fromkeys(weight.shape for weight in weights):
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient if weight.shape == shape else None
        alone.append(peak())
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    return StepMemory(size, held, whole, max(alone), allowed)


def _own_values(owner: object, depth: int = 2) -> list[dict[object, object]]:
    """The values that an optimiser's mappings and objects hold now, and the objects that these hold."""
    values = list(vars(owner).values())
    mappings: list[dict[object, object]] = [dict(v) for v in values if isinstance(v, Mapping)]
    for each in values:
        if hasattr(each, "__dict__"):
            mappings.append(dict(vars(each)))
            if depth > 1:
                mappings.extend(_own_values(each, depth - 1))
    return mappings


def _held(state: dict[str, object]) -> int:
    storages = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
        for each in state.values()
        if isinstance(each, torch.Tensor)
    }
    return sum(storages.values())


@contextmanager
def _quiet() -> Iterator[None]:
    """Some builds of torch's profiler print a line when they start and stop."""
    before = os.environ.get("KINETO_LOG_LEVEL")
    os.environ["KINETO_LOG_LEVEL"] = "99"
    try:
        yield
    finally:
        if before is None:
            del os.environ["KINETO_LOG_LEVEL"]
        else:
            os.environ["KINETO_LOG_LEVEL"] = before
