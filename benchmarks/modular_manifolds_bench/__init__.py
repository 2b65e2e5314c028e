"""Benchmarks: this library's speed, memory and drift beside others', on recorded training problems."""

from modular_manifolds_bench.bars import BENCHES as BENCHES
from modular_manifolds_bench.recordings import Settings as Settings
from modular_manifolds_bench.report import Environment as Environment
from modular_manifolds_bench.report import Report as Report
from modular_manifolds_bench.report import Row as Row
from modular_manifolds_bench.run import run as run
