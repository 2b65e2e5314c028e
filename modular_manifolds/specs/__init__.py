"""Networks and runs as data: YAML and JSON, refused in words where they are wrong."""

from modular_manifolds.specs.network import NetworkSpec as NetworkSpec
from modular_manifolds.specs.run import RunSpec as RunSpec
