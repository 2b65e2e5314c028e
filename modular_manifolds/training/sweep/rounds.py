"""Runs the points of a sweep, here or in several processes, and keeps what was found."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

import torch

from modular_manifolds.specs import RunSpec
from modular_manifolds.specs.data import DataSpec
from modular_manifolds.training.data import read_data, settled
from modular_manifolds.training.part import Data
from modular_manifolds.training.sweep.outcome import Outcome, outcome
from modular_manifolds.training.sweep.plan import Arm, Plan, Point, Size
from modular_manifolds.training.sweep.results import Result, Results
from modular_manifolds.training.sweep.summary import curve

Watch = Callable[[Result, int], None]
"""Told of each result, and how many runs of its round are left."""

Runner = Callable[[Mapping[Point, RunSpec]], Iterator[tuple[Point, Outcome]]]
"""Runs what it is given; outcomes come as they are found."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """The data of a sweep, and the resolved run of each size and arm."""

    data: Data
    runs: dict[tuple[Arm, Size], RunSpec]


def prepare(plan: Plan) -> Prepared:
    """Read the data of a sweep and check every size and arm; nothing is written.

    Raises:
        ArgumentError: a size or an arm names what is not known, does not fit or is too large, or
            the data are missing.
    """
    data = read_data(plan.run.data)
    runs = {
        (arm, size): settled(plan.run.override([*size.assignments, *arm.assignments]), data)
        for arm, size in plan.curves
    }
    return Prepared(data, runs)


def conduct(
    plan: Plan, kept: Results, *, jobs: int = 1, watch: Watch, prepared: Prepared | None = None
) -> list[Result]:
    """Run every point of the plan that is not kept yet.

    Args:
        plan: what is asked for. Every size and arm is checked before the first run starts.
        kept: the place that results are read from and written to.
        jobs: processes; each reads the data once.
        watch: told of each result, of those that lay there already too.
        prepared: what `prepare(plan)` gave; it is called here without it.

    Returns:
        The results by arm, size, rate and seed.

    Raises:
        ArgumentError: a size or an arm names what is not known or does not fit, or the data are missing.
    """
    prepared = prepare(plan) if prepared is None else prepared
    data, shared = prepared.data, prepared.runs
    found: dict[Point, Outcome] = {}
    with _runner(plan.run, data, jobs) as run:
        for points in _rounds(plan, found):
            left: dict[Point, RunSpec] = {}
            for point in points:
                spec = shared[point.arm, point.size].override(
                    [f"optimizer.lr={point.lr!r}", f"seed={point.seed}"]
                )
                known = kept.find(spec)
                if known is None:
                    left[point] = spec
                else:
                    found[point] = known
                    watch(Result(point, known), len(left))
            for point, ended in run(left):
                kept.keep(left.pop(point), point, ended)
                found[point] = ended
                watch(Result(point, ended), len(left))
    places = {each: place for place, each in enumerate(plan.curves)}
    ordered = sorted(found, key=lambda each: (places[each.arm, each.size], each.notch, each.seed))
    return [Result(point, found[point]) for point in ordered]


def _rounds(plan: Plan, found: Mapping[Point, Outcome]) -> Iterator[list[Point]]:
    """The points to run, round by round; a later round depends on what the earlier ones found."""
    yield plan.points()
    if plan.grid != "refined":
        return
    best = _best(plan, found)
    finer = [plan.beside(*each, notch) for each, notch in best.items() if notch is not None]
    yield [point for points in finer for point in points if point not in found]
    best = _best(plan, found)
    first, last = plan.sizes[0], plan.sizes[-1]
    notches = {arm: best[arm, first] for arm in plan.ranges}
    carried = [plan.at(arm, last, [each]) for arm, each in notches.items() if each is not None]
    yield [point for points in carried for point in points if point not in found]


def _best(plan: Plan, found: Mapping[Point, Outcome]) -> dict[tuple[Arm, Size], int | None]:
    results = [Result(point, ended) for point, ended in found.items()]
    return {(arm, size): curve(results, arm, size).best for arm, size in plan.curves}


@contextmanager
def _runner(run: RunSpec, data: Data, jobs: int) -> Iterator[Runner]:
    if jobs == 1:
        there = data.to(torch.device(run.device))
        yield lambda specs: ((point, outcome(spec, there)) for point, spec in list(specs.items()))
        return
    # Not forked: a GPU cannot be used by a fork of a process that has used it.
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), _read, (data.spec, run.device)
    )

    def shared_out(specs: Mapping[Point, RunSpec]) -> Iterator[tuple[Point, Outcome]]:
        waiting = {pool.submit(_outcome, spec): point for point, spec in specs.items()}
        for done in as_completed(waiting):
            yield waiting[done], done.result()

    try:
        yield shared_out
    finally:
        pool.shutdown(cancel_futures=True)


_DATA: list[Data] = []
"""The data that a worker process has read, for all its runs."""


def _read(spec: DataSpec, device: str) -> None:
    # Ctrl-C reaches every process of a terminal; the one that waits for the others decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    _DATA.append(read_data(spec).to(torch.device(device)))


def _end_after(parent: BaseProcess) -> None:
    """End this process when `parent` has ended: a parent that is killed tells nobody."""
    parent.join()
    os._exit(1)


def _outcome(spec: RunSpec) -> Outcome:
    return outcome(spec, _DATA[0])
