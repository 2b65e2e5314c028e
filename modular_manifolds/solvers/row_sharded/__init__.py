"""Steps of tall matrices of which every process holds some rows: sums of n×n matrices, and no m×n matrix anywhere."""

from modular_manifolds.solvers.row_sharded.choice import row_plan as row_plan
from modular_manifolds.solvers.row_sharded.plan import RowPlan as RowPlan
