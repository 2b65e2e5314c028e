"""No step on an accelerator reads a number: shown with tensors that have none."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
import torch
from fakes import Counting, NoWaiting, fake_device, move_to_fake_device
from long_tests import mostly_long
from weights import EVERY_PAIR_MOSTLY_LONG, Weight, named

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.optim import steepest_descent
from modular_manifolds.optim.mailbox import Mailbox

SHAPES = {
    "tall": (3072, 768),
    "wide": (768, 3072),
    "square": (768, 768),
    "stack of 12": (12, 64, 768),
    "stack of 432": (432, 64, 768),
}
HOW: dict[str, Any] = {"momentum": 0.95, "nesterov": True}


def optimiser(
    manifold: mm.Manifold, norm: mm.Norm, shape: tuple[int, ...], count: int = 2, **how: Any
) -> mm.SteepestDescent:
    """An optimiser of small weights with as many dimensions as `shape`, in whose places others can be put."""
    small = (2, 3, 4) if len(shape) == 3 else (4, 3)
    first, *others = (Weight(manifold, norm, small) for _ in range(count))
    return mm.SteepestDescent(reduce(lambda f, g: f >> g, others, first), 0.1, **how)


@EVERY_PAIR_MOSTLY_LONG
@pytest.mark.parametrize(
    "dtype", mostly_long([torch.float32, torch.bfloat16], usual=2), ids=["float32", "bfloat16"]
)
def test_two_steps_on_an_accelerator_read_no_number(
    manifold: type[mm.Manifold], norm: type[mm.Norm], dtype: torch.dtype
) -> None:
    for shape in SHAPES.values():
        opt = optimiser(manifold(), norm(), shape, **HOW, tangent_momentum=True, noise_damping=True)
        with fake_device(), NoWaiting():
            move_to_fake_device(opt, dtype, shape)
            for _ in range(2):
                opt.step()
            for path, parameter in named(opt).items():
                assert opt.diagnoses[path].gap.shape == shape[:-2]
                assert opt.state[parameter]["momentum"].shape == shape


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_settings_of_every_kind_read_no_number(as_tensor: bool, capturable: bool) -> None:
    net = Weight(mm.Euclidean(), mm.RowRMS(), (4, 3))
    opt = mm.SteepestDescent(
        net, 0.1, **HOW, weight_decay=0.1, capturable=capturable, on_nonfinite="skip"
    )
    with fake_device(), NoWaiting():
        move_to_fake_device(opt, torch.float32)
        if capturable or as_tensor:
            opt.param_groups[0]["lr"] = torch.empty((), device="cuda")
        for _ in range(3):
            opt.step()
            opt.param_groups[0]["shares"] = [2 * opt.param_groups[0]["shares"][0]]
        opt.check()
    assert opt.skipped == 0


def operators(count: int, dtype: torch.dtype = torch.float32) -> Counting:
    """The operators of a step of `count` equal weights in sign descent, whose solver and retraction take four."""
    opt = optimiser(mm.Euclidean(), mm.Max(), (64, 32), count, **HOW)
    with fake_device():
        move_to_fake_device(opt, dtype)
        opt.step()
        with Counting() as counted:
            opt.step()
    return counted


def test_the_number_of_operators_does_not_grow_with_the_number_of_weights() -> None:
    found = operators(2)
    print(found)
    assert operators(40).operators == found.operators
    assert found.operators.total() <= 38
    # A master copy is compared with its weight.
    assert operators(2, torch.bfloat16).operators.total() <= 46


def test_a_bucket_more_is_a_few_operators_more() -> None:
    one = operators(2).operators.total()
    net = reduce(
        lambda f, g: f >> g,
        (Weight(mm.Euclidean(), mm.Max(), shape) for shape in [(4, 3)] * 2 + [(5, 2)] * 2),
    )
    opt = mm.SteepestDescent(net, 0.1, **HOW)
    with fake_device():
        move_to_fake_device(opt, torch.float32)
        opt.step()
        with Counting() as counted:
            opt.step()
    # Five of them are the solver's and the retraction's.
    assert counted.operators.total() - one <= 20


def test_a_wait_is_noticed() -> None:
    """The law can fail: reads of numbers, and operators that wait."""
    with fake_device(), NoWaiting():
        x = torch.empty(3, 3, device="cuda")
        for wait in (
            lambda: float(x.sum()),
            lambda: bool((x > 0).all()),
            lambda: x[x > 0],
            lambda: torch.linalg.svd(x),
            lambda: torch.linalg.eigvalsh(x),
        ):
            with pytest.raises((AssertionError, RuntimeError)):
                wait()
        assert x[0, 1:].shape == (2,)
        assert x[..., None, 0].shape == (3, 1)


def test_what_a_captured_graph_would_freeze_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = optimiser(mm.Euclidean(), mm.Max(), (4, 3), capturable=True)
    with fake_device():
        move_to_fake_device(opt, torch.float32)
        rate = opt.param_groups[0]["lr"] = torch.empty((), device="cuda")
        opt.step()
        monkeypatch.setattr(steepest_descent, "is_capturing", lambda: True)
        with NoWaiting():
            opt.step()
        first, last = opt.param_groups[0]["params"]

        def refuse(message: str) -> None:
            with pytest.raises(ArgumentError, match=f"step\\(\\) in a captured graph {message}"):
                opt.step()

        last.grad, kept = None, last.grad
        refuse("needs a gradient of every weight, .* got no gradient of '1.weight'")
        last.grad = kept
        for lr in (0.1, torch.tensor(0.1)):
            opt.param_groups[0]["lr"] = lr
            refuse("needs an lr tensor on the device")
        opt.param_groups[0]["lr"] = rate
        opt.param_groups[0]["shares"][0] *= 2
        refuse("needs the weights, shares and gradients of the previous step")
        opt.param_groups[0]["shares"][0] /= 2
        opt.param_groups[0]["params"][1] = torch.nn.Parameter(torch.empty_like(first))
        opt.param_groups[0]["params"][1].grad = torch.empty_like(first)
        refuse("needs the weights, shares and gradients of the previous step")
    plain = optimiser(mm.Euclidean(), mm.Max(), (4, 3))
    with pytest.raises(ArgumentError, match="needs a capturable optimizer, got capturable=False"):
        plain.step()
    host = optimiser(mm.Euclidean(), mm.Max(), (4, 3), capturable=True)
    assert isinstance(host.param_groups[0]["lr"], torch.Tensor)
    with pytest.raises(ArgumentError, match="got a tensor on the CPU"):
        host.step()


def test_a_letter_of_a_tracer_is_never_read() -> None:
    box = Mailbox()
    assert box.collect() is None
    with fake_device():
        box.post(torch.empty(3, device="cuda"))
    assert box.collect() is None
