"""The experiment of "Modular Manifolds" (Bernstein, 2025): three optimisers on one small network.

CIFAR-10, an MLP 3072-128-64-10 without biases, batches of 1024, three epochs, the learning rate
falling linearly to zero, no momentum. Manifold Muon (every weight on a Stiefel manifold, measured by
the spectral norm), hyperspherical descent (every weight on a sphere, measured by the Frobenius norm)
and AdamW, each over a grid of learning rates and three seeds.

    python examples/seed_experiment.py --data-path DIR

with DIR a folder with the Parquet files of `uoft-cs/cifar10`; without it they are downloaded. Every
finished run is a small JSON file under --out, so that an interrupted experiment goes on after them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn import functional

import modular_manifolds as mm

SIZES = (3072, 128, 64, 10)
GRIDS = {
    "manifold Muon": (0.025, 0.05, 0.1, 0.2, 0.4),
    "hyperspherical descent": (0.05, 0.1, 0.2, 0.4, 0.8),
    "AdamW": (5e-4, 1e-3, 2e-3, 3e-3, 4e-3, 8e-3),
}


@dataclass(frozen=True)
class Data:
    """Images as (count, 3072) normalised floats and labels as (count,) whole numbers."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass(frozen=True)
class Run:
    """One finished run: accuracies in percent, the singular values of each weight at the end."""

    method: str
    rate: float
    seed: int
    epochs: int
    train: float
    test: float
    singular_values: dict[str, list[float]]


def network(method: str) -> mm.Module:
    """The post's MLP with the method's geometry; AdamW ignores the geometry."""

    def layer(into: int, out: int) -> mm.Linear:
        if method == "hyperspherical descent":
            # As large as a point of the Stiefel manifold; at radius 1 the outputs would be too small.
            sphere = mm.Sphere(radius=math.sqrt(min(into, out)))
            return mm.Linear(into, out, manifold=sphere, norm=mm.Frobenius())
        return mm.Linear(into, out, manifold=mm.Stiefel(), norm=mm.Spectral())

    first, second, third = (layer(a, b) for a, b in itertools.pairwise(SIZES))
    return first >> mm.ReLU() >> second >> mm.ReLU() >> third


def optimizer(method: str, net: mm.Module, rate: float) -> torch.optim.Optimizer:
    """Every weight steps by `rate`, as in the post, which does not split it."""
    if method == "AdamW":
        for module in net.modules():
            if isinstance(module, mm.Linear):  # torch's own start, as in the post
                bound = 1 / math.sqrt(module.in_features)
                torch.nn.init.uniform_(module.weight, -bound, bound)
        return torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=0.0)
    opt = mm.SteepestDescent(net, lr=rate)
    for group in opt.param_groups:
        group["shares"] = [1.0] * len(group["params"])
    return opt


def train(
    method: str, rate: float, seed: int, data: Data, *, epochs: int = 3, batch: int = 1024
) -> Run:
    """One run; everything that is drawn is drawn from `seed`."""
    torch.manual_seed(seed)
    net = network(method)
    opt = optimizer(method, net, rate)
    steps = epochs * math.ceil(len(data.images) / batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 1 - step / steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(data.images)).split(batch):
            opt.zero_grad()
            functional.cross_entropy(net(data.images[chosen]), data.labels[chosen]).backward()
            opt.step()
            schedule.step()
    return Run(
        method,
        rate,
        seed,
        epochs,
        accuracy(net, data.images, data.labels),
        accuracy(net, data.test_images, data.test_labels),
        {
            path: torch.linalg.svdvals(p.detach().double()).tolist()
            for path, p in net.named_parameters()
        },
    )


