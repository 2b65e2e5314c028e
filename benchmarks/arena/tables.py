"""Markdown tables of the studies. Missing numbers are dashes, so a table can be printed at any time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median, stdev

from arena.arms import ARMS
from arena.cells import Cell, Standing, Tuned
from arena.result import Result

MISSING = "–"


def compare_table(task: str, standings: Sequence[Standing]) -> str:
    """Every arm of a task at its best values."""
    target = _target(standings)
    free = [each.repeats for each in standings if not ARMS[each.tuned.cell.arm].constrained]
    best = min((each for each in free if each), key=_mean, default=())
    header = [
        "arm",
        "best rates; scale",
        "final loss",
        "to the best unconstrained",
        "steps to target",
        "loss at 1×, 2×, 4×",
        "largest σ",
        "condition, median (largest)",
        "runs",
    ]
    rows = []
    for each in standings:
        rows.append(
            [
                ARMS[each.tuned.cell.arm].title,
                best_values(each.tuned),
                _spread(each.repeats),
                _ratio(each.repeats, best),
                _steps(each.repeats, target),
                _larger(each),
                text_of(_mean_of(each.repeats, "largest"), ".3g"),
                _conditions(each.repeats),
                f"{len(each.tuned.losses)} of {each.tuned.wanted}, {len(each.repeats)}",
            ]
        )
    size = standings[0].tuned.cell
    words = (
        f"{task}: width {size.width}, depth {size.depth}, {size.steps} steps of {size.batch}. Final losses are means of "
        "fresh seeds with their standard deviation, ratios have their standard error; losses at 1×, 2× and 4× the best rate have the seeds of tuning. "
    )
    if target is not None:
        words += f"Target: {target:.4g}, the end of AdamW's better arm on the curve's batches. "
    return f"{words}Runs: tuning runs that are there, and fresh seeds.\n\n{markdown(header, rows)}"


def default_table(task: str, rows: Sequence[tuple[Standing, tuple[Result, ...]]]) -> str:
    """The values that a user would try first beside the tuned ones."""
    header = ["arm", "default", "loss at the default", "tuned", "tuned loss", "cost"]
    cells = []
    for standing, results in rows:
        arm = ARMS[standing.tuned.cell.arm]
        known = results and standing.repeats
        cost = 100 * (_mean(results) / _mean(standing.repeats) - 1) if known else None
        cells.append(
            [
                arm.title,
                _values(arm.default),
                _spread(results),
                best_values(standing.tuned),
                _spread(standing.repeats),
                text_of(cost, ".1f", " %"),
            ]
        )
    return f"{task}: default rates and scales beside tuned ones\n\n{markdown(header, cells)}"


def time_table(task: str, size: Cell, rows: Sequence[tuple[str, tuple[Result, ...]]]) -> str:
    """The price of a step, in milliseconds."""
    header = ["arm", "step", "the optimiser's part", "processor time", "processor time to AdamW's"]
    unit = _median_of(dict(rows).get("adamw", ()), "cpu_seconds")
    cells = []
    for arm, results in rows:
        processor = _median_of(results, "cpu_seconds")
        ratio = None if processor is None or unit is None else processor / unit
        times = (_median_of(results, f"{name}_seconds") for name in ("step", "optimizer", "cpu"))
        milliseconds = [text_of(None if each is None else 1e3 * each, ".1f") for each in times]
        cells.append([ARMS[arm].title, *milliseconds, text_of(ratio, ".2f")])
    return (
        f"{task}: milliseconds of a step, medians of {size.steps} steps and of runs in turn; width {size.width}, depth "
        f"{size.depth}, batch {size.batch}\n\n{markdown(header, cells)}"
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _target(standings: Sequence[Standing]) -> float | None:
    """The end of the better AdamW arm: a mean over seeds, on the batches of the curves."""
    ends = [
        _mean_of(each.repeats, "end")
        for each in standings
        if each.tuned.cell.arm.startswith("adamw")
    ]
    return min((end for end in ends if end is not None), default=None)


def _values(values: Sequence[float]) -> str:
    return ", ".join(_value(each) for each in values)


def _value(value: float) -> str:
    notches = 2 * math.log2(value)
    return f"2^{round(notches) / 2:g}" if abs(notches - round(notches)) < 1e-6 else f"{value:g}"


def best_values(tuned: Tuned) -> str:
    if not tuned.losses:
        return MISSING
    # A star marks a best point with neighbours that were not tried.
    return _values(tuned.values) + ("" if tuned.is_bracketed else "*")


def _losses(results: Sequence[Result]) -> list[float]:
    return [math.inf if each.loss is None else each.loss for each in results]


def _mean(results: Sequence[Result]) -> float:
    return fmean(_losses(results)) if results else math.nan


def _mean_of(results: Sequence[Result], field: str) -> float | None:
    values = [getattr(each, field) for each in results]
    return fmean(values) if values and None not in values else None


def _median_of(results: Sequence[Result], field: str) -> float | None:
    values = [value for each in results if (value := getattr(each, field)) is not None]
    return median(values) if values else None


def _spread(results: Sequence[Result]) -> str:
    losses = _losses(results)
    if not losses or not all(map(math.isfinite, losses)):
        return "diverged" if losses else MISSING
    spread = f" ± {stdev(losses):.4f}" if len(losses) > 1 else ""
    return f"{fmean(losses):.4f}{spread}"


def _steps(results: Sequence[Result], target: float | None) -> str:
    if target is None or not results:
        return MISSING
    steps = [each.steps_to(target) for each in results]
    reached = [each for each in steps if each is not None]
    if len(reached) < len(steps):
        return f"{len(reached)} of {len(steps)} reach it"
    return f"{fmean(reached):.0f}"


def _ratio(results: Sequence[Result], best: Sequence[Result]) -> str:
    """The ratio of two means, with its standard error if both have more than one seed."""
    if not results or not best:
        return MISSING
    ratio = _mean(results) / _mean(best)
    if results is best or min(len(results), len(best)) < 2 or not math.isfinite(ratio):
        return f"{ratio:.3f}"
    errors = [stdev(_losses(each)) / math.sqrt(len(each)) / _mean(each) for each in (results, best)]
    return f"{ratio:.3f} ± {ratio * math.hypot(*errors):.3f}"


def _larger(standing: Standing) -> str:
    first = standing.tuned.loss if standing.tuned.losses else None
    return ", ".join(text_of(x, ".3f") for x in (first, standing.doubled, standing.quadrupled))


def _conditions(results: Sequence[Result]) -> str:
    typical = [each.condition for each in results if each.condition is not None]
    worst = [each.worst_condition for each in results]
    if not typical:
        return MISSING
    known = [each for each in worst if each is not None]
    top = max(known) if len(known) == len(worst) else math.inf
    return f"{median(typical):.3g} ({top:.3g})"


def text_of(value: float | None, form: str, unit: str = "") -> str:
    return MISSING if value is None else f"{value:{form}}{unit}"
