"""Every report is the same in every mode that torch may be in, and leaves the network and torch as they were."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from surroundings import SURROUNDINGS
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import modular_manifolds as mm
from modular_manifolds.certificates import LipschitzReport
from modular_manifolds.errors import ArgumentError, NonFiniteError
from modular_manifolds.training.guarantees import guarantees
from modular_manifolds.training.health import health

FEATURES, CLASSES = 6, 3
ATTACK = mm.ProjectedGradient(steps=3, restarts=2)


def network() -> mm.Module:
    """Weights on three manifolds, and dropout."""
    return (
        mm.Linear(FEATURES, 5)
        >> mm.ReLU()
        >> mm.Dropout(0.4)
        >> mm.Linear(5, 5, manifold=mm.SpectralBall())
        >> mm.Flatten()
        >> mm.Linear(5, CLASSES, manifold=mm.Euclidean())
    )


def scene() -> tuple[mm.Module, Tensor, Tensor]:
    """The network, points and labels that it predicts."""
    torch.manual_seed(3)
    net = network()
    x = torch.randn(8, FEATURES)
    return net, x, net.eval()(x).argmax(dim=1)


def without_dropout(net: mm.Module) -> mm.Module:
    parts = [each for each in net.children() if isinstance(each, mm.Module)]
    return mm.Series(*[each for each in parts if not isinstance(each, mm.Dropout)])


def attacked(net: mm.Module, x: Tensor, y: Tensor) -> list[float]:
    return ATTACK(net.double(), x.double(), y, 0.5).flatten().tolist()


Report = Callable[[mm.Module, Tensor, Tensor], Any]
REPORTS: dict[str, Report] = {
    "lipschitz": lambda net, _, __: mm.lipschitz(net, radius=9.0, starts=3, iterations=4),
    "lipschitz at points": lambda net, x, _: mm.lipschitz(net, points=x, iterations=4),
    "activations": lambda net, _, __: mm.activations(net, radius=2.0),
    "activations at points": lambda net, x, _: mm.activations(net, points=x),
    "conditioning": lambda net, _, __: mm.conditioning(net),
    "robustness": lambda net, x, y: mm.robustness(net, x, y, radii=[0.1, 0.5], attack=ATTACK),
    "local": lambda net, x, _: mm.local_lipschitz(without_dropout(net), x[0], radius=1e-4),
    "attack": attacked,
    "check_module": lambda net, _, __: mm.testing.check_module(net),
}
OF_A_RUN: dict[str, Report] = {
    "guarantees": lambda net, x, _: guarantees(net, 0.1, x).lipschitz,
    "health": lambda net, _, __: health(net),
}
ALL = REPORTS | OF_A_RUN


@cache
def plain(report: str) -> str:
    """The numbers of a report outside all modes, to the last bit."""
    return repr(ALL[report](*scene()))


@pytest.mark.parametrize("where", SURROUNDINGS)
@pytest.mark.parametrize("report", ALL)
def test_a_report_is_the_same_in_all_surroundings(report: str, where: str) -> None:
    expected = plain(report)
    net, x, y = scene()
    with SURROUNDINGS[where]():
        assert repr(ALL[report](net, x, y)) == expected


@pytest.mark.parametrize("report", REPORTS)
def test_a_network_made_in_inference_mode_has_the_same_report(report: str) -> None:
    expected = plain(report)
    with torch.inference_mode():
        net, x, y = scene()
        inside = repr(REPORTS[report](net, x, y))
        scale = mm.InputScale(torch.zeros(FEATURES), torch.ones(FEATURES), "units", slack=0.0)
    assert inside == repr(REPORTS[report](net, x, y)) == expected
    if report == "robustness":
        found = mm.robustness(net, x, y, radii=[0.1, 0.5], attack=ATTACK, scale=scale)
        assert found.rows == mm.robustness(net, x, y, radii=[0.1, 0.5], attack=ATTACK).rows


@pytest.mark.parametrize(
    "where", ["autocast to bfloat16", "products in bfloat16", "fused attention"]
)
def test_attention_and_convolutions_are_examined_in_full_precision(where: str) -> None:
    images = mm.Conv2d(1, 2, 2, size=3)
    heads = {name: mm.Heads(4, 1, 4) for name in ("query", "key", "value")}
    tokens = mm.Embedding(5, 4) >> mm.Parallel(**heads) >> mm.CausalAttention(4)

    def reports() -> str:
        mm.testing.check_module(images)
        found = mm.lipschitz(tokens, radius=1.0, starts=2, iterations=2)
        return repr([found, mm.activations(tokens, radius=1.0), mm.lipschitz(images, starts=2)])

    expected = reports()
    with SURROUNDINGS[where]():
        assert reports() == expected


class Own(mm.Bond):
    """A user's bond: its constant follows torch's defaults, and its root has the derivative NaN at zero."""

    def forward(self, x: Tensor) -> Tensor:
        root = x.relu().square().sum(dim=-1, keepdim=True).sqrt()
        return torch.full((1,), 0.3) * x + 0 * root


@pytest.mark.parametrize(
    "where", ["anomaly detection", "default dtype bfloat16", "default device meta"]
)
def test_bonds_of_users_are_examined_in_torch_s_defaults(where: str) -> None:
    net, x = Own() >> mm.Linear(4, 3), torch.zeros(3, 4)

    def reports() -> str:
        slopes = mm.lipschitz(net, points=x, iterations=3)
        predictions = mm.robustness(net, x, [0, 0, 0], radii=[0.1], attack=ATTACK)
        return repr([slopes, mm.activations(net, points=x), predictions])

    expected = reports()
    with SURROUNDINGS[where]():
        assert reports() == expected


def as_in_training(net: mm.Module) -> None:
    net.train()
    for part in net.modules():
        if isinstance(part, mm.Dropout):
            # Its bound is that of its mode: see test_bonds.py.
            part.eval()


def frozen(net: mm.Module) -> None:
    net.requires_grad_(False)


def after_a_backward_pass(net: mm.Module) -> None:
    net(torch.randn(4, FEATURES)).sum().backward()


def with_kept_outputs(net: mm.Module) -> None:
    """By a hook, in a container, and beside an object that cannot be copied."""
    first = net.get_submodule("1")
    first.register_forward_hook(lambda module, _, y: setattr(module, "last", y))
    vars(first)["cache"] = {"keys": [torch.ones(2, requires_grad=True) * 2]}
    vars(first)["lock"] = threading.Lock()
    net(torch.randn(4, FEATURES))


class Negated(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return -weight


def with_a_parametrization(net: mm.Module) -> None:
    last = net.get_submodule("5")
    last.get_parameter("weight").data.neg_()
    parametrize.register_parametrization(last, "weight", Negated())


def with_a_plain_tensor(net: mm.Module) -> None:
    last = net.get_submodule("5")
    weight = last.get_parameter("weight").detach()
    del last.weight
    vars(last)["weight"] = weight.requires_grad_() * 1.0


def with_a_mask_of_ones(net: mm.Module) -> None:
    prune.custom_from_mask(net.get_submodule("5"), "weight", torch.ones(CLASSES, 5))


CHANGES = [
    as_in_training,
    frozen,
    after_a_backward_pass,
    with_kept_outputs,
    with_a_parametrization,
    with_a_plain_tensor,
    with_a_mask_of_ones,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("report", REPORTS)
def test_a_report_does_not_depend_on_what_a_network_keeps(
    report: str, change: Callable[[mm.Module], None]
) -> None:
    if report == "attack" and change is with_a_plain_tensor:
        return  # net.double() leaves a plain tensor behind: the network itself does not run.
    expected = plain(report)
    net, x, y = scene()
    change(net)
    assert repr(REPORTS[report](net, x, y)) == expected


class Counting(nn.Module):
    """As torch's spectral normalisation, it writes into a buffer whenever the weight is used in training."""

    uses: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("uses", torch.zeros(()))

    def forward(self, weight: Tensor) -> Tensor:
        if self.training:
            self.uses += 1
        return 0.5 * weight


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


