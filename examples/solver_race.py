"""Every solver of Stiefel × Spectral on gradients from training: duality gap against time.

An MLP 3072-128-64-10 without biases is trained with momentum 0.95, every weight on the Stiefel manifold
with the spectral norm. Some pairs (weight, momentum) of the training are recorded. Then the solver and the baselines of
Stiefel × Spectral solve them with a growing number of iterations and without their stopping rules; a solver without
iterations gives one point. Solvers with scale-dependent settings run again with settings for these gradients.

    PYTHONPATH=benchmarks python examples/solver_race.py --data-path DIR

DIR holds the Parquet files of `uoft-cs/cifar10`; without it the bundled digits are enlarged to this size. The script
writes `solver_race.png` and a JSON file with its numbers.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from modular_manifolds_bench.baselines import ADMM, BASELINES, DualAscent
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.training.data import load_data
from modular_manifolds.training.figures import COLOURS, STYLE
from modular_manifolds.training.split import Split

SIZES = (3072, 128, 64, 10)
BUDGETS = (0, 1, 2, 3, 5, 10, 20, 50, 100)
MARKERS = "osD^vPX*"
SMALLEST_DRAWN_GAP = 1e-8
"""Smaller gaps are float32 rounding, and are drawn at this value of the logarithmic axis."""
MAX_REPEATED_SECONDS = 1.0
"""A solve that takes longer is not repeated."""
FITTED: dict[str, mm.solvers.Solver] = {
    "dual-ascent, gradient of norm 1": DualAscent(normalise=True),
    "admm, gradient of norm 1, ρ = 20": ADMM(rho=20.0, normalise=True),
}
"""Settings for gradients of this size. Of ρ = 1, 4, 10, 30, 100, … those between 10 and 30 were best."""


@dataclass(frozen=True)
class Problem:
    """A weight as a step met it, and the momentum that the step descended."""

    weight: str
    point: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Point:
    """Medians over the problems of one weight. `budget` is None for a solver without iterations.

    `method` is the solver's name with its non-default settings.
    """

    weight: str
    shape: tuple[int, int]
    method: str
    budget: int | None
    milliseconds: float
    gap: float


@dataclass(frozen=True)
class Race:
    """The measurements, and the data, threads and version of torch they were made with."""

    data: str
    threads: int
    torch: str
    points: tuple[Point, ...]


Entry = tuple[str, int | None, mm.solvers.Solver]
"""A method, its budget, and the solver with that budget set."""


TOLERANCES = (0.3, 0.1, 0.03, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""The tolerances of the closed form, which has no iterations to count."""


def digits() -> Split:
    """The bundled digits with as many numbers an image as CIFAR-10: 32×32 by interpolation, three times."""
    small = load_data("digits").train
    squares = small.images.reshape(-1, 1, 8, 8)
    large = functional.interpolate(squares, size=(32, 32), mode="bilinear", align_corners=False)
    return Split(large.expand(-1, 3, -1, -1).reshape(len(large), -1), small.labels)


def record(
    data: Split, *, sizes: Sequence[int] = SIZES, steps: int = 50, keep: int = 3, batch: int = 512
) -> list[Problem]:
    """Train for `steps` and keep `keep` of them, spread evenly up to the last."""
    torch.manual_seed(0)
    first, *others = (
        mm.Linear(a, b, manifold=mm.Stiefel(), norm=mm.Spectral())
        for a, b in itertools.pairwise(sizes)
    )
    net: mm.Module = first
    for layer in others:
        net = net >> mm.ReLU() >> layer
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.95)
    kept = {round((i + 1) * steps / keep) for i in range(keep)}
    problems: list[Problem] = []
    for step in range(1, steps + 1):
        chosen = torch.randint(len(data.images), (batch,))
        opt.zero_grad()
        functional.cross_entropy(net(data.images[chosen]), data.labels[chosen]).backward()
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        opt.step()
        if step in kept:
            for name, p in net.named_parameters():
                momentum = opt.state[p]["momentum"].clone()
                problems.append(Problem(name, before[name], momentum))
    return problems


def entries(budgets: Iterable[int]) -> list[Entry]:
    """Each solver of the table at each budget, with its stopping rule off; the closed form at each tolerance."""
    found: list[Entry] = []
    pair = mm.solvers.find_pair(mm.Stiefel(), mm.Spectral())
    methods = {each.name: each for each in (*pair.solvers, *BASELINES)} | FITTED
    for method, solver in methods.items():
        if isinstance(solver, mm.solvers.SkewSign):
            found += [
                (method, number, dataclasses.replace(solver, tolerance=tolerance))
                for number, tolerance in enumerate(TOLERANCES)
            ]
            continue
        settings = {field.name for field in dataclasses.fields(solver)}
        limit = next((each for each in ("max_iterations", "steps") if each in settings), None)
        if limit is None:
            found.append((method, None, solver))
            continue
        off = {"tolerance": 0.0} if "tolerance" in settings else {}
        for budget in budgets:
            limited = dataclasses.replace(solver, **{limit: budget}, **off)
            found.append((method, budget, limited))
    return found


