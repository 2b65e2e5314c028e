"""Arithmetic on a tree: masses, sensitivities, spaces and shares. No tensors are used here."""

from modular_manifolds.composition.allocation import allocate as allocate
from modular_manifolds.composition.budget import Budget as Budget
from modular_manifolds.composition.budget import BudgetRow as BudgetRow
from modular_manifolds.composition.budget import TypicalSlope as TypicalSlope
from modular_manifolds.composition.folding import Algebra as Algebra
from modular_manifolds.composition.folding import fold as fold
from modular_manifolds.composition.leaf import Leaf as Leaf
from modular_manifolds.composition.radius import Radius as Radius
from modular_manifolds.composition.signature import Signature as Signature
from modular_manifolds.composition.space import SAME as SAME
from modular_manifolds.composition.space import VECTOR_NORMS as VECTOR_NORMS
from modular_manifolds.composition.space import AnySpace as AnySpace
from modular_manifolds.composition.space import ProductSpace as ProductSpace
from modular_manifolds.composition.space import Space as Space
from modular_manifolds.composition.space import VectorNorm as VectorNorm
from modular_manifolds.composition.space import conversion as conversion
from modular_manifolds.composition.tree import Tree as Tree
from modular_manifolds.composition.tree import leaves as leaves
