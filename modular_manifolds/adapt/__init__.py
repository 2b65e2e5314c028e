"""Attachment: geometry for the weights of any PyTorch model, which stays as it is."""

from modular_manifolds.adapt.attach import adapt as adapt
from modular_manifolds.adapt.plan import ModelPlan as ModelPlan
from modular_manifolds.adapt.row import Row as Row
from modular_manifolds.adapt.rules import Fallback as Fallback
from modular_manifolds.adapt.rules import Rule as Rule
from modular_manifolds.adapt.rules import Skip as Skip
from modular_manifolds.adapt.split import Split as Split
