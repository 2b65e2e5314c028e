"""Proof without a GPU that is not values: every shipped configuration compiled ahead of time, and its code read.

Nothing here measures. What is read says that tensor cores are used, that nothing spills, that a block fits;
it does not say how fast a kernel is.
"""

from modular_manifolds_kernels.static.build import build as build
from modular_manifolds_kernels.static.checks import hard as hard
from modular_manifolds_kernels.static.checks import soft as soft
from modular_manifolds_kernels.static.checks import why_not_compared as why_not_compared
from modular_manifolds_kernels.static.report import HEADER as HEADER
from modular_manifolds_kernels.static.report import by_identity as by_identity
from modular_manifolds_kernels.static.report import cells as cells
from modular_manifolds_kernels.static.report import chosen as chosen
from modular_manifolds_kernels.static.report import complaints as complaints
from modular_manifolds_kernels.static.report import configurations as configurations
from modular_manifolds_kernels.static.report import in_order as in_order
from modular_manifolds_kernels.static.report import name as name
from modular_manifolds_kernels.static.report import store as store
from modular_manifolds_kernels.static.report import stored as stored
from modular_manifolds_kernels.static.row import Row as Row
from modular_manifolds_kernels.static.seal import is_sealed as is_sealed
from modular_manifolds_kernels.static.seal import sealed as sealed
from modular_manifolds_kernels.static.seal import to_compile as to_compile
from modular_manifolds_kernels.static.targets import TARGETS as TARGETS