def state(net: nn.Module) -> list[object]:
    """All that a report must leave alone, tensors by identity and version."""
    tensors = [*net.parameters(), *net.buffers()]
    modules = list(net.modules())
    return [
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        [(id(each), each._version, each.dtype, each.requires_grad) for each in tensors],
        [None if each.grad is None else each.grad.tolist() for each in net.parameters()],
        [(id(each), each.training, sorted(vars(each))) for each in modules],
        [[sorted(vars(each)[kind]) for kind in HOOKS] for each in modules],
    ]


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_changes_nothing(report: str) -> None:
    net, x, y = scene()
    net.train()
    net.get_submodule("3").requires_grad_(False)
    parametrize.register_parametrization(net.get_submodule("5"), "weight", Counting())
    if report == "attack":
        net = net.double()
    called: list[object] = []
    for each in net.modules():
        each.register_forward_hook(lambda *given: called.append(given))
        each.register_forward_pre_hook(lambda *given: called.append(given))
    net(x.to(next(net.parameters()))).sum().backward()
    called.clear()
    before = state(net)
    REPORTS[report](net, x, y)
    assert state(net) == before
    assert not called, "a hook of the caller's was called"


def pruned(net: mm.Module) -> None:
    prune.random_unstructured(net.get_submodule("3"), "weight", 0.5)
    # The next forward pass sees this; the attribute that pruning set does not.
    net.get_parameter("3.weight_orig").data.mul_(2)


