"""Attachment: geometry for the weights of any PyTorch model, which stays as it is."""

from modular_manifolds.adaptation.attach import adapt as adapt
from modular_manifolds.adaptation.plan import ModelPlan as ModelPlan
from modular_manifolds.adaptation.row import Row as Row
from modular_manifolds.adaptation.rules import Fallback as Fallback
from modular_manifolds.adaptation.rules import Rule as Rule
from modular_manifolds.adaptation.rules import Skip as Skip
from modular_manifolds.adaptation.split import Split as Split
