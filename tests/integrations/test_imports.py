"""Trainers are imported by those who use them only."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRAINERS = ("transformers", "lightning", "pytorch_lightning", "accelerate", "peft", "tensorboard")


@pytest.mark.long
def test_the_package_imports_no_trainer() -> None:
    """The monitor that all callbacks share imports no trainer either."""
    names = ("modular_manifolds", "modular_manifolds.integrations.geometry")
    code = f"import sys, {', '.join(names)}; print(*(n for n in {TRAINERS!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
