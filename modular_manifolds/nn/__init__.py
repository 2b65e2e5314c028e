"""Networks as compositions of atoms (with a weight) and bonds (without)."""

from modular_manifolds.nn.attention import CausalAttention as CausalAttention
from modular_manifolds.nn.bonds import GELU as GELU
from modular_manifolds.nn.bonds import Abs as Abs
from modular_manifolds.nn.bonds import Flatten as Flatten
from modular_manifolds.nn.bonds import Identity as Identity
from modular_manifolds.nn.bonds import MaxMin as MaxMin
from modular_manifolds.nn.bonds import ReLU as ReLU
from modular_manifolds.nn.budget import budget as budget
from modular_manifolds.nn.compose import Parallel as Parallel
from modular_manifolds.nn.compose import Residual as Residual
from modular_manifolds.nn.compose import Scale as Scale
from modular_manifolds.nn.compose import Series as Series
from modular_manifolds.nn.compose import Sum as Sum
from modular_manifolds.nn.geometry import Geometry as Geometry
from modular_manifolds.nn.heads import Heads as Heads
from modular_manifolds.nn.heads import MergeHeads as MergeHeads
from modular_manifolds.nn.leaf import Atom as Atom
from modular_manifolds.nn.leaf import Bond as Bond
from modular_manifolds.nn.linear import Linear as Linear
from modular_manifolds.nn.module import Module as Module
from modular_manifolds.nn.rotary import Rotary as Rotary
