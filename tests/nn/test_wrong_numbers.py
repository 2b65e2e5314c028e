"""Declared numbers that are wrong are refuted."""

from __future__ import annotations

from typing import Any

import cases
import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError
from modular_manifolds.testing import Sample, check_module


class Gain(mm.Bond):
    """A bond with a fault, or none."""

    def __init__(self, gain: float = 1.0, shift: float = 0.0, **declared: float) -> None:
        super().__init__(**declared)  # pyright: ignore[reportArgumentType]
        self.gain, self.shift = gain, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x + self.shift


class Writes(mm.Bond):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp_(min=0)


class Understated(mm.Linear):
    """A linear map whose budget says that its steps move the output half as far as they do."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self._norm_constant = 0.5

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def faults() -> dict[str, tuple[mm.Module, str]]:
    return {
        "slope": (Gain(gain=1.01), "sensitivity bounds the slope: measured"),
        "negative slope": (
            Gain(gain=-1.5, sensitivity=1.2),
            "sensitivity bounds the slope: measured",
        ),
        "offset": (Gain(shift=0.1), "give outputs within reach: measured"),
        "writes": (Writes(), "'input' was written into"),
        "norm constant": (Understated(), "a step of unit length moves the output: measured"),
    }


@pytest.mark.parametrize("name", faults())
def test_declared_numbers_that_are_wrong_are_refuted(name: str) -> None:
    module, message = faults()[name]
    with pytest.raises(AssertionError, match=message):
        check_module(cases.in_double(module), Sample((3,), torch.float64))


def test_declared_numbers_that_are_right_are_not() -> None:
    check_module(Gain(gain=-1.5, sensitivity=1.5))
    check_module(Gain(shift=0.1, offset=0.1 * 7))
    check_module(Fan(mm.Space(2)))
    with pytest.raises(ArgumentError, match="must take vectors"):
        check_module(Fan(mm.SAME))


def test_a_wrong_number_on_a_tuple_is_refuted() -> None:
    wrong = Fan(mm.Space(2))
    wrong.gain = 1.1
    with pytest.raises(AssertionError, match="sensitivity bounds the slope: measured"):
        check_module(wrong)


class Fan(mm.Bond):
    """Takes a tuple."""

    def __init__(self, first: Any) -> None:
        super().__init__(source=mm.ProductSpace((first, mm.Space(2))), target=mm.Space(2))
        self.gain = 1.0

    def forward(self, x: Any) -> Tensor:
        return x[0] + self.gain * x[1]
