"""The benchmarks: the comparisons, and the required ratios."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import torch

import modular_manifolds as mm
from modular_manifolds_bench import contenders, quality
from modular_manifolds_bench.contenders import MUON
from modular_manifolds_bench.drift import drift
from modular_manifolds_bench.gradients import Problem, digits_alone, perceptron, training
from modular_manifolds_bench.language import gpt_forward
from modular_manifolds_bench.memory import StepMemory, of_steps
from modular_manifolds_bench.recordings import Recordings, Settings
from modular_manifolds_bench.report import Row, amount
from modular_manifolds_bench.timing import Contender, Ratio, Timings, interleave

MAX_GAP = 1e-2
STEP_BAR = 1.5
PLAIN_BAR = 0.8
WHOLE_BAR = 0.7
SEED_BAR: Final[dict[tuple[int, int], float]] = {(128, 3072): 100.0}
SEED_BAR_ELSEWHERE = 30.0
RESIDUALS: Final[dict[torch.dtype, float]] = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
MAX_RESIDUAL_GROWTH = 1.5
"""The largest accepted ratio of the last thousand residuals to the first thousand."""
MEMORY_TOLERANCE_FACTOR = 1.05
"""A tolerance for a step's small tensors besides the stack."""
ONE_ROUND_MIN_ENTRIES = 768 * 768
"""The smallest number of entries at which dual ascent, with many seconds a step, is timed in one round only."""


def manifold_muon(recordings: Recordings) -> Iterator[Row]:
    """Manifold Muon's step beside torch's Muon, AdamW and geoopt, weight by weight."""
    for problem in recordings.single:
        recordings.settings.watch(f"manifold-muon: {problem.name}")
        yield from step_rows(problem, recordings.best[problem.name], recordings.settings)


def step_rows(problem: Problem, best: float, settings: Settings) -> Iterator[Row]:
    """The rows of one weight."""
    mine = contenders.ours(problem)
    geoopt = contenders.riemannian_sgd(problem)
    others = [contenders.torch_muon(problem), contenders.torch_adamw(problem)]
    steppers = [mine, *others, *([geoopt] if geoopt is not None else [])]
    timings = _timed([each.contender(problem) for each in steppers], settings)
    gap, certificate = gaps(problem, best, mine)
    ratio = timings.ratio("ours", MUON)
    yield _row(
        "manifold-muon",
        f"manifold Muon / {MUON}, {problem.name}",
        timings,
        MUON,
        ratio,
        bar=f"≤ {STEP_BAR:g} at a gap ≤ {MAX_GAP:g}",
        met=ratio.value <= STEP_BAR and gap <= MAX_GAP,
        note=f"gap {gap:.1e}, certified {certificate:.1e}",
    )
    for other in steppers[2:]:
        yield _row(
            "manifold-muon",
            f"manifold Muon / {other.name}, {problem.name}",
            timings,
            other.name,
            timings.ratio("ours", other.name),
        )
    if geoopt is None:
        yield Row(
            "manifold-muon",
            f"manifold Muon / geoopt RiemannianSGD, {problem.name}",
            ours=timings.median("ours"),
            note=contenders.NOT_INSTALLED,
        )


def gaps(problem: Problem, best: float, stepper: contenders.Stepper) -> tuple[float, float]:
    """Our relative gap at the first moment, true and as the optimiser certifies it."""
    stepper.restore(problem.moments[0])
    stepper.optimizer.step()
    assert isinstance(stepper.optimizer, mm.SteepestDescent)
    (diagnosis,) = stepper.optimizer.diagnoses.values()
    moment = problem.moments[0]
    return quality.true_gap(moment, quality.direction(moment), best), float(diagnosis.gap)


def dual_ascent(recordings: Recordings) -> Iterator[Row]:
    """The seed post's dual ascent beside ours; it starts afresh every step, as in the post."""
    for problem in recordings.single:
        recordings.settings.watch(f"dual-ascent: {problem.name}")
        yield seed_row(problem, recordings.best[problem.name], recordings.settings)


def seed_row(problem: Problem, best: float, settings: Settings) -> Row:
    """The row of one weight."""
    # One moment: the remembered direction and the best dual objective belong to the same step.
    problem = replace(problem, moments=problem.moments[:1])
    mine = contenders.ours(problem)
    name = "dual ascent"
    remembering = quality.Remembering()
    seed = contenders.ours(problem, name=name, solver=remembering, warm=False)
    most = 1 if problem.shape[0] * problem.shape[1] >= ONE_ROUND_MIN_ENTRIES else None
    timings = _timed([mine.contender(problem), seed.contender(problem, most=most)], settings)
    gap, _ = gaps(problem, best, mine)
    (direction,) = remembering.found
    seeds = quality.true_gap(problem.moments[0], direction, best)
    ratio = timings.ratio(name, "ours")
    bar = SEED_BAR.get(problem.shape, SEED_BAR_ELSEWHERE)
    return _row(
        "dual-ascent",
        f"dual ascent / manifold Muon, {problem.name}",
        timings,
        name,
        ratio,
        bar=f"≥ {bar:g} at a smaller gap",
        met=ratio.value >= bar and gap <= seeds,
        note=f"gap {gap:.1e}, dual ascent's {seeds:.1e}",
    )


