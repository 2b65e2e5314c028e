"""Certificates: guaranteed bounds, next to measured values."""

from modular_manifolds.certificates.activation_sizes import ActivationReport as ActivationReport
from modular_manifolds.certificates.activation_sizes import ActivationRow as ActivationRow
from modular_manifolds.certificates.activation_sizes import Size as Size
from modular_manifolds.certificates.activation_sizes import activations as activations
from modular_manifolds.certificates.attack import ProjectedGradient as ProjectedGradient
from modular_manifolds.certificates.certified_robustness import robustness as robustness
from modular_manifolds.certificates.condition_numbers import (
    ConditioningReport as ConditioningReport,
)
from modular_manifolds.certificates.condition_numbers import ConditioningRow as ConditioningRow
from modular_manifolds.certificates.condition_numbers import conditioning as conditioning
from modular_manifolds.certificates.input_scale import InputScale as InputScale
from modular_manifolds.certificates.lipschitz_bounds import LipschitzReport as LipschitzReport
from modular_manifolds.certificates.lipschitz_bounds import LipschitzRow as LipschitzRow
from modular_manifolds.certificates.lipschitz_bounds import lipschitz as lipschitz
from modular_manifolds.certificates.local import (
    LocalLipschitzReport as LocalLipschitzReport,
)
from modular_manifolds.certificates.local import LocalStatus as LocalStatus
from modular_manifolds.certificates.local import local_lipschitz as local_lipschitz
from modular_manifolds.certificates.robustness_report import RobustnessReport as RobustnessReport
from modular_manifolds.certificates.robustness_report import RobustnessRow as RobustnessRow
