"""The tiles of a lower triangle are numbered without gap, whatever a GPU's square root rounds to."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from modular_manifolds_kernels.machine import Machine


@pytest.mark.parametrize("error", [0.0, -(2.0**-16), 2.0**-16])
def test_every_tile_has_its_place(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    """Also with a root that is 128 units of its last place too small or too large."""
    del machine
    interpreter = importlib.import_module("triton.runtime.interpreter")
    program = importlib.import_module("triangle_program").places

    def root(self: Any, x: Any) -> Any:
        del self
        return interpreter.TensorHandle(np.sqrt(x.data) * np.float32(1 + error), x.dtype)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_sqrt", root)
    count = 1 << 16
    rows, columns = torch.full((2, count), -1, dtype=torch.int32)
    interpreter.InterpretedFunction(program.fn)[(1,)](rows, columns, BLOCK=count)
    wanted = torch.tril_indices(400, 400)[:, :count].int()
    assert torch.equal(torch.stack((rows, columns)), wanted)
