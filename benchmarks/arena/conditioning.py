"""The singular values of the hidden matrices of a trained model."""

from __future__ import annotations

import math
from statistics import median

from torch import nn

import modular_manifolds as mm
from arena.hidden import unconstrained_plan


def conditioning(model: nn.Module) -> tuple[float, float, float | None]:
    """The largest singular value in units of the rms operator norm, the median condition number, and the largest one.

    The matrices are logical ones, such as the queries of one head. The largest condition number is None if a matrix has
    lost its rank.
    """
    plan = unconstrained_plan(model)
    shapes = {row.name: row.shape[-2:] for row in plan.rows if row.role == "hidden"}
    rows = [row for row in mm.conditioning(plan).rows if row.path in shapes]
    sizes = [math.sqrt(shapes[row.path][1] / shapes[row.path][0]) * row.largest for row in rows]
    conditions = [row.condition or math.inf for row in rows]
    worst = max(conditions)
    return max(sizes), min(median(conditions), 1e30), worst if math.isfinite(worst) else None
