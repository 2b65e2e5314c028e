"""Norms on weights: one file a norm."""

from modular_manifolds.norms.base import Norm as Norm
from modular_manifolds.norms.frobenius import Frobenius as Frobenius
from modular_manifolds.norms.max import Max as Max
from modular_manifolds.norms.modular import ModularNorm as ModularNorm
from modular_manifolds.norms.rms_operator import RMSOperator as RMSOperator
from modular_manifolds.norms.row_rms import RowRMS as RowRMS
from modular_manifolds.norms.spectral import Spectral as Spectral