def spectrally_normalised(net: mm.Module) -> None:
    parametrizations.spectral_norm(net.get_submodule("5"))


def weight_normalised(net: mm.Module) -> None:
    parametrizations.weight_norm(net.get_submodule("5"))
    net.get_parameter("5.parametrizations.weight.original0").data.mul_(3)


def by_hooks(net: mm.Module) -> None:
    """By torch's older functions, of which it says that there are newer ones."""
    nn.utils.weight_norm(net.get_submodule("5"))
    net.get_parameter("5.weight_g").data.mul_(3)
    nn.utils.spectral_norm(net.get_submodule("3"))


@pytest.mark.parametrize(
    "change", [pruned, spectrally_normalised, weight_normalised, by_hooks], ids=lambda c: c.__name__
)
@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
def test_a_report_is_about_the_weights_that_forward_uses(
    change: Callable[[mm.Module], None],
) -> None:
    net, x, _ = scene()
    change(net)
    net.eval()
    # A linear map in three pieces: what each is given and gives tells its matrix.
    seen: dict[str, Tensor] = {}
    for path in ("0", "3", "5"):
        module = net.get_submodule(path)
        seen[path] = module(torch.eye(FEATURES if path == "0" else 5)).detach().T.double()
    largest = {path: float(torch.linalg.matrix_norm(w, 2)) for path, w in seen.items()}
    rows = {row.path.split(".")[0]: row for row in mm.conditioning(net).rows}
    slopes = {row.path: row for row in mm.lipschitz(net, starts=2, iterations=2).rows}
    for path, size in largest.items():
        # The matrices were read off a forward pass in float32.
        assert rows[path].largest == pytest.approx(size, rel=1e-5)
        assert slopes[path].certified == pytest.approx(size, rel=1e-5)
    reached = [row.output.measured for row in mm.activations(net, points=x).rows]
    expected = float(torch.linalg.vector_norm(net(x).detach().double(), dim=1).amax())
    assert reached[-1] == pytest.approx(expected, rel=1e-5)


def complex_weights(net: mm.Module) -> None:
    # nn.Module warns that complex modules are new.
    parameter = net.get_parameter("3.weight")
    net.get_submodule("3").weight = nn.Parameter(parameter.detach() + 5j)


def nan_weights(net: mm.Module) -> None:
    net.get_parameter("3.weight").data[0, 0] = math.nan


def infinite_weights(net: mm.Module) -> None:
    net.get_parameter("3.weight").data[0, 0] = math.inf


def meta_weights(net: mm.Module) -> None:
    net.get_submodule("3").to("meta")


def sparse_weights(net: mm.Module) -> None:
    weight = net.get_parameter("3.weight").detach().to_sparse()
    net.get_submodule("3").weight = nn.Parameter(weight)


def whole_weights(net: mm.Module) -> None:
    weight = nn.Parameter(torch.ones(5, 5, dtype=torch.int8), requires_grad=False)
    net.get_submodule("3").weight = weight


def no_weights(net: mm.Module) -> None:
    vars(net.get_submodule("3"))["_parameters"]["weight"] = None


