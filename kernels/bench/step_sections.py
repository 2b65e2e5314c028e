"""The sections of `step.py`: each steps the weights of GPT-2 small on a GPU and returns its findings."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import gpt2
import modular_manifolds_kernels as kernels
import torch
from checks import checks

import modular_manifolds as mm
from modular_manifolds.solvers import skew_sign

ROOT: Final = Path(__file__).parents[2]
RATE: Final = 0.02
Found = dict[str, Any]
"""The findings of a section, by name, as JSON-able values."""


def prepared(
    device: str, width: int, *, manifold: mm.Manifold, capturable: bool = False
) -> tuple[mm.Module, mm.SteepestDescent]:
    """Weights with values and gradients, and their optimiser."""
    net = gpt2.network(manifold, device, width)
    gpt2.fill_(net.parameters(), seed=0)
    return net, mm.SteepestDescent(net, RATE, momentum=0.95, nesterov=True, capturable=capturable)


@contextmanager
def by_torch() -> Iterator[None]:
    """A context in which torch computes everything that a plan does not assign to the kernels."""
    reason = "torch's path is timed"
    before = kernels.why_not, kernels.why_not_on
    kernels.why_not = kernels.why_not_on = lambda *_, **__: reason
    try:
        yield
    finally:
        kernels.why_not, kernels.why_not_on = before


def largest_gap(opt: mm.SteepestDescent) -> float:
    """The largest gap of manifold Muon's directions in the last step."""
    return max(float(each.gap.max()) for each in opt.diagnoses.values())


def steps_without_waiting(device: str = "cuda", width: int = gpt2.WIDTH) -> Found:
    """Eight steps in a mode in which torch raises at every wait; how far the weights are off their manifold then."""
    net, opt = prepared(device, width, manifold=mm.Stiefel())
    opt.step()
    opt.step()
    cuda = device == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
    for _ in range(8):
        opt.step()
    if cuda:
        torch.cuda.set_sync_debug_mode("default")
    opt.check()
    points = {name: each.detach() for name, each in net.named_parameters()}
    residuals = net.manifold.residual(points).values()
    ups = gpt2.LAYERS, 4 * width, width
    return {
        "plan of the largest": str(
            mm.solvers.select(mm.Stiefel(), mm.Spectral(), ups, device).plan
        ),
        "steps": 8,
        "largest gap": largest_gap(opt),
        "largest residual": max(float(each.max()) for each in residuals),
    }


def captured(steps: int = 3) -> Found:
    """Compare steps of a captured graph with the same steps in eager mode."""
    (net, opt), (other_net, other) = (
        prepared("cuda", gpt2.WIDTH, manifold=mm.Stiefel(), capturable=True) for _ in range(2)
    )
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            opt.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        opt.step()
    for _ in range(steps):
        graph.replay()
    for _ in range(3 + steps):
        other.step()
    opt.check()
    pairs = zip(net.parameters(), other_net.parameters(), strict=True)
    apart = max(float((a - b).detach().abs().max()) for a, b in pairs)
    replayed = interleaved({"replay": graph.replay}, budget=2.0)["replay"]
    assert apart <= 1e-6, f"replayed weights are {apart:.1e} from those of steps taken one by one"
    return {"replays": steps, "largest difference": apart, "replay ms": replayed}


def milliseconds(run: Callable[[], object]) -> float:
    """The time of one call, from an idle device to an idle device, including the host."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def interleaved(runs: Mapping[str, Callable[[], object]], *, budget: float) -> dict[str, float]:
    """The median of each, in milliseconds; they take turns, so that clocks and neighbours trouble all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + budget
    while time.perf_counter() < end:
        for name, run in runs.items():
            times[name].append(milliseconds(run))
    return {name: statistics.median(each) for name, each in times.items()}


def launches_of(run: Callable[[], object]) -> int:
    """The number of kernels, copies and fills on the device in one call, by the profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    return sum(1 for event in profile.events() or () if event.device_type.name == "CUDA")


OURS: Final = "manifold Muon, kernels"
PRODUCTS: Final = "manifold Muon, torch"
FLAT: Final = "Euclidean × Spectral"
TORCHS: Final = "torch.optim.Muon + AdamW"


def contenders() -> tuple[dict[str, Callable[[], object]], dict[str, mm.SteepestDescent]]:
    """A step of each optimiser, warmed up; and ours, whose gaps are known."""
    ours, flat = (
        prepared("cuda", gpt2.WIDTH, manifold=each)[1] for each in (mm.Stiefel(), mm.Euclidean())
    )
    ours.step()
    # Plans are kept by shape and device, and each bucket keeps its own.
    plans = vars(skew_sign)["_plan"]
    plans.cache_clear()
    with by_torch():
        plain = prepared("cuda", gpt2.WIDTH, manifold=mm.Stiefel())[1]
        plain.step()
    plans.cache_clear()
    weights = gpt2.torch_weights("cuda")
    gpt2.fill_([*weights[0], *weights[1]], seed=0)
    muon, adamw = gpt2.torch_optimizers(*weights)

    def by_products() -> None:
        with by_torch():
            plain.step()

    def torchs() -> None:
        muon.step()
        adamw.step()

    runs: dict[str, Callable[[], object]] = {
        OURS: ours.step,
        PRODUCTS: by_products,
        FLAT: flat.step,
        TORCHS: torchs,
    }
    for run in runs.values():
        for _ in range(3):
            run()
    return runs, {OURS: ours, PRODUCTS: plain, FLAT: flat}


def times() -> Found:
    """The median of a step by every optimiser, and the largest gap of those that know it."""
    runs, known = contenders()
    medians = interleaved(runs, budget=40.0)
    return {"ms": medians, "gap": {name: largest_gap(each) for name, each in known.items()}}


def launches() -> Found:
    """The work of the device in a step of every optimiser: kernels, copies and fills."""
    runs, _ = contenders()
    return {name: launches_of(run) for name, run in runs.items()}


def gpu_tests() -> Found:
    """The tests of the kernels on this GPU if pytest can run them, else shorter checks against float64."""
    if importlib.util.find_spec("pytest") is not None:
        options = ["-q", "-o", "addopts=", "-p", "no:cacheprovider", "tests/kernels/test_gpu.py"]
        command = [sys.executable, "-m", "pytest", *options]
        # A limit of its own, so that pytest does not outlive this section.
        ran = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=PYTEST_SECONDS,
            env=os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"},
        )
        last = (ran.stdout.strip().splitlines() or [""])[-1]
        assert ran.returncode != 1, last
        if ran.returncode == 0:
            return {"pytest": last}
    checked = list(checks(torch.device("cuda")))
    bad = [each.what for each in checked if not each.passed]
    assert not bad, f"these checks failed: {', '.join(bad)}"
    return {"checks passed": len(checked)}


PYTEST_SECONDS: Final = 90

SECTIONS: Final[dict[str, tuple[Callable[[], Found], int]]] = {
    "steps without waiting": (steps_without_waiting, 85),
    "captured graph": (captured, 40),
    "times": (times, 80),
    "launches": (launches, 45),
    "tests on the GPU": (gpu_tests, PYTEST_SECONDS + 15),
}
"""The sections by name, each with the seconds that it may take."""
