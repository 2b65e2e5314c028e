"""Published ways to solve Stiefel × Spectral, to compare the closed form with.

No pair takes them by default. They are imported if one is asked for: by name, `mm.steepest(..., solver="lyapunov")`, or
as an instance, `mm.solvers.baselines.Lyapunov(tolerance=1e-6)`.
"""

from __future__ import annotations

from typing import Final

from modular_manifolds.solvers.base import Solver
from modular_manifolds.solvers.baselines.admm import ADMM as ADMM
from modular_manifolds.solvers.baselines.dual_ascent import DualAscent as DualAscent
from modular_manifolds.solvers.baselines.lyapunov import Lyapunov as Lyapunov
from modular_manifolds.solvers.baselines.lyapunov_products import (
    LyapunovProducts as LyapunovProducts,
)
from modular_manifolds.solvers.baselines.spel import SPEL as SPEL

BASELINES: Final[tuple[Solver, ...]] = (
    Lyapunov(),
    LyapunovProducts(),
    DualAscent(),
    ADMM(),
    SPEL(),
)
"""Each baseline with the settings that it was published with, or with those that suit most gradients."""
