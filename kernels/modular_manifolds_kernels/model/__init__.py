"""What the kernels must do, counted: launches, operations and bytes, and lower bounds on time from data sheets.

Nothing here measures, and a lower bound is not a speed.
"""

from modular_manifolds_kernels.model.accuracy import worst as worst
from modular_manifolds_kernels.model.launch import Launch as Launch
from modular_manifolds_kernels.model.launch import Total as Total
from modular_manifolds_kernels.model.launch import least_seconds as least_seconds
from modular_manifolds_kernels.model.launch import total as total
from modular_manifolds_kernels.model.ours import msign_launches as msign_launches
from modular_manifolds_kernels.model.ours import retraction_launches as retraction_launches
from modular_manifolds_kernels.model.ours import step_launches as step_launches
from modular_manifolds_kernels.model.shapes import MODELS as MODELS
from modular_manifolds_kernels.model.tables import bars as bars
from modular_manifolds_kernels.model.tables import steps as steps
from modular_manifolds_kernels.model.tables import tables as tables
from modular_manifolds_kernels.model.torch_muon import muon_step as muon_step
