"""A report on a network's predictions: clean accuracy, certified accuracy, and accuracy under attack."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modular_manifolds.tables import Printable, Table


@dataclass(frozen=True)
class RobustnessRow:
    """One radius: the certified fraction of all points, and the fraction that is still correct under attack."""

    radius: float
    certified: float
    attacked: float | None


@dataclass(frozen=True)
class RobustnessReport(Printable):
    """Clean accuracy, and certified accuracy at l2 radii; `print` it.

    `radii` has one radius for each point: at every smaller distance the point's label stays the largest output. It is 0 for
    a wrong prediction or a tie. `lipschitz` is the certified bound from l2 to l2 in the network's own input, and `shortest`
    a lower bound on the length of one unit of the input in `unit`. `unbounded` names the modules with infinite bounds.
    """

    clean: float
    rows: tuple[RobustnessRow, ...]
    radii: tuple[float, ...]
    lipschitz: float
    shortest: float
    unit: str
    pairs: bool
    attack: str | None
    unbounded: tuple[str, ...]

    def certified(self, radius: float) -> float:
        """The fraction of the points that is certified at `radius`."""
        return sum(each > radius for each in self.radii) / len(self.radii)

    def header(self) -> list[str]:
        """The names of the columns of `cells`."""
        return ["l2 radius", "certified"] + (["under attack"] if self.attack else [])

    def cells(self) -> list[list[float | str]]:
        """The rows as texts, for a table; the first is the clean accuracy."""
        clean = _percent(self.clean)
        cells: list[list[float | str]] = [["0 (clean)", clean, *([clean] if self.attack else [])]]
        for row in self.rows:
            attacked = [] if row.attacked is None else [_percent(row.attacked)]
            cells.append([radius_text(row.radius), _percent(row.certified), *attacked])
        return cells

    def notes(self) -> list[str]:
        """The meaning of the numbers, and advice if nothing is certified."""
        lines = [
            f"{len(self.radii)} points; radii in {self.unit}; a step of 1 in the network's input is at least "
            f"{self.shortest:.4g} of them; certified Lipschitz bound {self.lipschitz:.6g}",
            "margins by the pairs of the last weight's rows"
            if self.pairs
            else "margins over √2 times the bound",
        ]
        if self.attack:
            lines.append(f"attack: {self.attack}; no certified point fell")
        if math.isinf(self.lipschitz):
            culprits = ", ".join(self.unbounded) or "a product of bounds that overflows"
            lines.append(
                f"nothing is certified, because the bound is infinite: {culprits}; replace a bond without a "
                "finite sensitivity by one that has it, and put weights on Stiefel or SpectralBall"
            )
        return lines

    def printed(self) -> list[Table | str]:
        """The table, and the notes below it."""
        return [Table(self.header(), self.cells()), *self.notes()]


def radius_text(radius: float) -> str:
    """A radius as a text: 36/255 if that is shorter than its decimals."""
    short = f"{radius:.4g}"
    levels = radius * 255
    if float(short) != radius and abs(levels - round(levels)) < 1e-9:
        return f"{round(levels)}/255"
    return short


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"
