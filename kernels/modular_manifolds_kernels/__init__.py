"""Triton kernels for the matrix sign and the Stiefel manifold, usable with torch alone.

Tensors on cuda are computed by the kernels, all others by plain torch. Triton is imported at the first
launch, so the package can be imported on any machine.
"""

from modular_manifolds_kernels.certificate import Bound as Bound
from modular_manifolds_kernels.coefficients import FOUR_STEPS as FOUR_STEPS
from modular_manifolds_kernels.coefficients import POLAR_EXPRESS as POLAR_EXPRESS
from modular_manifolds_kernels.functions import PreStep as PreStep
from modular_manifolds_kernels.functions import msign as msign
from modular_manifolds_kernels.functions import msign_and_scale as msign_and_scale
from modular_manifolds_kernels.functions import pre_step_ as pre_step_
from modular_manifolds_kernels.functions import stiefel_retract as stiefel_retract
from modular_manifolds_kernels.machine import why_not as why_not
from modular_manifolds_kernels.machine import why_not_on as why_not_on
from modular_manifolds_kernels.step_functions import certify_ as certify_
from modular_manifolds_kernels.step_functions import descend_ as descend_
from modular_manifolds_kernels.step_functions import gate_ as gate_
from modular_manifolds_kernels.step_functions import land_ as land_
from modular_manifolds_kernels.step_functions import unit_length as unit_length
