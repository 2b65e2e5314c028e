"""Lipschitz bounds of a network: what the manifolds promise, what today's weights prove, what was found."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from modular_manifolds.certificates.empirical import largest_slope
from modular_manifolds.certificates.rounding import largest_singular_value
from modular_manifolds.composition.space import Space, VectorNorm, check_vector_norm, conversion
from modular_manifolds.composition.table import format_table
from modular_manifolds.composition.tree import Leaf, Parallel, Scale, Series, Sum, Tree, leaves
from modular_manifolds.errors import SpaceError
from modular_manifolds.nn.module import Atom, Module, check_module


@dataclass(frozen=True)
class LipschitzRow:
    """One atom or bond, in the norms of its own spaces."""

    path: str
    label: str
    declared: float
    certified: float


@dataclass(frozen=True)
class LipschitzReport:
    """Three numbers for `‖f(x) − f(y)‖_output ≤ L ‖x − y‖_input`, and a row a module; `print` it.

    `declared` holds at every point of the product manifold; infinite where a manifold is unbounded.
    `certified` holds for the weights as they are now, exact arithmetic in the forward pass assumed.
    `empirical` is the largest slope found: no true bound lies below it.
    """

    input_norm: VectorNorm
    output_norm: VectorNorm
    declared: float
    certified: float
    empirical: float
    rows: tuple[LipschitzRow, ...]

    @property
    def tightness(self) -> float:
        """`certified / empirical`, at least 1."""
        return self.certified / self.empirical if self.empirical > 0 else math.inf

    def header(self) -> list[str]:
        """The names of the columns of `cells`."""
        return ["module", "kind", "declared", "certified"]

    def cells(self) -> list[list[float | str]]:
        """The rows as text and numbers, for a table."""
        return [[r.path or "(whole)", r.label, r.declared, r.certified] for r in self.rows]

    def __str__(self) -> str:
        unbounded = [row.path for row in self.rows if math.isinf(row.declared)]
        lines = [
            format_table(self.header(), self.cells()),
            f"from {self.input_norm} to {self.output_norm}: declared {self.declared:.6g}, certified "
            f"{self.certified:.6g}, empirical {self.empirical:.6g} (tightness {self.tightness:.3g})",
        ]
        if unbounded:
            lines.append(
                f"no bound is declared, because the weights of {', '.join(unbounded)} are on an unbounded "
                "manifold; put them on Stiefel, Sphere or Oblique to get one"
            )
        return "\n".join(lines)


def lipschitz(
    net: Module,
    *,
    input_norm: VectorNorm | None = None,
    output_norm: VectorNorm | None = None,
    points: Tensor | None = None,
    starts: int = 16,
    iterations: int = 30,
    seed: int = 0,
) -> LipschitzReport:
    """Bound the slope of `net` from `input_norm` to `output_norm`.

    The bound of a series is the product of the bounds of its parts, of a parallel or a sum their sum,
    of a scale |c| times; norms are converted at the two ends only. Certified: each weight's operator
    norm through `σ_max` in float64, rounded up, and no larger than the declared bound claims only if the
    weight is on its manifold.

    Args:
        net: a network from one space to another (not from or to a tuple).
        input_norm, output_norm: l2, rms, l1 or linf; the network's own by default.
        points: inputs of shape (batch, features) at which slopes are looked for; random ones by default.
        starts, iterations, seed: effort and seed of the search for the largest slope.

    Raises:
        ArgumentError: a norm is unknown or `net` is not a module of this library. SpaceError: the
        network takes any space, or takes or gives a tuple.
    """
    check_module(net, argument="lipschitz(net)")
    tree = net.tree()
    source, target = tree.signature.source, tree.signature.target
    if not isinstance(source, Space) or not isinstance(target, Space):
        raise SpaceError(
            "lipschitz(net)",
            "must map one space to one space",
            f"{source or 'any space'} to {target}",
            "Put an atom such as mm.Linear in front, or join the parts of the tuple with a sum.",
        )
    given = source.norm if input_norm is None else input_norm
    wanted = target.norm if output_norm is None else output_norm
    check_vector_norm(given, argument="input_norm")
    check_vector_norm(wanted, argument="output_norm")
    ends = conversion(given, source.norm, source.size) * conversion(
        target.norm, wanted, target.size
    )
    rows = tuple(
        LipschitzRow(leaf.path, leaf.label, leaf.lipschitz, _certified(net, leaf))
        for leaf in leaves(tree)
    )
    declared = {row.path: row.declared for row in rows}
    certified = {row.path: row.certified for row in rows}
    return LipschitzReport(
        input_norm=given,
        output_norm=wanted,
        declared=ends * _whole(tree, declared),
        certified=ends * _whole(tree, certified) * (1 + len(rows) * 2.0**-50),
        empirical=largest_slope(
            net,
            source,
            input_norm=given,
            output_norm=wanted,
            points=points,
            starts=starts,
            iterations=iterations,
            seed=seed,
        ),
        rows=rows,
    )


def _certified(net: Module, leaf: Leaf) -> float:
    """The leaf's bound for its weight as it is now; a bond's is the one it declares."""
    module = net.get_submodule(leaf.path) if leaf.weight is not None else None
    if not isinstance(module, Atom):
        return leaf.lipschitz
    return module.lipschitz_at(largest_singular_value(module.weight))


def _whole(tree: Tree, bounds: dict[str, float]) -> float:
    match tree:
        case Leaf():
            return bounds[tree.path]
        case Scale():
            return abs(tree.factor) * _whole(tree.part, bounds)
        case Series():
            return math.prod(_whole(part, bounds) for part in tree.parts)
        case Parallel() | Sum():
            return math.fsum(_whole(part, bounds) for part in tree.parts)
