"""Modular manifolds: networks declared as composed modules, every weight on a manifold.

The table of contents below is the public surface, grouped by folder.
"""

from typing import TYPE_CHECKING, Any

from modular_manifolds import errors as errors
from modular_manifolds import linalg as linalg
from modular_manifolds import models as models
from modular_manifolds import optim as optim
from modular_manifolds import solvers as solvers
from modular_manifolds import testing as testing
from modular_manifolds.adaptation import Fallback as Fallback
from modular_manifolds.adaptation import ModelPlan as ModelPlan
from modular_manifolds.adaptation import Rule as Rule
from modular_manifolds.adaptation import Skip as Skip
from modular_manifolds.adaptation import Split as Split
from modular_manifolds.adaptation import adapt as adapt
from modular_manifolds.certificates import ActivationReport as ActivationReport
from modular_manifolds.certificates import ConditioningReport as ConditioningReport
from modular_manifolds.certificates import InputScale as InputScale
from modular_manifolds.certificates import LipschitzReport as LipschitzReport
from modular_manifolds.certificates import LocalLipschitzReport as LocalLipschitzReport
from modular_manifolds.certificates import LocalStatus as LocalStatus
from modular_manifolds.certificates import ProjectedGradient as ProjectedGradient
from modular_manifolds.certificates import RobustnessReport as RobustnessReport
from modular_manifolds.certificates import activations as activations
from modular_manifolds.certificates import conditioning as conditioning
from modular_manifolds.certificates import lipschitz as lipschitz
from modular_manifolds.certificates import local_lipschitz as local_lipschitz
from modular_manifolds.certificates import robustness as robustness
from modular_manifolds.composition import SAME as SAME
from modular_manifolds.composition import Budget as Budget
from modular_manifolds.composition import BudgetRow as BudgetRow
from modular_manifolds.composition import ProductSpace as ProductSpace
from modular_manifolds.composition import Space as Space
from modular_manifolds.composition import VectorNorm as VectorNorm
from modular_manifolds.linalg import msign as msign
from modular_manifolds.manifolds import BalancedRows as BalancedRows
from modular_manifolds.manifolds import Euclidean as Euclidean
from modular_manifolds.manifolds import FixedGram as FixedGram
from modular_manifolds.manifolds import Manifold as Manifold
from modular_manifolds.manifolds import Oblique as Oblique
from modular_manifolds.manifolds import Product as Product
from modular_manifolds.manifolds import SpectralBall as SpectralBall
from modular_manifolds.manifolds import SpectralSphere as SpectralSphere
from modular_manifolds.manifolds import Sphere as Sphere
from modular_manifolds.manifolds import Stiefel as Stiefel
from modular_manifolds.nn import GELU as GELU
from modular_manifolds.nn import Abs as Abs
from modular_manifolds.nn import Amplify as Amplify
from modular_manifolds.nn import Atom as Atom
from modular_manifolds.nn import Bias as Bias
from modular_manifolds.nn import Bond as Bond
from modular_manifolds.nn import CausalAttention as CausalAttention
from modular_manifolds.nn import Conv2d as Conv2d
from modular_manifolds.nn import Dropout as Dropout
from modular_manifolds.nn import Embedding as Embedding
from modular_manifolds.nn import Flatten as Flatten
from modular_manifolds.nn import Gain as Gain
from modular_manifolds.nn import Geometry as Geometry
from modular_manifolds.nn import Heads as Heads
from modular_manifolds.nn import Identity as Identity
from modular_manifolds.nn import Linear as Linear
from modular_manifolds.nn import MaxMin as MaxMin
from modular_manifolds.nn import MaxPool as MaxPool
from modular_manifolds.nn import MeanPool as MeanPool
from modular_manifolds.nn import MergeHeads as MergeHeads
from modular_manifolds.nn import Module as Module
from modular_manifolds.nn import Parallel as Parallel
from modular_manifolds.nn import ReLU as ReLU
from modular_manifolds.nn import Residual as Residual
from modular_manifolds.nn import RMSNorm as RMSNorm
from modular_manifolds.nn import Rotary as Rotary
from modular_manifolds.nn import Scale as Scale
from modular_manifolds.nn import Series as Series
from modular_manifolds.nn import SiLU as SiLU
from modular_manifolds.nn import Sum as Sum
from modular_manifolds.nn import budget as budget
from modular_manifolds.nn import project_ as project_
from modular_manifolds.norms import Frobenius as Frobenius
from modular_manifolds.norms import Max as Max
from modular_manifolds.norms import ModularNorm as ModularNorm
from modular_manifolds.norms import Norm as Norm
from modular_manifolds.norms import RMSOperator as RMSOperator
from modular_manifolds.norms import RowRMS as RowRMS
from modular_manifolds.norms import Spectral as Spectral
from modular_manifolds.optim import SteepestDescent as SteepestDescent
from modular_manifolds.solvers import Solution as Solution
from modular_manifolds.solvers import Status as Status
from modular_manifolds.solvers import steepest as steepest
from modular_manifolds.specs import NetworkSpec as NetworkSpec
from modular_manifolds.specs import RunSpec as RunSpec
from modular_manifolds.specs import load as load
from modular_manifolds.specs import save as save

if TYPE_CHECKING:
    from modular_manifolds.training.plot import plot as plot
else:
    # Type checkers would take any name of a module that has this function.
    def __getattr__(name: str) -> Any:
        # The figures need matplotlib, which a program that only trains never waits for.
        if name == "plot":
            from modular_manifolds.training.plot import plot

            return plot
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "plot"})
