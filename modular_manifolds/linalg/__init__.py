"""Dense linear algebra on stacks of matrices: tensors in, tensors out, nothing written into."""

from modular_manifolds.linalg import backend as backend
from modular_manifolds.linalg.matrix_sign import msign as msign