def measure(solver: mm.solvers.Solver, problem: Problem, repeats: int) -> tuple[float, float]:
    """Median milliseconds of a solve, and the gap it ends with; a long solve is repeated less often."""
    seconds: list[float] = []
    gap = math.nan
    while len(seconds) < repeats and sum(seconds) < MAX_REPEATED_SECONDS:
        start = time.perf_counter()
        found = mm.steepest(
            mm.Stiefel(), mm.Spectral(), problem.point, problem.gradient, solver=solver
        )
        gap = float(found.gap)
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds), gap


def run(
    problems: Sequence[Problem],
    *,
    data: str,
    budgets: Iterable[int] = BUDGETS,
    repeats: int = 5,
    progress: Callable[[list[tuple[str, Entry]]], Iterable[tuple[str, Entry]]] = iter,
) -> Race:
    """Every solver at every budget on every problem."""
    by_weight: dict[str, list[Problem]] = {}
    for problem in problems:
        by_weight.setdefault(problem.weight, []).append(problem)
    shapes = {weight: _shape(same[0].point) for weight, same in by_weight.items()}
    wanted = [(weight, entry) for weight in by_weight for entry in entries(tuple(budgets))]
    points: list[Point] = []
    for weight, (method, budget, solver) in progress(wanted):
        measured = [measure(solver, problem, repeats) for problem in by_weight[weight]]
        milliseconds, gap = (statistics.median(each) for each in zip(*measured, strict=True))
        points.append(Point(weight, shapes[weight], method, budget, milliseconds, gap))
    return Race(data, torch.get_num_threads(), torch.__version__, tuple(points))


def _shape(weight: Tensor) -> tuple[int, int]:
    rows, columns = weight.shape
    return rows, columns


def draw(race: Race) -> Figure:
    """A panel a weight, a curve a solver; dashed if it has other settings than its defaults."""
    methods = list(dict.fromkeys(point.method for point in race.points))
    names = list(dict.fromkeys(method.split(",")[0] for method in methods))
    weights = list(dict.fromkeys((point.weight, point.shape) for point in race.points))
    with rc_context(STYLE):
        figure = Figure(figsize=(3.7 * len(weights), 4.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(1, len(weights), sharey=True, squeeze=False)[0]
        handles: dict[str, Line2D] = {}
        for axis, (weight, shape) in zip(axes, weights, strict=True):
            for method in methods:
                curve = [p for p in race.points if (p.weight, p.method) == (weight, method)]
                if not curve:
                    continue
                kind = names.index(method.split(",")[0])
                colour = COLOURS[kind % len(COLOURS)]
                (handles[method],) = axis.plot(
                    [point.milliseconds for point in curve],
                    [max(point.gap, SMALLEST_DRAWN_GAP) for point in curve],
                    "--" if method in FITTED else "-",
                    marker=MARKERS[kind % len(MARKERS)],
                    color=colour,
                    ms=5.5 if len(curve) > 1 else 10,
                    lw=1.3,
                    mfc="white" if method in FITTED else colour,
                    mec=colour if method in FITTED else "white",
                    mew=1.0 if method in FITTED else 0.6,
                    # A single point must not hide below the curves.
                    zorder=3 if len(curve) > 1 else 4,
                )
            axis.set(xscale="log", yscale="log", xlabel="time of a solve (ms)")
            axis.set_title(f"{shape[0]}×{shape[1]}")
        axes[0].set_ylabel("relative duality gap")
        order = [method for method in methods if method in handles]
        figure.legend(
            [handles[method] for method in order],
            order,
            loc="outside lower center",
            ncols=min(len(order), 4),
        )
        threads = "one thread" if race.threads == 1 else f"{race.threads} threads"
        figure.suptitle(
            f"Solvers of Stiefel × Spectral on momenta from training on {race.data} (CPU, {threads}, "
            f"torch {race.torch})",
            fontsize=10,
        )
        return figure


def write(race: Race, folder: Path) -> Path:
    """The figure and its numbers; a reader finds the old file or the whole new one."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = io.BytesIO()
    draw(race).savefig(picture, format="png", dpi=150)
    numbers = json.dumps(asdict(race), indent=1) + "\n"
    for name, content in (
        ("solver_race.json", numbers.encode()),
        ("solver_race.png", picture.getvalue()),
    ):
        temporary = folder / f"{name}.tmp"
        temporary.write_bytes(content)
        temporary.replace(folder / name)
    return folder / "solver_race.png"


def main(
    data_path: Annotated[
        Path | None,
        typer.Option(help="A folder with CIFAR-10's Parquet files; the bundled digits without it."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the figure and its numbers go.")] = Path(
        "docs/figures"
    ),
    threads: Annotated[int, typer.Option(help="Of torch, in training and in the race.")] = 2,
    steps: Annotated[int, typer.Option(help="Training steps.")] = 50,
    repeats: Annotated[
        int, typer.Option(help="Solves of each problem, of which the median is taken.")
    ] = 5,
) -> None:
    """Train, run every solver on the recorded problems, and draw the figure."""
    torch.set_num_threads(threads)
    if data_path is None:
        data, name = digits(), "the bundled digits, enlarged to 3072 numbers an image"
    else:
        data, name = load_data("cifar10", path=data_path).train, "CIFAR-10"
    problems = record(data, steps=steps)
    race = run(
        problems,
        data=name,
        repeats=repeats,
        progress=lambda wanted: track(wanted, "solving"),
    )
    Console().print(f"figure: {write(race, out)}")


if __name__ == "__main__":
    typer.run(main)
