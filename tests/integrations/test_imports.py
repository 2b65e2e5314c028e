"""Trainers are imported by those who use them only."""

from __future__ import annotations

import subprocess
import sys

import pytest

TRAINERS = ("transformers", "lightning", "pytorch_lightning", "accelerate", "peft", "tensorboard")


@pytest.mark.parametrize(
    "imported", ["modular_manifolds", "modular_manifolds.integrations.geometry"]
)
def test_the_package_imports_no_trainer(imported: str) -> None:
    code = f"import sys, {imported}; print(*(n for n in {TRAINERS!r} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
