"""One learning rate for many models: the cost of the default rate beside the best rate of a grid.

Twelve models of different kinds learn small real tasks, each at every rate of the grid (`small_tasks/`): characters of a text,
one after the other, masked, or from one line to the next; photographs of CIFAR-10; and low-rank increments of a model that was
trained on another spelling. Each model is built from its configuration, with fresh weights as its authors draw them, and adapted
as it is:

    python examples/one_rate.py --text input.txt --images DIR --out results
    python examples/one_rate.py --text input.txt --only gpt2 llama --lr 0.25 0.5 1

Results are appended to a file of `--out`, and a result in that file is not computed again. The table at the end shows for every
model the best loss, and how far the loss at each rate lies above it. Needs the extra `test`, for transformers and peft.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import torch
from nanogpt import Text, cosine
from small_tasks.models import Task, loss_of, tasks
from torch.optim.lr_scheduler import LambdaLR

import modular_manifolds as mm

RATES: Final = (0.125, 0.25, 0.5, 1.0, 2.0)
VALIDATION_BATCHES: Final = 24

Point = tuple[str, float, int, int]
"""One training run: model, rate, steps and seed."""


class Results:
    """The losses of earlier runs, kept in a file with a line for each run.

    Args:
        folder: the folder of the file; None to keep nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.losses: dict[Point, float] = {}
        self._file = folder / "one_rate.jsonl" if folder else None
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            for line in self._file.read_text().splitlines() if self._file.exists() else ():
                entry = json.loads(line)
                point = (entry["model"], entry["lr"], entry["steps"], entry["seed"])
                self.losses[point] = entry["loss"]

    def keep(self, point: Point, loss: float) -> None:
        self.losses[point] = loss
        if self._file is not None:
            entry = dict(zip(("model", "lr", "steps", "seed"), point, strict=True), loss=loss)
            with self._file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(entry) + "\n")


def train(task: Task, lr: float, *, steps: int, seed: int) -> float:
    """The validation loss after `steps` steps; the rate rises, then falls along a cosine."""
    torch.manual_seed(seed)
    model = task.model()
    generator = torch.Generator().manual_seed(seed)
    first = task.train(generator)
    inputs = {key: value for key, value in first.items() if key != "labels"}
    plan = mm.adapt(model, example_inputs=inputs, progress=False)
    optimizer = mm.SteepestDescent(plan, lr, momentum=0.95, nesterov=True)
    schedule = LambdaLR(optimizer, cosine(steps))
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(model, task.train(generator)).backward()
        optimizer.step()
        schedule.step()
    model.eval()
    fixed = torch.Generator().manual_seed(0)
    with torch.no_grad():
        losses = [float(loss_of(model, task.valid(fixed))) for _ in range(VALIDATION_BATCHES)]
    return sum(losses) / len(losses)


def table(losses: Mapping[str, Mapping[float, float]], rates: Sequence[float]) -> str:
    """For each model the best loss, and how far above it the loss of each rate lies, in per cent."""
    lines = [" ".join(["model".ljust(12), "best loss", *(f"{rate:>8g}" for rate in rates)])]
    for name, row in losses.items():
        best = min(row.values())
        costs = [
            f"{100 * (row[rate] / best - 1):>7.1f}%" if math.isfinite(row[rate]) else "     inf"
            for rate in rates
        ]
        lines.append(" ".join([name.ljust(12), f"{best:9.3f}", *costs]))
    return "\n".join(lines)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One learning rate for many models.")
    parser.add_argument("--text", type=Path, required=True, help="a text in UTF-8")
    parser.add_argument("--images", type=Path, help="a folder with CIFAR-10 as Parquet files")
    parser.add_argument("--only", nargs="+", help="names of models")
    parser.add_argument("--lr", type=float, nargs="+", default=list(RATES))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a folder for results, to go on from")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[float, float]]:
    given = parse(arguments)
    every = tasks(Text.read(given.text), given.images)
    unknown = set(given.only or ()) - set(every)
    if unknown:
        raise SystemExit(f"--only takes {', '.join(every)}, and was {', '.join(sorted(unknown))}")
    results = Results(given.out)
    losses: dict[str, dict[float, float]] = {}
    for name in given.only or every:
        for lr in given.lr:
            point = (name, lr, given.steps, given.seed)
            if point not in results.losses:
                start = time.perf_counter()
                loss = train(every[name], lr, steps=given.steps, seed=given.seed)
                seconds = time.perf_counter() - start
                print(f"{name} at {lr:g}: {loss:.3f}, {seconds:.0f} s", flush=True)
                results.keep(point, loss)
            losses.setdefault(name, {})[lr] = results.losses[point]
    print(table(losses, given.lr))
    return losses


if __name__ == "__main__":
    main()