def plain_muon(recordings: Recordings) -> Iterator[Row]:
    """Muon through this library beside torch's, at no worse orthogonality."""
    large = next(each for each in recordings.large if each.shape == (768, 3072))
    for problem in (large, recordings.deep):
        recordings.settings.watch(f"plain-muon: {problem.name}")
        yield plain_row(problem, recordings.settings)


def plain_row(problem: Problem, settings: Settings) -> Row:
    """The row of one problem."""
    mine = contenders.ours(problem, manifold=mm.Euclidean(), warm=False)
    theirs = contenders.torch_muon(problem)
    timings = _timed([each.contender(problem) for each in (mine, theirs)], settings)
    off, theirs_off = (quality.orthogonality(each, problem.moments[0]) for each in (mine, theirs))
    ratio = timings.ratio("ours", MUON)
    return _row(
        "plain-muon",
        f"plain Muon / {MUON}, {problem.name}",
        timings,
        MUON,
        ratio,
        bar=f"≤ {PLAIN_BAR:g} at no worse orthogonality",
        met=ratio.value <= PLAIN_BAR and off <= theirs_off,
        note=f"off orthogonal {off:.2g}, torch's {theirs_off:.2g}",
    )


def whole_step(recordings: Recordings) -> Iterator[Row]:
    """The whole step of a net of many equal Stiefel layers beside torch's Muon."""
    recordings.settings.watch(f"whole-step: {recordings.deep.name}")
    yield whole_row(recordings.deep, recordings.settings)


def whole_row(problem: Problem, settings: Settings) -> Row:
    """The row of one net."""
    mine, theirs = contenders.ours(problem), contenders.torch_muon(problem)
    timings = _timed([each.contender(problem) for each in (mine, theirs)], settings)
    ratio = timings.ratio("ours", MUON)
    return _row(
        "whole-step",
        f"whole step / {MUON}, {problem.name}",
        timings,
        MUON,
        ratio,
        bar=f"≤ {WHOLE_BAR:g}",
        met=ratio.value <= WHOLE_BAR,
    )


def memory(recordings: Recordings) -> Iterator[Row]:
    """The memory that the optimiser holds between steps, and the memory that it needs during one."""
    deep = contenders.ours(recordings.deep)
    deep.restore(recordings.deep.moments[0])
    recordings.settings.watch("memory: 64 of 64×64")
    yield from memory_rows(recordings.deep.name, of_steps(deep.optimizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = perceptron((3072, 128, 64, 10))
    steps = training(net, recordings.images, steps=3, lr=0.1, share=1.0)
    optimizer = next(optimizer for step, optimizer in steps if step == 2)
    recordings.settings.watch("memory: 3072-128-64-10")
    yield from memory_rows("3072-128-64-10", of_steps(optimizer))


def memory_rows(name: str, found: StepMemory) -> Iterator[Row]:
    """The two rows of one net."""
    yield Row(
        "memory",
        f"state / momentum and one n×n dual a weight, {name}",
        unit="B",
        ours=found.state,
        theirs=found.allowed_state,
        ratio=found.state / found.allowed_state,
        bar="≤ 1",
        met=found.state <= found.allowed_state,
        note=f"weights {amount(found.weights, 'B')}",
    )
    yield Row(
        "memory",
        f"transient peak of a step / that of its largest batch, {name}",
        unit="B",
        ours=found.transient,
        theirs=found.largest,
        ratio=found.transient / found.largest,
        bar=f"≤ {MEMORY_TOLERANCE_FACTOR:g}",
        met=found.transient <= MEMORY_TOLERANCE_FACTOR * found.largest,
        note=f"{found.transient / found.weights:.1f} times the weights",
    )


def residual_drift(recordings: Recordings) -> Iterator[Row]:
    """How far weights are off their manifold over a long training."""
    settings = recordings.settings
    for dtype, bound in RESIDUALS.items():
        name = str(dtype).removeprefix("torch.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = perceptron((64, 16, 10))
        found = drift(
            net,
            digits_alone(),
            steps=settings.drift_steps,
            dtype=dtype,
            watch=lambda what: settings.watch(f"drift: {what}"),
        )
        yield Row(
            "drift",
            f"largest residual in {found.steps:,} steps, {name}",
            unit="",
            ours=found.largest,
            ratio=found.growth,
            bar=f"≤ {bound:g}, last tenth / first ≤ {MAX_RESIDUAL_GROWTH:g}",
            met=found.largest <= bound and found.growth <= MAX_RESIDUAL_GROWTH,
            note="the ratio is last / first tenth",
        )


BENCHES: Final[dict[str, Callable[[Recordings], Iterator[Row]]]] = {
    "manifold-muon": manifold_muon,
    "dual-ascent": dual_ascent,
    "plain-muon": plain_muon,
    "whole-step": whole_step,
    "memory": memory,
    "drift": residual_drift,
    "gpt-forward": gpt_forward,
}
"""Every benchmark by the name that `--only` takes. A new one is one function and one row here."""


def _timed(steppers: Sequence[Contender], settings: Settings) -> Timings:
    return interleave(steppers, rounds=settings.rounds, seconds=settings.seconds)


def _row(
    bench: str,
    what: str,
    timings: Timings,
    other: str,
    ratio: Ratio,
    *,
    bar: str = "",
    met: bool | None = None,
    note: str = "",
) -> Row:
    return Row(
        bench,
        what,
        ours=timings.median("ours"),
        theirs=timings.median(other),
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        bar=bar,
        met=met,
        note=note,
    )
