"""Reports are about the weights that forward uses, and refuse weights that they cannot speak of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from long_tests import mostly_long
from reports import FEATURES, REPORTS, scene
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import modular_manifolds as mm
from modular_manifolds.certificates import LipschitzReport
from modular_manifolds.errors import ArgumentError, NonFiniteError


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


@pytest.mark.parametrize("size", mostly_long([0.0, 1e-300, 1e-30, 1.0, 1e30, 1e200], usual=5))
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
