"""One step of the optimiser on an accelerator: its operators and launches, counted on tensors without numbers."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from fakes import Counting, NoWaiting, fake_device
from torch.utils._pytree import tree_map_only

import modular_manifolds as mm
from modular_manifolds.linalg import backend
from modular_manifolds.solvers import skew_sign

ROOT = Path(__file__).parents[2]

COUNTS: Final = {
    "torch": (295, 117, 295),
    "kernels": (98, 100, 144),
    "kernels, bfloat16": (98, 100, 150),
}
"""Operators, views and launches of a step on the weights of GPT-2 small, by the path.

The second path is that of a GPU without bfloat16, the third that of any other. Launches inside the kernels' operators are
counted; any other operator counts as one.
"""


class CountingKernels(Counting):
    """Keeps the arguments of the kernels' operators as well."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def see(self, func: Any, args: tuple[Any, ...]) -> None:
        if func.namespace == "modular_manifolds_kernels":
            self.calls.append((func.overloadpacket.__name__, args))
        super().see(func, args)


@pytest.fixture(scope="module")
def neighbours() -> Iterator[Any]:
    """Files of other folders, by name: the weights lie beside the script that times them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "kernels/bench")
        patch.syspath_prepend(ROOT / "tests/kernels")
        yield importlib.import_module


@pytest.fixture(params=list(COUNTS))
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The way in which the step is computed; plans of other ways are forgotten before and after."""
    name: str = request.param
    reason = None if name.startswith("kernels") else "this test asks for torch"
    monkeypatch.setattr(backend.kernels, "why_not", lambda _: reason)
    monkeypatch.setattr(backend.kernels, "why_not_on", lambda *_: reason)
    monkeypatch.setattr(skew_sign, "half_is_fast", lambda _: name.endswith("bfloat16"))
    plans = vars(skew_sign)["_plan"]
    plans.cache_clear()
    yield name
    plans.cache_clear()


def counted_step(gpt2: Any) -> CountingKernels:
    """The second step of an optimiser; the first one makes what is made once."""
    # An optimiser wants numbers when it is made: those of small matrices, which large ones then replace.
    network = gpt2.network(mm.Stiefel(), "cpu", width=12)
    optimizer = mm.SteepestDescent(network, 0.1, momentum=0.95, nesterov=True)
    shapes = [*gpt2.hidden_shapes(), *gpt2.embedding_shapes()]
    names = (name for name, _ in network.named_parameters())
    by_name = dict(zip(names, shapes, strict=True))
    with fake_device(), NoWaiting():
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group["params"] = [
                torch.nn.Parameter(torch.empty(by_name[name], device="cuda"))
                for name in group["param_names"]
            ]
            for each in group["params"]:
                each.grad = torch.empty_like(each)
        optimizer.step()
        with CountingKernels() as counted:
            optimizer.step()
    return counted


def launches_inside(calls: Sequence[tuple[str, tuple[Any, ...]]], neighbours: Any) -> int:
    """The launches of the kernels' operators, on tensors of the same shapes."""
    launches_of = neighbours("counted").launches_of
    return sum(
        sum(launches_of(lambda machine, n=name, a=args: _launch(machine, n, a)).values())
        for name, args in calls
    )


def _launch(machine: Any, name: str, args: tuple[Any, ...]) -> None:
    """The launches of the operator of this name."""
    from modular_manifolds_kernels import certificate, descent, launches, matrix_sign, retraction
    from modular_manifolds_kernels.certificate import Bound
    from modular_manifolds_kernels.launches import Step, stack
    from modular_manifolds_kernels.operators import polynomials

    args = tree_map_only(torch.Tensor, _without_storage, args)
    if name == "msign":
        matrix_sign.msign_and_scale(machine, args[0], polynomials(args[1]), args[2])
    elif name == "stiefel_retract":
        w, a, eta, corrections, *_ = args
        retraction.stiefel_retract(
            machine, w, a, Step(eta, None, unit=False), corrections, measured=False
        )
    elif name == "unit_length":
        x, rows = args
        launches.unit_length(machine, stack(x), torch.empty_like(x), rows=rows)
    elif name == "certify_":
        a, g, omega, scale, bound, *rest = args
        left, right, info = rest or (None, None, None)
        pair = None if left is None or right is None else (left, right)
        certificate.certify_(machine, a, g, omega, pair, scale, info, Bound(*bound))
    elif name == "descend_":
        momenta, gradients, ok, mu, nesterov, turned = args
        descent.descend_(machine, gradients, momenta, ok, mu, nesterov=nesterov, turned=turned)
    elif name == "land_":
        *stacks, turned = args
        descent.land_(machine, *stacks, turned=turned)
    else:
        assert name == "gate_"
        largest, counts, bound = args
        launches.gate_(machine, largest, counts, largest, largest, bound)


def _without_storage(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def test_a_step_on_the_weights_of_gpt2_small(path: str, neighbours: Any) -> None:
    """Weights of one kind are one stack, so the numbers do not depend on the number of layers."""
    counted = counted_step(neighbours("gpt2"))
    by_torch = counted.operators.total() - len(counted.calls)
    launches = by_torch + launches_inside(counted.calls, neighbours)
    print(f"{path}: {counted}, {launches} launches")
    found = counted.operators.total(), counted.views.total(), launches
    assert found == COUNTS[path], f"{path}: {dict(counted.operators.most_common())}"


@pytest.mark.long
def test_torchs_muon_and_adamw_on_the_same_weights(neighbours: Any) -> None:
    """Muon's operators grow with the number of matrices. Of these a step of this library has fewer than half as many."""
    gpt2 = neighbours("gpt2")
    with fake_device():
        weights = gpt2.torch_weights("cuda")
        for each in (*weights[0], *weights[1]):
            each.grad = torch.empty_like(each)
        optimizers = gpt2.torch_optimizers(*weights)
        for each in optimizers:
            each.step()
        with Counting() as counted:
            for each in optimizers:
                each.step()
    print(f"torch.optim.Muon and AdamW: {counted}")
    assert counted.operators.total() >= 2 * max(operators for operators, *_ in COUNTS.values())
