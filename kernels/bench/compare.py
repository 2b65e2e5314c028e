"""Every kernel against float64, and on a GPU against what torch and others do; a table, and JSON if asked.

    python kernels/bench/compare.py --json measured.json

Without a GPU the public functions are checked, which then compute by torch; nothing is timed. A few minutes.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import modular_manifolds_kernels as kernels
import torch
from modular_manifolds_kernels import launches, naive
from modular_manifolds_kernels.configuration import Precision
from modular_manifolds_kernels.machine import machine_of
from torch import Tensor


@dataclass(frozen=True)
class Checked:
    """One comparison with float64: the relative error, or the largest of singular values."""

    what: str
    error: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the error is within what is allowed; NaN is not."""
        return self.error <= self.allowed


@dataclass(frozen=True)
class Timed:
    """Milliseconds a call: the median of ours and of another way to the same, and their ratio."""

    what: str
    ours: float
    others: float
    other: str

    @property
    def ratio(self) -> float:
        """Above one where ours is faster."""
        return self.others / self.ours


def drawn(*shape: int, device: torch.device, condition: float = 10.0) -> Tensor:
    """A float32 stack whose singular values fall from 1 to 1 / condition."""
    generator = torch.Generator().manual_seed(0)
    batch, (m, n) = shape[:-2], shape[-2:]
    short = min(m, n)
    u, v = (
        torch.linalg.qr(torch.randn(*batch, side, short, generator=generator, dtype=torch.float64))[
            0
        ]
        for side in (m, n)
    )
    sigma = torch.logspace(0, -1, short, base=condition, dtype=torch.float64)
    return ((u * sigma) @ v.mT).to(device, torch.float32)


def relative(found: Tensor, exact: Tensor) -> float:
    """`‖found − exact‖_F / ‖exact‖_F`, of a stack together."""
    return float((found.double() - exact).norm() / exact.norm())


def polar(x: Tensor) -> Tensor:
    """`U Vᵀ` in float64."""
    u, _, vh = torch.linalg.svd(x.double(), full_matrices=False)
    return u @ vh


def checks(device: torch.device) -> Iterator[Checked]:
    """Public functions everywhere; on a GPU single products too."""
    for shape in (
        (3, 17, 17),
        (5, 64, 64),
        (2, 100, 70),
        (4, 64, 768),
        (3, 128, 300),
        (300, 300),
        (200, 700),
    ):
        x = drawn(*shape, device=device)
        name = "×".join(map(str, shape))
        error = relative(kernels.msign(x, precision="fp32"), polar(x))
        yield Checked(f"msign {name} float32", error, 5e-6)
        sigma = torch.linalg.svdvals(kernels.msign(x.bfloat16(), precision="bf16").double())
        yield Checked(
            f"msign {name} bfloat16, singular values", float((sigma - 1).abs().max()), 2e-2
        )
        same = torch.equal(kernels.msign(x, precision="bf16"), kernels.msign(x, precision="bf16"))
        yield Checked(f"msign {name} twice, same bits", 0.0 if same else 1.0, 0.0)
    for shape in ((4, 64, 768), (2, 50, 32), (3, 300, 128), (300, 200)):
        w, a = polar(drawn(*shape, device=device)).float(), drawn(*shape, device=device)
        found, residual = kernels.stiefel_retract(w, a, eta=0.01)
        exact, _ = naive.stiefel_retract(w.double(), a.double(), 0.01, 1)
        name = "×".join(map(str, shape))
        yield Checked(f"retract {name}", relative(found, exact), 5e-6)
        wide = (found if shape[-2] <= shape[-1] else found.mT).double()
        left = (wide @ wide.mT - torch.eye(wide.shape[-2], device=device)).abs().amax(dim=(-2, -1))
        yield Checked(f"retract {name}, residual", float((left - residual).abs().max()), 5e-6)
    momentum, gradient = (
        drawn(3, 70, 300, device=device),
        drawn(3, 70, 300, device=device, condition=2),
    )
    kept, descended = naive.pre_step(momentum.double(), gradient.double(), 0.95, nesterov=True)
    step = kernels.pre_step_(momentum, gradient, mu=0.95, nesterov=True)
    yield Checked("pre-step, momentum", relative(momentum, kept), 5e-6)
    yield Checked("pre-step, direction", relative(step.direction, descended), 5e-6)
    norm = descended.square().sum(dim=(-2, -1)).sqrt()
    yield Checked("pre-step, norm", relative(step.norm(), norm), 5e-6)
    if device.type == "cuda":
        yield from product_checks(device)


def product_checks(device: torch.device) -> Iterator[Checked]:
    """The products that large matrices are made of."""
    machine = machine_of(device.index or 0)
    x = drawn(2, 300, 500, device=device)
    cases: tuple[tuple[Precision, float], ...] = (("fp32", 5e-6), ("bf16", 2e-2))
    for precision, allowed in cases:
        given = x if precision == "fp32" else x.bfloat16()
        r, _ = launches.gram(machine, given, precision)
        yield Checked(f"gram {precision}", relative(r, naive.gram(given.double())), allowed)
        yield Checked(f"gram {precision}, symmetric", 0.0 if torch.equal(r, r.mT) else 1.0, 0.0)
        p = launches.polynomial(machine, r, r, (0.5, -2.0, 1.5), precision)
        exact = naive.polynomial(r.double(), r.double(), 0.5, -2.0, 1.5)
        yield Checked(f"polynomial {precision}", relative(p, exact), allowed)
        y = launches.apply(machine, p, given, 0.5, 1.5, precision, out=torch.empty_like(given))
        exact = naive.apply(p.double(), given.double(), 0.5, 1.5)
        yield Checked(f"apply {precision}", relative(y, exact), allowed)


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
    """Retraction and pre-step beside the same in torch."""
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


def environment(device: torch.device) -> dict[str, str | None]:
    """What the numbers depend on."""
    cuda = device.type == "cuda"
    triton = importlib.util.find_spec("triton") is not None
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu",
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device)))
        if cuda
        else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "triton": importlib.metadata.version("triton") if triton else None,
        "python": platform.python_version(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Check, time where there is a GPU, print, write; 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the results here too")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds of each timing, at most")
    given = parser.parse_args(arguments)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    here = environment(device)
    print("  ".join(f"{name} {value}" for name, value in here.items() if value))
    reason = kernels.why_not(torch.empty(1, 1, device=device))
    print(f"computed by {'kernels' if reason is None else f'torch: {reason}'}\n")
    checked = list(checks(device))
    for each in checked:
        print(
            f"{'ok ' if each.passed else 'BAD'} {each.what:<48} {each.error:9.2e}  ≤ {each.allowed:g}"
        )
    timed: list[Timed] = []
    if cuda and reason is None:
        print(f"\n{'':<38}{'ours ms':>9}{'other ms':>10}{'ratio':>7}")
        for each in timings(given.budget):
            timed.append(each)
            print(
                f"{each.what:<38}{each.ours:9.3f}{each.others:10.3f}{each.ratio:7.2f}  {each.other}"
            )
    else:
        print("\nnothing was timed: there is no GPU that the kernels run on")
    if given.json is not None:
        result = {
            "environment": here,
            "checks": [*map(asdict, checked)],
            "timings": [*map(asdict, timed)],
        }
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(each.passed for each in checked) else 1


if __name__ == "__main__":
    raise SystemExit(main())
