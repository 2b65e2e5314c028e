"""Certified predictions for `modular-manifolds lipschitz`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from modular_manifolds.errors import ArgumentError

if TYPE_CHECKING:
    from modular_manifolds.certificates import RobustnessReport
    from modular_manifolds.nn import Module
    from modular_manifolds.specs import RunSpec
    from modular_manifolds.specs.data import DataSpec
    from modular_manifolds.training.data import DataSet

POINTS = 1000
"""Test examples that are certified unless another number is asked for: an attack takes its time."""


@dataclass(frozen=True)
class Question:
    """The question that was asked about predictions. `attack` None means that nothing was said of it: then there is one."""

    data: str | None
    path: Path | None
    radii: Sequence[str]
    points: int | None
    attack: bool | None

    @property
    def is_asked(self) -> bool:
        """Whether anything was."""
        return self != Question(None, None, (), None, None)

    @property
    def attacks(self) -> bool:
        """Whether the answer comes with an attack."""
        return self.attack is not False


def check_predictions(net: Module, run: RunSpec, question: Question) -> RobustnessReport:
    """Certify and attack the first test examples of the named data, the run's own without a name."""
    from modular_manifolds.certificates.attack import ProjectedGradient
    from modular_manifolds.certificates.certified_robustness import RADII
    from modular_manifolds.training.guarantees import certified_predictions

    radii = [*RADII, *(radius(each) for each in question.radii)]
    points = POINTS if question.points is None else question.points
    if points < 1:
        raise ArgumentError("--points", "must be at least 1", points, "Pass a number such as 1000.")
    data = _data(run.data, question)
    attack = ProjectedGradient() if question.attacks else None
    return certified_predictions(net, data, points=points, radii=radii, attack=attack)


def _data(own: DataSpec, question: Question) -> DataSet:
    """The data that were asked for; the run's own are read as the run read them."""
    from modular_manifolds.specs.data import OwnImagesSpec
    from modular_manifolds.training.data import load_data
    from modular_manifolds.training.own_images import read_own_images

    if question.data not in (None, own.name):
        return load_data(question.data or "", question.path)
    if isinstance(own, OwnImagesSpec):
        path = own.path if question.path is None else str(question.path)
        return read_own_images(own.model_copy(update={"path": path}))
    return load_data(own.name, question.path or own.path)


def show(console: Console, found: RobustnessReport) -> None:
    """Print the answer to a question."""
    from modular_manifolds.cli.tables import show_table

    console.print()
    show_table(console, "Predictions", found.header(), found.cells())
    for line in found.notes():
        console.print(line, soft_wrap=True)


def radius(text: str) -> float:
    """`0.5` or `36/255` as a number.

    Raises:
        ArgumentError: the text is neither.
    """
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        value = -1.0
    if value < 0:
        raise ArgumentError(
            "--radius", "must be a number of at least 0", repr(text), "Write 0.5 or 36/255."
        )
    return value
