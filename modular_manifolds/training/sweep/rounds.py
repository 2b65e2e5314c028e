"""Runs the points of a sweep, in this or in several processes, and stores the outcomes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import torch

from modular_manifolds.errors import ProcessError
from modular_manifolds.specs import RunSpec
from modular_manifolds.specs.data import DataSpec
from modular_manifolds.training.data import read_data, resolve_with_data
from modular_manifolds.training.device import device_of
from modular_manifolds.training.part import Data
from modular_manifolds.training.sweep.outcome import Outcome, outcome
from modular_manifolds.training.sweep.plan import Arm, Plan, Point, Size
from modular_manifolds.training.sweep.results import Result, Results
from modular_manifolds.training.sweep.summary import curve

Watch = Callable[[Result, int], None]
"""Called with each result, and the number of remaining runs of its round."""

Runner = Callable[[Mapping[Point, RunSpec]], Iterator[tuple[Point, Outcome]]]
"""Runs the given specs, and yields outcomes in the order of completion."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """The data of a sweep, and the resolved run of each size and arm."""

    data: Data
    runs: dict[tuple[Arm, Size], RunSpec]


def prepare(plan: Plan) -> Prepared:
    """Read the data of a sweep and check every size and arm; nothing is written.

    Raises:
        ArgumentError: a size or an arm has an unknown name, does not fit or is too large, or the data or the device are
            missing.
    """
    device_of(plan.run.device)
    data = read_data(plan.run.data)
    runs = {
        (arm, size): resolve_with_data(
            plan.run.override([*size.assignments, *arm.assignments]), data
        )
        for arm, size in plan.curves
    }
    return Prepared(data, runs)


def run_points(
    plan: Plan, kept: Results, *, jobs: int = 1, watch: Watch, prepared: Prepared | None = None
) -> list[Result]:
    """Run every point of the plan that has no stored outcome.

    Args:
        plan: the plan. Every size and arm is checked before the first run starts.
        kept: the folder with stored outcomes.
        jobs: the number of processes; each reads the data once.
        watch: called with each result, including stored ones.
        prepared: the result of `prepare(plan)`; None to call it here.

    Returns:
        The results by arm, size, rate and seed.

    Raises:
        ArgumentError: a size or an arm has an unknown name or does not fit, or the data are missing.
    """
    prepared = prepare(plan) if prepared is None else prepared
    data, shared = prepared.data, prepared.runs
    outcomes: dict[Point, Outcome] = {}
    with _runner(plan.run, data, jobs) as run:
        for points in _rounds(plan, outcomes):
            remaining: dict[Point, RunSpec] = {}
            for point in points:
                spec = shared[point.arm, point.size].override(
                    [f"optimizer.lr={point.lr!r}", f"seed={point.seed}"]
                )
                known = kept.find(spec)
                if known is None:
                    remaining[point] = spec
                else:
                    outcomes[point] = known
                    watch(Result(point, known), len(remaining))
            for point, finished_outcome in run(remaining):
                kept.keep(remaining.pop(point), point, finished_outcome)
                outcomes[point] = finished_outcome
                watch(Result(point, finished_outcome), len(remaining))
    places = {each: place for place, each in enumerate(plan.curves)}
    ordered = sorted(
        outcomes, key=lambda each: (places[each.arm, each.size], each.notch, each.seed)
    )
    return [Result(point, outcomes[point]) for point in ordered]


def _rounds(plan: Plan, outcomes: Mapping[Point, Outcome]) -> Iterator[list[Point]]:
    """The points of each round; later rounds depend on the outcomes of earlier ones."""
    yield plan.points()
    if plan.grid != "refined":
        return
    best = _best(plan, outcomes)
    finer = [plan.neighbours(*each, notch) for each, notch in best.items() if notch is not None]
    yield [point for points in finer for point in points if point not in outcomes]
    best = _best(plan, outcomes)
    first, last = plan.sizes[0], plan.sizes[-1]
    notches = {arm: best[arm, first] for arm in plan.ranges}
    carried = [
        plan.points_at(arm, last, [each]) for arm, each in notches.items() if each is not None
    ]
    yield [point for points in carried for point in points if point not in outcomes]


def _best(plan: Plan, outcomes: Mapping[Point, Outcome]) -> dict[tuple[Arm, Size], int | None]:
    results = [Result(point, finished_outcome) for point, finished_outcome in outcomes.items()]
    return {(arm, size): curve(results, arm, size).best for arm, size in plan.curves}


@contextmanager
def _runner(run: RunSpec, data: Data, jobs: int) -> Iterator[Runner]:
    if jobs == 1:
        moved_data = data.to(torch.device(run.device))
        yield lambda specs: (
            (point, outcome(spec, moved_data)) for point, spec in list(specs.items())
        )
        return
    # Spawned, because a fork of a process that has used a GPU cannot use it.
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), _read, (data.spec, run.device)
    )

    def run_in_pool(specs: Mapping[Point, RunSpec]) -> Iterator[tuple[Point, Outcome]]:
        waiting = {pool.submit(_outcome, spec): point for point, spec in specs.items()}
        for done in as_completed(waiting):
            yield waiting[done], done.result()

    try:
        yield run_in_pool
    except BrokenExecutor:
        raise ProcessError(
            "--jobs",
            "must be few enough for the memory of this machine",
            "a process that was killed",
            "The finished runs are kept: write the same command with fewer --jobs.",
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_DATA: list[Data] = []
"""The data of a worker process, which all its runs share."""


def _read(spec: DataSpec, device: str) -> None:
    # Ctrl-C reaches every process of a terminal; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    _DATA.append(read_data(spec).to(torch.device(device)))


def _end_after(parent: BaseProcess) -> None:
    """End this process when `parent` has ended, because a killed parent cannot stop its workers."""
    parent.join()
    os._exit(1)


def _outcome(spec: RunSpec) -> Outcome:
    return outcome(spec, _DATA[0])
