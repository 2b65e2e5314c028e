"""The environment of a measurement."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from modular_manifolds.training.device import gpu_name


@dataclass(frozen=True)
class Environment:
    """The software and hardware that influence a measurement."""

    torch: str
    library: str
    python: str
    cpu: str
    threads: int
    gpu: str | None = None

    @classmethod
    def current(cls, *, threads: int, device: str = "cpu") -> Environment:
        return cls(
            torch.__version__,
            version("modular-manifolds"),
            platform.python_version(),
            _cpu(),
            threads,
            gpu_name(device),
        )


def _cpu() -> str:
    """The processor's name; its architecture if the name is unknown."""
    known = Path("/proc/cpuinfo")
    if known.is_file():
        for line in known.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
