"""The one table of what the laws are tried on: manifolds, norms, solvers, modules, shapes, precisions.

A new manifold, norm, atom or bond is one row here; a new pair in `solvers/table.py` is picked up by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from modular_manifolds_bench.baselines import (
    ADMM,
    BASELINES,
    DualAscent,
    Lyapunov,
    LyapunovProducts,
)

import modular_manifolds as mm
from modular_manifolds.errors import ShapeError
from modular_manifolds.solvers import NormSteepest, Pair, Solver, pairs
from modular_manifolds.testing import Sample

SHAPES = [(1, 1), (1, 5), (5, 1), (6, 3), (4, 4), (2, 3, 5, 4), (2, 3, 2, 7), (7,)]
"""One entry, a row, a column, tall, square, stacks of tall and of wide matrices, a vector."""

DTYPES = [torch.float64, torch.float32]
"""float64 is the oracle; the tolerance of a Sample follows its dtype."""

ROOMS = [(shape, torch.float64) for shape in SHAPES] + [
    (shape, torch.float32) for shape in [(6, 3), (3, 6), (4, 4), (2, 3, 5, 4)]
]
"""Where the laws are tried: everywhere in float64, at fewer shapes in float32."""

MANIFOLDS: list[mm.Manifold] = [
    mm.Euclidean(),
    mm.Sphere(),
    mm.Sphere(radius=2.5),
    mm.Oblique(),
    mm.Oblique(radius=0.3),
    mm.Stiefel(),
    mm.Stiefel(radius=1.7),
    mm.BalancedRows(),
    mm.BalancedRows(radius=1.4),
    mm.FixedGram(),
    mm.FixedGram(radius=2.2),
    mm.SpectralBall(),
    mm.SpectralBall(radius=2.2),
    mm.SpectralSphere(),
    mm.SpectralSphere(radius=0.6),
]


def fits(manifold: mm.Manifold, shape: tuple[int, ...]) -> bool:
    """Whether the manifold has points of this shape."""
    try:
        manifold.check_shape(shape)
    except ShapeError:
        return False
    return True


NORMS: list[mm.Norm] = [
    mm.Frobenius(),
    mm.Max(),
    mm.Spectral(),
    mm.RMSOperator(),
    mm.RowRMS(),
]


@dataclass(frozen=True)
class SolverCase:
    """One solver of one pair of the table, on one instance of its manifold."""

    manifold: mm.Manifold
    norm: mm.Norm
    solver: Solver

    @property
    def accuracy(self) -> float:
        """How far a direction may be off: only a norm's own polynomial `msign` is approximate."""
        return self.norm.accuracy if isinstance(self.solver, NormSteepest) else 0.0

    @property
    def scale_free(self) -> bool:
        """Whether the direction may not depend on the size of the gradient."""
        return not (isinstance(self.solver, DualAscent | ADMM) and not self.solver.normalise)

    @property
    def rooms(self) -> list[tuple[tuple[int, ...], torch.dtype]]:
        """Where the case is tried: solvers see matrices.

        Another radius or another unit of the same norm changes little, and a solver of a hundred rounds is slow: for
        these a tall matrix, a wide one and a stack are enough.
        """
        matrices = [
            (shape, dtype)
            for shape, dtype in ROOMS
            if len(shape) > 1 and fits(self.manifold, shape)
        ]
        other_radius = self.manifold != instances(type(self.manifold))[0]
        if isinstance(self.solver, DualAscent):
            few = [((3, 6), torch.float32)]
            return few if other_radius else [((6, 3), torch.float64), ((2, 3, 5, 4), torch.float32)]
        if isinstance(self.solver, LyapunovProducts):
            few = [((6, 3), torch.float64), ((3, 6), torch.float32)]
            return few if other_radius else [*few, ((2, 3, 2, 7), torch.float64)]
        other_unit = isinstance(self.norm, mm.RMSOperator) and isinstance(self.manifold, mm.Stiefel)
        few = {(6, 3), (3, 6), (2, 3, 5, 4)}
        return (
            [room for room in matrices if room[0] in few]
            if other_radius or other_unit
            else matrices
        )

    def sample(self, shape: tuple[int, ...], dtype: torch.dtype) -> Sample:
        return Sample(shape, dtype, accuracy=self.accuracy)

    def __str__(self) -> str:
        return f"{self.manifold} × {self.norm}: {self.solver.name}"


def solver_cases() -> Iterator[SolverCase]:
    """Every solver of every pair, on every instance of the manifold above."""
    for pair in pairs():
        for solver in solvers(pair):
            for each in instances(pair.manifold):
                yield SolverCase(each, pair.norm(), solver)


