"""Laws for manifolds, norms, solvers and modules: test your own classes by them.

A law is a function that raises AssertionError with the measured value. No test runner is needed. One call
checks all laws:

    from modular_manifolds import testing

    testing.check_manifold(MyManifold(radius=2.0), testing.Sample(shape=(6, 3)))
    testing.check_norm(MyNorm(), testing.Sample(shape=(6, 3)))
    testing.check_solver(MySolver(), MyManifold(), MyNorm(), testing.Sample(shape=(6, 3)))
    testing.check_module(MyBond())

A Sample is a shape, a dtype, a seed, and the accuracy of results that are approximate by design. Use
several shapes: a single entry, a row, a column, tall, wide, square, a stack of matrices, a vector.
`MANIFOLD_LAWS`, `NORM_LAWS`, `SOLVER_LAWS` and `MODULE_LAWS` are tuples of the laws, for pytest to
parametrise over:

    @pytest.mark.parametrize("law", testing.MANIFOLD_LAWS)
    @pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (6, 3), (3, 6), (4, 4), (2, 3, 5, 4), (7,)])
    def test_my_manifold(law, shape):
        law(MyManifold(), testing.Sample(shape))
"""

from modular_manifolds.testing.manifold_laws import MANIFOLD_LAWS as MANIFOLD_LAWS
from modular_manifolds.testing.manifold_laws import ManifoldLaw as ManifoldLaw
from modular_manifolds.testing.manifold_laws import check_manifold as check_manifold
from modular_manifolds.testing.module_laws import MODULE_LAWS as MODULE_LAWS
from modular_manifolds.testing.module_laws import ModuleLaw as ModuleLaw
from modular_manifolds.testing.module_laws import check_module as check_module
from modular_manifolds.testing.norm_laws import NORM_LAWS as NORM_LAWS
from modular_manifolds.testing.norm_laws import NormLaw as NormLaw
from modular_manifolds.testing.norm_laws import check_norm as check_norm
from modular_manifolds.testing.sample import Sample as Sample
from modular_manifolds.testing.solver_laws import SCALE_FREE as SCALE_FREE
from modular_manifolds.testing.solver_laws import SOLVER_LAWS as SOLVER_LAWS
from modular_manifolds.testing.solver_laws import SolverLaw as SolverLaw
from modular_manifolds.testing.solver_laws import check_solver as check_solver
