"""Every atom and bond of the library against the laws, and numbers slightly too small, which must be refuted."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace

import cases
import pytest
import torch
from long_tests import mostly_long
from torch import Tensor
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.testing import Sample, check_module
from modular_manifolds.testing.module_laws import no_ascent_beats_the_sensitivity

EXACT = Sample((5,), torch.float64)


def exported() -> set[type[mm.Module]]:
    return {
        each
        for each in vars(mm).values()
        if inspect.isclass(each)
        and issubclass(each, mm.Atom | mm.Bond)
        and not inspect.isabstract(each)
    }


def test_every_exported_atom_and_bond_has_a_row() -> None:
    found = {type(part) for case in cases.MODULES for part in case.build().modules()}
    missing = sorted(each.__name__ for each in exported() - found)
    assert not missing, f"add a row to MODULES in tests/cases.py for {', '.join(missing)}"
    assert {mm.Linear, mm.GELU} <= exported()


@pytest.mark.parametrize("case", cases.MODULES, ids=cases.name)
def test_every_atom_and_bond_keeps_what_it_declares(case: cases.ModuleCase) -> None:
    check_module(cases.in_double(case.build()), EXACT)


@pytest.mark.parametrize(
    "case",
    mostly_long([case for case in cases.MODULES if case.tight], usual=3),
    ids=cases.name,
)
def test_nine_tenths_of_a_sensitivity_are_refuted(case: cases.ModuleCase) -> None:
    module = cases.in_double(case.build())
    own = module._own
    module._own = replace(own, sensitivity=0.9 * own.sensitivity)  # pyright: ignore
    with pytest.raises(AssertionError, match="sensitivity"):
        check_module(module, EXACT)
    with pytest.raises(AssertionError, match="no ascent beats the sensitivity: measured"):
        no_ascent_beats_the_sensitivity(module, EXACT)


class Divided(mm.Bond):
    """GELU divided by a number: 1.1289, which was used for it, is 3.7e-6 below its slope in relative terms."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x) / self.divisor


@pytest.mark.parametrize(
    ("features", "seed"),
    mostly_long([(1, 0), (1, 1), (3, 2), (7, 0), (32, 1)], usual=5, several=True),
)
def test_a_gelu_divided_by_slightly_too_little_is_refuted(features: int, seed: int) -> None:
    sample = Sample((features,), torch.float64, seed=seed)
    assert sample.tolerance < 1e-6
    slope = 0.5 * (1 + math.erf(1.0)) + math.exp(-1.0) / math.sqrt(math.pi)
    no_ascent_beats_the_sensitivity(Divided(slope * (1 + 1e-15)), sample)
    with pytest.raises(AssertionError, match="no ascent beats the sensitivity: measured"):
        no_ascent_beats_the_sensitivity(Divided(1.1289), sample)
    with pytest.raises(AssertionError, match="sensitivity"):
        check_module(Divided(1.1289), sample)


class Needle(mm.Bond):
    """`relu(±m − 4)` of the mean m, twice as steep as declared and flat around zero."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        return 2 * (functional.relu(mean - 4) + functional.relu(-mean - 4)).expand_as(x)


class Blind(mm.Bond):
    """A bond that torch cannot differentiate: the search goes on at random."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.001 * x.detach()


@pytest.mark.parametrize("bond", [Needle(), Blind()], ids=lambda bond: type(bond).__name__)
def test_what_pairs_near_zero_do_not_see_is_refuted(bond: mm.Bond) -> None:
    with pytest.raises(AssertionError, match="no ascent beats the sensitivity: measured"):
        no_ascent_beats_the_sensitivity(bond, EXACT)