REFUSED: dict[Callable[[mm.Module], None], tuple[type[Exception], str]] = {
    complex_weights: (ArgumentError, "must be of a real floating dtype, got torch.complex64"),
    nan_weights: (NonFiniteError, "must be finite, got 1 of 25 entries"),
    infinite_weights: (NonFiniteError, "must be finite, got 1 of 25 entries"),
    meta_weights: (ArgumentError, "must have values, got a parameter on the meta device"),
    sparse_weights: (ArgumentError, "must be dense, got torch.sparse_coo"),
    whole_weights: (ArgumentError, "must be of a real floating dtype, got torch.int8"),
    no_weights: (ArgumentError, "must be a tensor, got nothing"),
}


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
@pytest.mark.parametrize("report", [each for each in REPORTS if each != "attack"])
def test_weights_that_no_report_can_speak_of_are_refused_by_name(
    report: str, change: Callable[[mm.Module], None]
) -> None:
    net, x, y = scene()
    change(net)
    kind, rule = REFUSED[change]
    named = rf"the weight '(3|2).weight' {rule}"
    with pytest.raises(kind, match=rf"{named}|must have weights with values, got '(3|2).weight'"):
        REPORTS[report](net, x, y)


def numbers(report: Any) -> list[float]:
    """All numbers of a report, however nested."""
    if dataclasses.is_dataclass(report) and not isinstance(report, type):
        return [
            x for each in dataclasses.fields(report) for x in numbers(getattr(report, each.name))
        ]
    if isinstance(report, list | tuple):
        return [x for each in report for x in numbers(each)]
    return [float(report)] if isinstance(report, float) else []


DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("size", [0.0, 1e-300, 1e-30, 1.0, 1e30, 1e200])
@pytest.mark.parametrize("report", [each for each in REPORTS if each != "check_module"])
def test_no_report_on_finite_weights_says_nan(report: str, size: float) -> None:
    for dtype in DTYPES:
        net, x, y = scene()
        net = net.to(dtype)
        for each in net.parameters():
            each.data.mul_(size)
        if not all(bool(torch.isfinite(each).all()) for each in net.parameters()):
            continue  # The dtype has no such numbers.
        if size < 1e200:
            y = net(x.to(dtype)).argmax(dim=1)
        elif report == "robustness":
            with pytest.raises(NonFiniteError, match="the network's outputs must be finite"):
                REPORTS[report](net, x, y)
            continue
        found = REPORTS[report](net, x, y)
        assert not any(math.isnan(each) for each in numbers(found))
        if isinstance(found, LipschitzReport):
            assert found.empirical <= found.certified
            assert found.certified > 0 or not any(bool(each.any()) for each in net.parameters())


def test_a_search_that_found_nothing_says_so() -> None:
    net, x, _ = scene()
    none = mm.lipschitz(net, iterations=0)
    assert (none.empirical, none.tightness, none.searched) == (0.0, math.inf, 0)
    assert "(not searched)" in str(none)
    assert "no slope was searched for" in none.advice()[-1]
    assert all(row.empirical is None for row in none.rows)
    assert "no slope was searched for" in mm.lipschitz(net, points=x[:0]).advice()[-1]
    # Everything is dead here: ReLU is given negative numbers only.
    dead = mm.Linear(FEATURES, FEATURES) >> mm.Bias(FEATURES) >> mm.ReLU()
    dead.get_parameter("1.weight").data.fill_(-1e3)
    found = mm.lipschitz(dead, points=x)
    assert found.searched == len(x)
    assert "(no slope found)" in str(found)
    assert "no slope was found at 8 points" in found.advice()[-1]
    for each in net.parameters():
        each.data.zero_()
    constant = mm.lipschitz(net)
    assert (constant.certified, constant.empirical, constant.tightness) == (0.0, 0.0, 1.0)
    assert "slope" not in str(constant)
    for bad in (-1, 1.5, True):
        with pytest.raises(ArgumentError, match=r"lipschitz\(starts\) must be a whole number of"):
            mm.lipschitz(net, starts=bad)  # pyright: ignore[reportArgumentType]
    nothing = mm.activations(net, radius=1.0, points=x[:0]).rows[0]
    assert nothing.output.measured is nothing.gradient.measured is None


def test_inside_a_transform_a_report_is_refused() -> None:
    net, x, _ = scene()

    def bound(_: Tensor) -> Tensor:
        return torch.tensor(mm.lipschitz(net).certified)

    for call in (lambda: torch.func.vmap(bound)(x), lambda: torch.func.grad(bound)(x.sum())):
        with pytest.raises(ArgumentError, match=r"a report must be computed outside torch.func"):
            call()
