"""The learning-rate budget: how one learning rate is split over all weights of a network."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modular_manifolds.arguments import NOT_NEGATIVE, check_number
from modular_manifolds.composition.radius import Radius, times, total
from modular_manifolds.composition.table import format_table
from modular_manifolds.composition.tree import (
    Leaf,
    Parallel,
    Scale,
    Series,
    Sum,
    Tree,
    reach,
    slope,
)


@dataclass(frozen=True)
class BudgetRow:
    """One weight's part of the learning rate.

    `share = (mass / total mass) / (downstream · norm_constant)` and `step = lr · share`, the length of
    the weight's step in its own norm. `downstream` is the product of the sensitivities between the
    module's output and the network's, |c| of the scales around it included. `radius` bounds the
    module's input when the network's input is in its unit ball, and is 1 for a weight that is added to
    its input, where the size of that does not matter. `slope` is as `downstream`, with the slope of each
    module for the sizes that arrive there in place of its sensitivity; the two differ only where a slope
    grows with the input or a bond declares a typical one. `contribution` bounds, per unit of learning rate, how far this weight's step moves
    the network's output to first order: `share · norm_constant · slope · radius`.
    """

    path: str
    manifold: str
    norm: str
    mass: float
    downstream: float
    norm_constant: float
    radius: float
    share: float
    step: float
    slope: float

    @property
    def contribution(self) -> float:
        return times(self.share, times(self.norm_constant * self.slope, self.radius))


@dataclass(frozen=True)
class Budget:
    """A row a weight, in the order in which data meets the weights; `print` it to read it."""

    lr: float
    rows: tuple[BudgetRow, ...]

    @property
    def first_order(self) -> float:
        """Bound on the output's first-order change in one step, per unit of learning rate.

        At most 1 where every module's input stays in its unit ball: then a step of learning rate η
        moves the output by at most η, to first order.
        """
        return math.fsum(row.contribution for row in self.rows)

    @property
    def shares(self) -> dict[str, float]:
        """Each weight's share, by path."""
        return {row.path: row.share for row in self.rows}

    def header(self) -> list[str]:
        """The names of the columns of `cells`."""
        return ["weight", "manifold", "norm", "mass", "downstream", "radius", "share", "step"]

    def cells(self) -> list[list[float | str]]:
        """The rows as text and numbers, for a table."""
        return [
            [r.path, r.manifold, r.norm, r.mass, r.downstream, r.radius, r.share, r.step]
            for r in self.rows
        ]

    def __str__(self) -> str:
        if not self.rows:
            return f"budget of lr={self.lr:g}: the network has no weights"
        lines = [format_table(self.header(), self.cells())]
        lines.append(
            f"lr={self.lr:g}: one step moves the output by at most {self.lr * self.first_order:.4g} "
            "to first order, for inputs in the unit ball"
        )
        return "\n".join(lines)


def allocate(tree: Tree, lr: float) -> Budget:
    """Split the learning rate `lr` over the weights of `tree`.

    A step of modular norm `lr` splits into one step a weight,
    `step_i = lr · (m_i / Σm) / (κ_i · Π sensitivities downstream of i)`.
    A weight of mass 0 gets share 0: it is frozen.

    Raises:
        ArgumentError: `lr` is not finite or is negative.
    """
    remedy = "Pass a learning rate such as 0.1."
    rate = check_number(lr, NOT_NEGATIVE, argument="lr", remedy=remedy)
    walk = _Walk(rate, tree.signature.mass)
    return Budget(rate, tuple(walk.rows(tree, downstream=1.0, behind=1.0, radius=1.0)))


@dataclass(frozen=True)
class _Walk:
    lr: float
    mass: float

    def rows(
        self, tree: Tree, *, downstream: float, behind: float, radius: Radius
    ) -> list[BudgetRow]:
        """The rows of `tree`, given the sensitivity and the slope of what is behind it."""
        match tree:
            case Leaf():
                if tree.weight is None:
                    return []
                return [self.row(tree, downstream, behind, total(radius))]
            case Scale():
                factor = abs(tree.factor)
                return self.rows(
                    tree.part, downstream=factor * downstream, behind=factor * behind, radius=radius
                )
            case Series():
                radii = [radius]
                for part in tree.parts[:-1]:
                    radii.append(reach(part, radii[-1]))
                rows: list[BudgetRow] = []
                for part, arriving in zip(reversed(tree.parts), reversed(radii), strict=True):
                    own = self.rows(part, downstream=downstream, behind=behind, radius=arriving)
                    rows = own + rows
                    downstream *= part.signature.sensitivity
                    behind = times(behind, slope(part, arriving))
                return rows
            case Parallel() | Sum():
                return [
                    row
                    for part in tree.parts
                    for row in self.rows(part, downstream=downstream, behind=behind, radius=radius)
                ]

    def row(self, leaf: Leaf, downstream: float, behind: float, radius: float) -> BudgetRow:
        assert leaf.weight is not None
        own = leaf.signature.mass
        share = own / self.mass / (downstream * leaf.norm_constant) if own > 0 else 0.0
        return BudgetRow(
            path=leaf.weight,
            manifold=leaf.manifold,
            norm=leaf.norm,
            mass=own,
            downstream=downstream,
            norm_constant=leaf.norm_constant,
            radius=1.0 if leaf.additive else radius,
            share=share,
            step=self.lr * share,
            slope=behind,
        )
