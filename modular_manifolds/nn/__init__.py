"""Networks as compositions of atoms (with a weight) and bonds (without)."""

from modular_manifolds.nn.bias import Bias as Bias
from modular_manifolds.nn.bonds import GELU as GELU
from modular_manifolds.nn.bonds import Abs as Abs
from modular_manifolds.nn.bonds import Flatten as Flatten
from modular_manifolds.nn.bonds import Identity as Identity
from modular_manifolds.nn.bonds import MaxMin as MaxMin
from modular_manifolds.nn.bonds import ReLU as ReLU
from modular_manifolds.nn.bonds import SiLU as SiLU
from modular_manifolds.nn.budget import budget as budget
from modular_manifolds.nn.compose import Parallel as Parallel
from modular_manifolds.nn.compose import Residual as Residual
from modular_manifolds.nn.compose import Scale as Scale
from modular_manifolds.nn.compose import Series as Series
from modular_manifolds.nn.compose import Sum as Sum
from modular_manifolds.nn.conv import Conv2d as Conv2d
from modular_manifolds.nn.dropout import Dropout as Dropout
from modular_manifolds.nn.embedding import Embedding as Embedding
from modular_manifolds.nn.gain import Gain as Gain
from modular_manifolds.nn.geometry import Geometry as Geometry
from modular_manifolds.nn.leaf import Atom as Atom
from modular_manifolds.nn.leaf import Bond as Bond
from modular_manifolds.nn.linear import Linear as Linear
from modular_manifolds.nn.module import Module as Module
from modular_manifolds.nn.pooling import MaxPool as MaxPool
from modular_manifolds.nn.pooling import MeanPool as MeanPool
from modular_manifolds.nn.rms_norm import RMSNorm as RMSNorm
