"""Manifolds of matrices: one file a manifold."""

from modular_manifolds.manifolds.balanced_rows import BalancedRows as BalancedRows
from modular_manifolds.manifolds.base import Manifold as Manifold
from modular_manifolds.manifolds.euclidean import Euclidean as Euclidean
from modular_manifolds.manifolds.fixed_gram import FixedGram as FixedGram
from modular_manifolds.manifolds.oblique import Oblique as Oblique
from modular_manifolds.manifolds.product import Product as Product
from modular_manifolds.manifolds.spectral_ball import SpectralBall as SpectralBall
from modular_manifolds.manifolds.spectral_sphere import SpectralSphere as SpectralSphere
from modular_manifolds.manifolds.sphere import Sphere as Sphere
from modular_manifolds.manifolds.stiefel import Stiefel as Stiefel
