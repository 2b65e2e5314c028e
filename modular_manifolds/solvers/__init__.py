"""Steepest directions: one interface, one file a method, one table of pairs."""

from typing import TYPE_CHECKING, Any

from modular_manifolds.solvers.base import Solver as Solver
from modular_manifolds.solvers.closed_form import NormSteepest as NormSteepest
from modular_manifolds.solvers.closed_form import RowTangentGradient as RowTangentGradient
from modular_manifolds.solvers.closed_form import TangentGradient as TangentGradient
from modular_manifolds.solvers.plan import Plan as Plan
from modular_manifolds.solvers.selection import Choice as Choice
from modular_manifolds.solvers.selection import find_solver as find_solver
from modular_manifolds.solvers.selection import select as select
from modular_manifolds.solvers.selection import steepest as steepest
from modular_manifolds.solvers.skew_sign import SkewSign as SkewSign
from modular_manifolds.solvers.solution import Solution as Solution
from modular_manifolds.solvers.solution import Status as Status
from modular_manifolds.solvers.spectral_sphere import SpectralSphereDual as SpectralSphereDual
from modular_manifolds.solvers.table import BASELINES_MOVED
from modular_manifolds.solvers.table import TABLE as TABLE
from modular_manifolds.solvers.table import Pair as Pair
from modular_manifolds.solvers.table import find_pair as find_pair
from modular_manifolds.solvers.table import pairs as pairs
from modular_manifolds.solvers.table import register as register
from modular_manifolds.solvers.weighted_median import WeightedMedian as WeightedMedian

if not TYPE_CHECKING:
    # Type checkers would take any name of a module that has this function.
    def __getattr__(name: str) -> Any:
        moved = ""
        if name in (
            "baselines",
            "reference",
            "ADMM",
            "SPEL",
            "DualAscent",
            "Lyapunov",
            "LyapunovProducts",
        ):
            moved = f": {BASELINES_MOVED}"
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{moved}")