@torch.no_grad()
def accuracy(net: mm.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of the images whose largest output is their label's."""
    return 100 * float((net(images).argmax(dim=1) == labels).float().mean())


def run_all(
    data: Data,
    out: Path,
    *,
    seeds: Iterable[int] = (42, 43, 44),
    epochs: int = 3,
    batch: int = 1024,
    grids: dict[str, tuple[float, ...]] | None = None,
    progress: Callable[[list[tuple[str, float, int]]], Iterable[tuple[str, float, int]]] = iter,
) -> list[Run]:
    """Every run that is not yet on disk, then all of them."""
    out.mkdir(parents=True, exist_ok=True)
    wanted = [
        (method, rate, seed)
        for method, rates in (grids or GRIDS).items()
        for rate in rates
        for seed in seeds
    ]
    runs: list[Run] = []
    for method, rate, seed in progress(wanted):
        file = out / f"{method.replace(' ', '-').lower()}-{rate:g}-{seed}.json"
        if not file.exists():
            done = train(method, rate, seed, data, epochs=epochs, batch=batch)
            temporary = file.with_suffix(".tmp")
            temporary.write_text(json.dumps(asdict(done)), encoding="utf-8")
            temporary.replace(file)
        runs.append(Run(**json.loads(file.read_text(encoding="utf-8"))))
    return runs


def mean(values: Iterable[float]) -> float:
    values = list(values)
    return math.fsum(values) / len(values)


def summary(runs: list[Run]) -> list[tuple[str, float, float, float, float]]:
    """Method, rate, mean train and test accuracy, and the spread of test over seeds, a row a rate."""
    rows: list[tuple[str, float, float, float, float]] = []
    for method, rate in dict.fromkeys((run.method, run.rate) for run in runs):
        same = [run for run in runs if (run.method, run.rate) == (method, rate)]
        tests = [run.test for run in same]
        rows.append(
            (method, rate, mean(run.train for run in same), mean(tests), max(tests) - min(tests))
        )
    return rows


def best(runs: list[Run], method: str) -> tuple[str, float, float, float, float]:
    """The row of `summary` with the method's best mean test accuracy."""
    return max((row for row in summary(runs) if row[0] == method), key=lambda row: row[3])


def off_one(runs: list[Run]) -> float:
    """How far any singular value of any manifold Muon run ended from one."""
    return max(
        abs(value - 1)
        for run in runs
        if run.method == "manifold Muon"
        for values in run.singular_values.values()
        for value in values
    )


def draw(runs: list[Run]) -> Figure:
    """Accuracy against learning rate, and the singular values at each method's best rate."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    colours = dict(zip(dict.fromkeys(run.method for run in runs), ("C0", "C2", "C3"), strict=False))
    for method, colour in colours.items():
        rows = [row for row in summary(runs) if row[0] == method]
        rates = [row[1] for row in rows]
        left.plot(rates, [row[3] for row in rows], "o-", color=colour, label=f"{method}, test")
        left.plot(rates, [row[2] for row in rows], "o--", color=colour, alpha=0.5, label="train")
    left.set(xscale="log", xlabel="learning rate", ylabel="accuracy (%)")
    left.set_title("Accuracy after training (mean over seeds)", fontsize=10)
    left.grid(alpha=0.25)
    left.legend(fontsize=7, ncols=2)
    seed = runs[0].seed
    for method, colour in colours.items():
        rate = best(runs, method)[1]
        run = next(r for r in runs if (r.method, r.rate, r.seed) == (method, rate, seed))
        for values, style in zip(run.singular_values.values(), ("-", "--", ":"), strict=True):
            position = [i / max(1, len(values) - 1) for i in range(len(values))]
            right.plot(position, values, style, color=colour)
    for colour, method in ((c, m) for m, c in colours.items()):
        right.plot([], [], "-", color=colour, label=method)
    for style, label in zip(("-", "--", ":"), ("3072→128", "128→64", "64→10"), strict=True):
        right.plot([], [], style, color="grey", label=label)
    right.set(yscale="log", xlabel="position (largest to smallest)", ylabel="singular value")
    right.set_title("Singular values at the end, at each method's best rate", fontsize=10)
    right.grid(alpha=0.25)
    right.legend(fontsize=7, ncols=2)
    return figure


def main(
    data_path: Annotated[
        Path | None, typer.Option(help="A folder with the Parquet files; downloaded without it.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where runs and the figure go.")] = Path(
        "runs/seed-experiment"
    ),
    seeds: Annotated[int, typer.Option(help="How many seeds, from 42 on.")] = 3,
    epochs: Annotated[int, typer.Option(help="Passes over the data.")] = 3,
) -> None:
    """Train every method at every rate, print the table and draw the figure."""
    from modular_manifolds.training.data import load_data

    loaded = load_data("cifar10", path=data_path)
    data = Data(loaded.train.images, loaded.train.labels, loaded.test.images, loaded.test.labels)
    runs = run_all(
        data,
        out,
        seeds=range(42, 42 + seeds),
        epochs=epochs,
        progress=lambda wanted: track(wanted, "training"),
    )
    table = Table("method", "rate", "train %", "test %", "spread over seeds")
    for method, rate, on_train, on_test, spread in summary(runs):
        table.add_row(method, f"{rate:g}", f"{on_train:.2f}", f"{on_test:.2f}", f"{spread:.2f}")
    console = Console()
    console.print(table)
    for method in GRIDS:
        row = best(runs, method)
        console.print(f"best {method}: {row[3]:.2f} % test at {row[1]:g}")
    console.print(f"manifold Muon's singular values end within {off_one(runs):.1e} of 1")
    draw(runs).savefig(out / "seed_experiment.png", dpi=150)
    console.print(f"figure: {out / 'seed_experiment.png'}")


if __name__ == "__main__":
    typer.run(main)
