"""The kernels on the GPU of this machine, where it has one: values, bits that repeat, and the library's own steps."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator

import kernel_cases as cases
import modular_manifolds_kernels as kernels
import pytest
import torch
from kernel_cases import VARIANTS, msign, stiefel_retract
from matrices import FLOAT32, SHAPES, error, well_conditioned
from modular_manifolds_kernels import POLAR_EXPRESS
from modular_manifolds_kernels.machine import Machine, machine_of
from modular_manifolds_kernels.shipped import Precision

import modular_manifolds as mm

if not torch.cuda.is_available():
    pytest.skip("torch sees no GPU here", allow_module_level=True)
# torch wants this of cuBLAS where algorithms must be deterministic; it is read when cuBLAS is first used.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

PRECISIONS: list[Precision] = ["fp32", "bf16"]
LARGE = [
    (96, 64, 768),
    (40, 128, 128),
    (12, 128, 300),
    (300, 300),
    (200, 700),
    (257, 513),
    (2, 70, 4096),
]
"""Stacks with more programs than the GPU runs at a time, and matrices of several tiles."""


@pytest.fixture
def gpu() -> Iterator[Machine]:
    """The real machine; tensors that a test makes are on it."""
    with torch.device("cuda"):
        yield machine_of(torch.cuda.current_device())


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant(gpu: Machine, variant: str) -> None:
    """Each variant compares the kernel with its specification in float64: the assertions stand in `kernel_cases`."""
    VARIANTS[variant](gpu)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=str)
def test_products_and_msign_of_every_size(
    gpu: Machine, shape: tuple[int, ...], precision: Precision
) -> None:
    x = well_conditioned(*shape).float()
    cases.gram(gpu, x, precision)
    cases.polynomial(gpu, x, precision)
    cases.apply(gpu, x, precision, scaled=True)
    cases.whole_msign(gpu, x, precision)
    cases.whole_msign(gpu, x.mT, precision)
    cases.whole_msign(gpu, x.bfloat16(), precision)


@pytest.mark.parametrize("shape", [*SHAPES, *LARGE], ids=str)
def test_retraction_and_pre_step_of_every_size(gpu: Machine, shape: tuple[int, ...]) -> None:
    for corrections in (0, 1, 2):
        cases.retract(gpu, shape, corrections)
    for nesterov in (False, True):
        cases.pre_step(gpu, torch.randn(shape), nesterov=nesterov)


@pytest.mark.parametrize(
    "shape",
    [(300, 64, 64), (200, 60, 500), (160, 128, 128), (160, 100, 300), (1000, 2000)],
    ids=str,
)
def test_the_same_bits_every_time(gpu: Machine, shape: tuple[int, ...]) -> None:
    """A race would show as bits that change: more programs than fit at once, again and again."""
    x = torch.randn(shape)
    for precision in PRECISIONS:
        first = msign(gpu, x, POLAR_EXPRESS, precision)
        for _ in range(20):
            assert torch.equal(msign(gpu, x, POLAR_EXPRESS, precision), first)
    w = msign(gpu, x, (*POLAR_EXPRESS, *POLAR_EXPRESS[-3:]), "fp32")
    landed, _ = stiefel_retract(gpu, w, x / 100, 0.05, 1)
    for _ in range(20):
        assert torch.equal(stiefel_retract(gpu, w, x / 100, 0.05, 1)[0], landed)


# torch 2.11's own compiler imports what its torch.jit has given up.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_the_public_functions_take_the_kernels(gpu: Machine) -> None:
    del gpu
    x = well_conditioned(4, 60, 90).float()
    assert kernels.why_not(x) is None
    wanted = mm.msign(x.double().cpu())
    assert error(mm.msign(x, backend="triton").cpu(), wanted) <= FLOAT32
    compiled = torch.compile(kernels.msign, fullgraph=True)
    assert torch.equal(compiled(x), kernels.msign(x))


def test_steps_on_the_gpu_are_those_of_the_cpu(gpu: Machine) -> None:
    """The same network and gradients; what differs is rounding."""
    del gpu
    with torch.device("cpu"):
        net = mm.Linear(96, 64) >> mm.ReLU() >> mm.Linear(64, 64) >> mm.ReLU() >> mm.Linear(64, 10)
        x = torch.randn(128, 96)
    there = copy.deepcopy(net).to("cuda")
    losses: list[list[float]] = []
    for each, inputs in ((net, x), (there, x.to("cuda"))):
        optimizer = mm.SteepestDescent(each, lr=0.1, momentum=0.9)
        found: list[float] = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = (each(inputs) - 1).square().mean()
            loss.backward()
            optimizer.step()
            found.append(float(loss.detach()))
        losses.append(found)
        points = {name: p.detach() for name, p in each.named_parameters()}
        assert max(float(r.max()) for r in each.manifold.residual(points).values()) <= 1e-5
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[1][-1] < losses[1][0]
