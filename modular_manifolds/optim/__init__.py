"""Optimisation: state keyed by parameter; the mathematics is the solvers'."""

from modular_manifolds.optim.diagnosis import Diagnosis as Diagnosis
from modular_manifolds.optim.steepest_descent import SteepestDescent as SteepestDescent
