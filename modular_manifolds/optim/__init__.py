"""The optimisers: parameter groups, state and stepping. The solvers hold the mathematics."""

from modular_manifolds.optim.diagnosis import Diagnosis as Diagnosis
from modular_manifolds.optim.named import HypersphericalDescent as HypersphericalDescent
from modular_manifolds.optim.named import ManifoldMuon as ManifoldMuon
from modular_manifolds.optim.named import Muon as Muon
from modular_manifolds.optim.named import MuonSphere as MuonSphere
from modular_manifolds.optim.named import NormalizedSGD as NormalizedSGD
from modular_manifolds.optim.named import SignDescent as SignDescent
from modular_manifolds.optim.steepest_descent import SteepestDescent as SteepestDescent
