"""Every report is the same in every mode that torch may be in."""

from __future__ import annotations

import pytest
import torch
from long_tests import mostly_long
from reports import ALL, ATTACK, FEATURES, REPORTS, plain, scene
from surroundings import SURROUNDINGS
from torch import Tensor

import modular_manifolds as mm

USUAL = ("inference mode", "autocast to bfloat16", "fused attention")


@pytest.mark.parametrize("where", mostly_long(SURROUNDINGS, usual=lambda name: name in USUAL))
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
    "where",
    mostly_long(["autocast to bfloat16", "products in bfloat16", "fused attention"], usual=3),
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
