"""Specifications of networks and runs as YAML and JSON, with clear errors for wrong data."""

from modular_manifolds.specs.network import NetworkSpec as NetworkSpec
from modular_manifolds.specs.run import RunSpec as RunSpec
from modular_manifolds.specs.saving import load as load
from modular_manifolds.specs.saving import save as save
