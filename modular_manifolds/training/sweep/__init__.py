"""Sweeps: one run with many sizes, optimisers and learning rates."""

from modular_manifolds.training.sweep.plan import Arm as Arm
from modular_manifolds.training.sweep.plan import Plan as Plan
from modular_manifolds.training.sweep.results import Results as Results
from modular_manifolds.training.sweep.rounds import prepare as prepare
from modular_manifolds.training.sweep.rounds import run_points as run_points
from modular_manifolds.training.sweep.summary import summaries as summaries
