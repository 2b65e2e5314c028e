"""Networks and runs as data: YAML and JSON, refused in words if they are wrong."""

from modular_manifolds.specs.network import NetworkSpec as NetworkSpec
from modular_manifolds.specs.run import RunSpec as RunSpec
from modular_manifolds.specs.saving import load as load
from modular_manifolds.specs.saving import save as save
