"""The interpreter rounds as torch does, and leaves the process as it was."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from interpreter import bfloat16_bits, bfloat16_values, tf32_values
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import KERNELS


def numbers() -> torch.Tensor:
    """float32 of all sizes, ties between two bfloat16 numbers, infinities, zeros and NaN."""
    spread = torch.randn(60_000) * 10.0 ** torch.empty(60_000).uniform_(-40, 38)
    bits = torch.randint(0, 1 << 15, (5_000,), dtype=torch.int32) << 16
    ties = (bits | 0x8000).view(torch.float32)
    special = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan, 3.4028235e38, 1e-45])
    return torch.cat((spread, ties, -ties, special))


def test_rounding_to_bfloat16_is_torchs() -> None:
    x = numbers()
    wanted = x.bfloat16().float()
    found = torch.from_numpy(bfloat16_values(bfloat16_bits(x.numpy())))
    assert torch.equal(found.isnan(), wanted.isnan())
    kept = ~wanted.isnan()
    assert torch.equal(found[kept].view(torch.int32), wanted[kept].view(torch.int32))


def test_rounding_to_tf32_keeps_ten_bits() -> None:
    x = torch.randn(1000)
    found = torch.from_numpy(tf32_values(x.numpy()))
    assert not bool((found.view(torch.int32) & 0x1FFF).any())
    assert float(((found - x) / x).abs().max()) <= 2.0**-11
    assert torch.equal(torch.from_numpy(tf32_values(found.numpy())), found)


def test_products_are_torchs_products_of_bfloat16(interpreted: tuple[Machine, list[str]]) -> None:
    """`tl.dot` of bfloat16 operands is the float32 product of what bfloat16 holds; stock, it is not."""
    del interpreted
    tl = pytest.importorskip("triton.language")
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    builder, handle = interpreter.interpreter_builder, interpreter.TensorHandle
    x = torch.randn(16, 16)
    whole = handle(x.numpy(), tl.float32)
    half = builder.create_fp_trunc(whole, tl.bfloat16)
    zero = handle(np.zeros((16, 16), np.float32), tl.float32)
    found = torch.from_numpy(builder.create_dot(half, half, zero, None, 0).data)
    wanted = x.bfloat16().double() @ x.bfloat16().double()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(NotImplementedError, match="convert to float32 first"):
        builder.create_fadd(half, half)


def test_other_kernels_of_the_process_stay_compiled(machine: Machine) -> None:
    """Interpreted and compiled kernels live beside each other: no setting of the process is changed."""
    jit = pytest.importorskip("triton.runtime.jit")
    assert "TRITON_INTERPRET" not in os.environ
    for name in KERNELS:
        assert isinstance(KERNELS[name], jit.JITFunction)
    assert set(machine.kernels) == set(KERNELS)