def solvers(pair: Pair) -> list[Solver]:
    """The solvers of a pair, its default first, and its baselines."""
    baselines = [each for each in BASELINES if each.serves(pair.manifold(), pair.norm())]
    return [*pair.solvers, *baselines]


def instances(kind: type[mm.Manifold]) -> list[mm.Manifold]:
    """The rows of MANIFOLDS of one kind."""
    found = [manifold for manifold in MANIFOLDS if type(manifold) is kind]
    assert found, f"{kind.__name__} is in the table of pairs and has no row in tests/cases.py"
    return found


SOLVERS: list[SolverCase] = list(solver_cases())


def is_usual(case: SolverCase) -> bool:
    """Whether a plain run tries the case in slow tests too: one radius, one of the two spectral norms, no baseline of many rounds."""
    return (
        case.manifold == instances(type(case.manifold))[0]
        and not isinstance(case.norm, mm.RMSOperator)
        and not isinstance(case.solver, ADMM | DualAscent | Lyapunov | LyapunovProducts)
    )


@dataclass(frozen=True)
class ModuleCase:
    """A module that takes vectors, or tuples of vectors of given sizes.

    `tight` says that some input is stretched by the declared sensitivity, so that a smaller one must be
    refuted.
    """

    build: Callable[[], mm.Module]
    tight: bool = True

    def __str__(self) -> str:
        return self.build().tree().where


MODULES: list[ModuleCase] = [
    ModuleCase(lambda: mm.Linear(5, 4)),
    ModuleCase(lambda: mm.Linear(3, 6, norm=mm.RMSOperator())),
    ModuleCase(lambda: mm.Linear(5, 4, source_norm="linf", target_norm="l1"), tight=False),
    ModuleCase(lambda: mm.Embedding(6, 4)),
    ModuleCase(lambda: mm.Conv2d(2, 3, 2, size=(4, 2), stride=2)),
    ModuleCase(lambda: mm.Conv2d(2, 4, 3, size=3, padding=1, groups=2), tight=False),
    ModuleCase(lambda: mm.Bias(4, vector_norm="rms")),
    ModuleCase(lambda: mm.Gain(4, vector_norm="linf")),
    ModuleCase(mm.Identity),
    ModuleCase(mm.ReLU),
    ModuleCase(mm.Abs),
    ModuleCase(mm.MaxMin),
    ModuleCase(mm.GELU),
    ModuleCase(mm.SiLU),
    ModuleCase(lambda: mm.RMSNorm(5)),
    ModuleCase(lambda: mm.RMSNorm(3, eps=0.1, vector_norm="l2")),
    ModuleCase(lambda: mm.MeanPool(2, 2, size=4)),
    ModuleCase(lambda: mm.MaxPool(2, 2, size=4)),
    ModuleCase(lambda: mm.MaxPool(1, 2, size=3, stride=1)),
    ModuleCase(lambda: mm.Dropout(0.3).eval(), tight=False),
    ModuleCase(mm.Flatten),
    ModuleCase(lambda: mm.Heads(8, 2, 4)),
    ModuleCase(lambda: mm.MergeHeads(2, 4), tight=False),
    ModuleCase(lambda: mm.Rotary(4)),
    # Its slope is not the sensitivity: a factor that is too small is planted in its own test.
    ModuleCase(lambda: mm.Amplify(-3.0, typical=0.5), tight=False),
    # Its bound is a function of the sizes: a number that is too small is planted in its own test.
    ModuleCase(lambda: mm.CausalAttention(4), tight=False),
]


@dataclass(frozen=True)
class Trying:
    """`with Trying(...)`: an error from inside says which of a test's many cases it met."""

    what: tuple[object, ...]

    def __init__(self, *what: object) -> None:
        object.__setattr__(self, "what", what)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        del kind, trace
        if error is not None:
            error.add_note(f"while trying {', '.join(map(name, self.what))}")


Net = TypeVar("Net", bound=mm.Module)


def in_double(net: Net) -> Net:
    """The network in float64, its weights on their manifolds to float64's rounding."""
    net.double()
    with torch.no_grad():
        points = net.manifold.project({path: p.detach() for path, p in net.named_parameters()})
        for path, p in net.named_parameters():
            p.copy_(points[path])
    return net


def name(value: object) -> str:
    """How a case reads in the list of tests."""
    match value:
        case torch.dtype():
            return str(value).removeprefix("torch.")
        case tuple() if all(isinstance(size, int) for size in value):
            return "x".join(map(str, value))
        case _ if callable(value) and not isinstance(value, type):
            return getattr(value, "__name__", str(value))
        case _:
            return str(value)
