"""Modular manifolds: networks declared as composed modules, every weight on a manifold.

The table of contents below is the public surface, grouped by folder.
"""

from modular_manifolds import errors as errors
from modular_manifolds import linalg as linalg
from modular_manifolds import solvers as solvers
from modular_manifolds import testing as testing
from modular_manifolds.certificates import ConditioningReport as ConditioningReport
from modular_manifolds.certificates import LipschitzReport as LipschitzReport
from modular_manifolds.certificates import conditioning as conditioning
from modular_manifolds.certificates import lipschitz as lipschitz
from modular_manifolds.composition import SAME as SAME
from modular_manifolds.composition import Budget as Budget
from modular_manifolds.composition import BudgetRow as BudgetRow
from modular_manifolds.composition import ProductSpace as ProductSpace
from modular_manifolds.composition import Space as Space
from modular_manifolds.composition import VectorNorm as VectorNorm
from modular_manifolds.linalg import msign as msign
from modular_manifolds.manifolds import Euclidean as Euclidean
from modular_manifolds.manifolds import Manifold as Manifold
from modular_manifolds.manifolds import Oblique as Oblique
from modular_manifolds.manifolds import Product as Product
from modular_manifolds.manifolds import Sphere as Sphere
from modular_manifolds.manifolds import Stiefel as Stiefel
from modular_manifolds.nn import GELU as GELU
from modular_manifolds.nn import Abs as Abs
from modular_manifolds.nn import Atom as Atom
from modular_manifolds.nn import Bond as Bond
from modular_manifolds.nn import Flatten as Flatten
from modular_manifolds.nn import Geometry as Geometry
from modular_manifolds.nn import Identity as Identity
from modular_manifolds.nn import Linear as Linear
from modular_manifolds.nn import MaxMin as MaxMin
from modular_manifolds.nn import Module as Module
from modular_manifolds.nn import Parallel as Parallel
from modular_manifolds.nn import ReLU as ReLU
from modular_manifolds.nn import Residual as Residual
from modular_manifolds.nn import Scale as Scale
from modular_manifolds.nn import Series as Series
from modular_manifolds.nn import Sum as Sum
from modular_manifolds.nn import budget as budget
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
