"""Certificates: guaranteed bounds, next to measured values."""

from modular_manifolds.certificates.activations import ActivationReport as ActivationReport
from modular_manifolds.certificates.activations import ActivationRow as ActivationRow
from modular_manifolds.certificates.activations import Size as Size
from modular_manifolds.certificates.activations import activations as activations
from modular_manifolds.certificates.attack import ProjectedGradient as ProjectedGradient
from modular_manifolds.certificates.conditioning import ConditioningReport as ConditioningReport
from modular_manifolds.certificates.conditioning import ConditioningRow as ConditioningRow
from modular_manifolds.certificates.conditioning import conditioning as conditioning
from modular_manifolds.certificates.input_scale import InputScale as InputScale
from modular_manifolds.certificates.lipschitz import LipschitzReport as LipschitzReport
from modular_manifolds.certificates.lipschitz import LipschitzRow as LipschitzRow
from modular_manifolds.certificates.lipschitz import lipschitz as lipschitz
from modular_manifolds.certificates.local import (
    LocalLipschitzReport as LocalLipschitzReport,
)
from modular_manifolds.certificates.local import LocalStatus as LocalStatus
from modular_manifolds.certificates.local import local_lipschitz as local_lipschitz
from modular_manifolds.certificates.robustness import robustness as robustness
from modular_manifolds.certificates.robustness_report import RobustnessReport as RobustnessReport
from modular_manifolds.certificates.robustness_report import RobustnessRow as RobustnessRow
