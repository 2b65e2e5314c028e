"""One call for the figure of a report or a run."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from modular_manifolds.adaptation import ModelPlan
from modular_manifolds.certificates import ConditioningReport, RobustnessReport
from modular_manifolds.composition import Budget
from modular_manifolds.errors import ArgumentError
from modular_manifolds.training import figures
from modular_manifolds.training.run_directory import RunDirectory


def plot(
    report: Budget | ModelPlan | ConditioningReport | RobustnessReport | RunDirectory | Path | str,
) -> Figure:
    """Draw a report or a finished run; a notebook shows the figure, and `figure.savefig(file)` keeps it.

    - A budget or a plan: the length of each weight's step, as bars. The plan's bars are for a learning rate of 1.
    - A report on conditioning: the range of singular values of each weight.
    - A report on robustness: certified accuracy by radius.
    - A run directory, or its path: loss and accuracy by step.

    Args:
        report: the result of `mm.budget`, `mm.adapt`, `mm.conditioning` or `mm.robustness`, or the folder of a run that
            `modular-manifolds train` made.

    Returns:
        A matplotlib figure. `matplotlib.pyplot` is neither imported nor changed.

    Raises:
        ArgumentError: there is no figure for `report`, or it has no rows.
        CheckpointError: the folder is no run directory.
    """
    match report:
        case Budget(rows=rows) if rows:
            return figures.steps(report)
        case ModelPlan(rows=rows) if rows:
            return figures.steps(report.budget())
        case ConditioningReport(rows=rows) if rows:
            return figures.spectra(report)
        case RobustnessReport():
            return figures.certified(report)
        case RunDirectory():
            return _run(report)
        case Path() | str():
            return _run(RunDirectory(Path(report)))
        case Budget() | ModelPlan() | ConditioningReport():
            raise ArgumentError(
                "plot(report)", "must have a row", "no weights", "Plot a network with weights."
            )
        case _:
            raise ArgumentError(
                "plot(report)",
                "must be a budget, a plan, a report on conditioning or robustness, or a run directory",
                type(report).__name__,
                "Print other reports: they are tables.",
            )


def _run(directory: RunDirectory) -> Figure:
    directory.read_run()
    metrics = directory.read_metrics()
    if not metrics:
        raise ArgumentError(
            "plot(report)",
            "must be a run that has taken steps",
            str(directory.path),
            "Go on with it by `modular-manifolds train --resume`.",
        )
    return figures.learning(metrics)
