"""Steepest directions: one interface, one file a method, one table of pairs."""

from modular_manifolds.solvers.admm import ADMM as ADMM
from modular_manifolds.solvers.base import Solver as Solver
from modular_manifolds.solvers.closed_form import NormSteepest as NormSteepest
from modular_manifolds.solvers.closed_form import RowTangentGradient as RowTangentGradient
from modular_manifolds.solvers.closed_form import TangentGradient as TangentGradient
from modular_manifolds.solvers.dual_ascent import DualAscent as DualAscent
from modular_manifolds.solvers.lyapunov import Lyapunov as Lyapunov
from modular_manifolds.solvers.lyapunov_products import LyapunovProducts as LyapunovProducts
from modular_manifolds.solvers.select import TABLE as TABLE
from modular_manifolds.solvers.select import Choice as Choice
from modular_manifolds.solvers.select import find_solver as find_solver
from modular_manifolds.solvers.select import select as select
from modular_manifolds.solvers.select import steepest as steepest
from modular_manifolds.solvers.skew_sign import SkewSign as SkewSign
from modular_manifolds.solvers.solution import Solution as Solution
from modular_manifolds.solvers.solution import Status as Status
from modular_manifolds.solvers.spectral_sphere import SpectralSphereDual as SpectralSphereDual
from modular_manifolds.solvers.spel import SPEL as SPEL
from modular_manifolds.solvers.weighted_median import WeightedMedian as WeightedMedian
