"""The command: runs what is missing, one file for each run, and prints the tables of what is there."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from arena.arms import ARMS
from arena.cells import Effort, Look
from arena.data import Sources
from arena.result import Result
from arena.settings import Settings
from arena.store import Store
from arena.studies import STUDIES, Choice
from arena.tasks import TASKS
from arena.train import train
from arena.transfer import Transfer
from modular_manifolds.specs.whole import write_whole

QUICK_STEPS = 10
"""The number of steps of `--quick`."""

EFFORT = Effort(runs=14, seeds=3)

QUICK_EFFORT = Effort(runs=3, seeds=1)

DESCRIPTION = """Optimisers beside each other on plain torch models, each arm at its own best learning rate.

Each arm gets the same number of runs for each of its values (rates, and the scale of a manifold), on a grid of factors of 2,
then of √2. Fresh seeds repeat the best values.
Every run is one JSON file; what is there is not run again, so an interrupted arena goes on. Tables are Markdown, on the
standard output."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the studies, or only print their tables."""
    parser = _parser()
    given = parser.parse_args(arguments)
    store, sources = Store(given.out), Sources(given.text, given.images)
    said = {name: getattr(given, name) for name in ("runs", "seeds", "tuning_seeds")}
    usual = QUICK_EFFORT if given.quick else EFFORT
    effort = replace(usual, **{name: n for name, n in said.items() if n is not None})
    steps = given.steps or (QUICK_STEPS if given.quick else None)
    choice = Choice(
        given.tasks or list(TASKS), given.arms or list(ARMS), effort, steps, given.device
    )
    look: Look = store.read if given.table else trainer(store, sources)
    for name in given.studies:
        for table in STUDIES[name](choice, look):
            print(f"{table}\n", flush=True)
            if given.figures and isinstance(table, Transfer):
                given.figures.mkdir(parents=True, exist_ok=True)
                file = given.figures / f"{table.task}_{table.field}.svg"
                write_whole(file, table.picture())


def trainer(store: Store, sources: Sources) -> Look:
    """A function that reads a result, or trains and keeps it."""

    def look(settings: Settings) -> Result:
        known = store.read(settings)
        if known is not None:
            return known
        start = time.perf_counter()
        result = train(settings, sources)
        store.write(settings, result)
        values = ", ".join(f"{value:.5g}" for value in settings.values)
        loss = "diverged" if result.loss is None else f"{result.loss:.4f}"
        print(
            f"{settings.task}, width {settings.width}, depth {settings.depth}, {settings.arm} at {values}, "
            f"seed {settings.seed}: {loss}, {time.perf_counter() - start:.1f} s",
            file=sys.stderr,
            flush=True,
        )
        return result

    return look


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got {text!r}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="arena", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tasks", nargs="+", choices=TASKS, metavar="TASK", help=f"all of {', '.join(TASKS)}")
    add("--arms", nargs="+", choices=ARMS, metavar="ARM", help=f"all of {', '.join(ARMS)}")
    add("--studies", nargs="+", choices=STUDIES, default=["compare"], help="by default: compare")
    add("--text", type=Path, help="a text in UTF-8, for gpt")
    add("--images", type=Path, help="a folder with CIFAR-10's Parquet files")
    add("--out", type=Path, default=Path("arena_results"), help="the folder of results")
    add("--steps", type=positive, help="the steps of a run; by default the task's")
    add("--runs", type=positive, help="the runs that tune a value, by default 14")
    add("--seeds", type=positive, help="fresh seeds at the best values, by default 3")
    add("--tuning-seeds", type=positive, help="seeds whose mean loss decides, by default 1")
    add("--device", default="cpu", help="cpu or cuda")
    add("--quick", action="store_true", help="10 steps, 3 tuning runs a value and 1 seed: a trial")
    add("--figures", type=Path, help="a folder for curves of the studies width, depth and length")
    add("--table", action="store_true", help="print tables of what is there, and train nothing")
    return parser
