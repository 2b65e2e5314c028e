"""Evidence: what is guaranteed, beside what was measured."""

from modular_manifolds.certificates.conditioning import ConditioningReport as ConditioningReport
from modular_manifolds.certificates.conditioning import ConditioningRow as ConditioningRow
from modular_manifolds.certificates.conditioning import conditioning as conditioning
from modular_manifolds.certificates.lipschitz import LipschitzReport as LipschitzReport
from modular_manifolds.certificates.lipschitz import LipschitzRow as LipschitzRow
from modular_manifolds.certificates.lipschitz import lipschitz as lipschitz
