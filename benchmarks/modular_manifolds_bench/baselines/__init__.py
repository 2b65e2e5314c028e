"""Published ways to solve Stiefel × Spectral, to compare the closed form with.

They are passed as instances: `mm.steepest(..., solver=Lyapunov(tolerance=1e-6))`, and so to `mm.SteepestDescent`.
"""

from __future__ import annotations

from typing import Final

from modular_manifolds.solvers.base import Solver
from modular_manifolds_bench.baselines.admm import ADMM as ADMM
from modular_manifolds_bench.baselines.dual_ascent import DualAscent as DualAscent
from modular_manifolds_bench.baselines.lyapunov import Lyapunov as Lyapunov
from modular_manifolds_bench.baselines.lyapunov_products import (
    LyapunovProducts as LyapunovProducts,
)
from modular_manifolds_bench.baselines.spel import SPEL as SPEL

BASELINES: Final[tuple[Solver, ...]] = (
    Lyapunov(),
    LyapunovProducts(),
    DualAscent(),
    ADMM(),
    SPEL(),
)
"""Each baseline with the settings that it was published with, or with those that suit most gradients."""
