"""Timings of the kernels on a GPU, compared with torch and others."""

from __future__ import annotations

import importlib
import importlib.util
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import modular_manifolds_kernels as kernels
import torch
from modular_manifolds_kernels import launches, naive
from modular_manifolds_kernels.machine import machine_of
from stacks import drawn, polar
from torch import Tensor


@dataclass(frozen=True)
class Timed:
    """Milliseconds a call: the median of ours and of another way to the same, and their ratio."""

    what: str
    ours: float
    others: float
    other: str

    @property
    def ratio(self) -> float:
        """Their time divided by ours."""
        return self.others / self.ours


def milliseconds(run: Callable[[], object], *, budget: float) -> float:
    """The median of calls timed one by one by the device, caches written over between them."""
    flush = torch.empty(64 * 2**20, dtype=torch.int32, device="cuda")
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times: list[float] = []
    spent = 0.0
    while spent < budget * 1e3 and len(times) < 200:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
        spent += times[-1]
    return statistics.median(times)


def torch_routine() -> Callable[..., Tensor]:
    """The orthogonalisation of `torch.optim.Muon`, as it is: torch has no public name for it."""
    module: Any = importlib.import_module("torch.optim._muon")
    return module.__dict__["_zeropower_via_newtonschulz"]


def others() -> dict[str, Callable[[Tensor], Tensor]]:
    """Other ways to orthogonalise one matrix, five steps each."""
    routine = torch_routine()
    found: dict[str, Callable[[Tensor], Tensor]] = {
        "torch.optim.Muon": lambda x: routine(x, (3.4445, -4.7750, 2.0315), 5, 1e-7),
        "torch, same polynomials": lambda x: naive.msign(x.bfloat16(), kernels.FOUR_STEPS),
    }
    if importlib.util.find_spec("gram_newton_schulz") is not None:
        package: Any = importlib.import_module("gram_newton_schulz")
        made = package.GramNewtonSchulz(
            ns_coefficients=[list(each) for each in kernels.POLAR_EXPRESS[:5]],
            gram_newton_schulz_reset_iterations=[2],
        )
        found["gram-newton-schulz"] = made
    return found


def timings(budget: float) -> Iterator[Timed]:
    """Whole matrix signs of the weights of two language models and of stacks of heads; then the pieces."""
    device = torch.device("cuda")

    def ours(x: Tensor) -> Tensor:
        return kernels.msign(x, coefficients=kernels.FOUR_STEPS, precision="bf16")

    for shape in ((768, 768), (768, 3072), (1600, 1600), (1600, 6400), (4096, 4096)):
        x = drawn(*shape, device=device).bfloat16()
        mine = milliseconds(lambda x=x: ours(x), budget=budget)
        for name, other in others().items():
            theirs = milliseconds(lambda x=x, other=other: other(x), budget=budget)
            yield Timed(f"msign {shape[0]}×{shape[1]} bfloat16", mine, theirs, name)
    for shape in ((96, 64, 64), (96, 64, 768), (32, 128, 128)):
        x = drawn(*shape, device=device).bfloat16()
        mine = milliseconds(lambda x=x: ours(x), budget=budget)
        batched = milliseconds(lambda x=x: naive.msign(x, kernels.FOUR_STEPS), budget=budget)
        yield Timed(f"msign {'×'.join(map(str, shape))} bfloat16", mine, batched, "torch, batched")
    machine = machine_of(torch.cuda.current_device())
    x = drawn(1, 2048, 4096, device=device).bfloat16()
    flat, r = x[0], launches.gram(machine, x, "bf16")[0]
    out = torch.empty_like(x)
    for name, mine, other in (
        ("gram 2048×4096", lambda: launches.gram(machine, x, "bf16"), lambda: flat @ flat.mT),
        (
            "polynomial 2048",
            lambda: launches.polynomial(machine, r, r, (0.0, -2.0, 1.5), "bf16"),
            lambda: torch.addmm(r[0], r[0], r[0], beta=-2.0, alpha=1.5),
        ),
        (
            "apply 2048×4096",
            lambda: launches.apply(machine, r, x, 0.5, 1.5, "bf16", out=out),
            lambda: torch.addmm(flat, r[0], flat, beta=0.5, alpha=1.5),
        ),
    ):
        fast = milliseconds(mine, budget=budget)
        yield Timed(f"{name} bfloat16", fast, milliseconds(other, budget=budget), "torch (cuBLAS)")
    yield from elementwise(budget, device)


def elementwise(budget: float, device: torch.device) -> Iterator[Timed]:
    """Timings of retraction and pre-step, compared with torch."""
    w, a = (polar(drawn(96, 64, 768, device=device)).float() for _ in range(2))
    mine = milliseconds(lambda: kernels.stiefel_retract(w, a, eta=0.01), budget=budget)
    theirs = milliseconds(lambda: naive.stiefel_retract(w, a, 0.01, 1), budget=budget)
    yield Timed("retract 96×64×768 float32", mine, theirs, "torch")
    m, g = (torch.randn(1600, 6400, device=device) for _ in range(2))

    def plain() -> Tensor:
        m.lerp_(g, 0.05)
        return g.lerp(m, 0.95).norm()

    mine = milliseconds(lambda: kernels.pre_step_(m, g, mu=0.95, nesterov=True), budget=budget)
    yield Timed("pre-step 1600×6400 float32", mine, milliseconds(plain, budget=budget), "torch")
