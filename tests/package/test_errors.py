"""Every error that a caller can cause is one line: argument, rule, value seen, remedy. And it travels."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from collections.abc import Callable

import pytest
import torch

import modular_manifolds as mm
from modular_manifolds import errors
from modular_manifolds.solvers import TABLE

FAMILY = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.ArgumentError)
]


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_a_message_holds_its_four_parts_in_order(kind: type[errors.ArgumentError]) -> None:
    error = kind("lr", "must be finite and positive", -0.1, "Pass a learning rate such as 0.1.")
    assert (
        str(error) == "lr must be finite and positive, got -0.1. Pass a learning rate such as 0.1."
    )
    assert (error.argument, error.rule, error.seen) == ("lr", "must be finite and positive", -0.1)
    assert error.remedy == "Pass a learning rate such as 0.1."


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_errors_are_value_errors_of_one_family(kind: type[errors.ArgumentError]) -> None:
    assert issubclass(kind, errors.ModularManifoldsError)
    assert issubclass(kind, ValueError)
    assert kind.__doc__


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "travel",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(6)),
    ],
)
def test_errors_survive_copying_and_pickling(
    kind: type[errors.ArgumentError], travel: Callable[[errors.ArgumentError], errors.ArgumentError]
) -> None:
    """Data loaders and process pools send errors through pickle."""
    error = kind("a", "must be b", (1, 2), "Do c.")
    twin = travel(error)
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert (twin.argument, twin.rule, twin.seen, twin.remedy) == ("a", "must be b", (1, 2), "Do c.")


def caused() -> dict[str, tuple[type[errors.ArgumentError], Callable[[], object]]]:
    """One caller's mistake for each kind of error that this part of the library raises."""
    f = mm.Linear(3, 3)
    nan = torch.full((3, 3), math.nan)
    return {
        "argument": (errors.ArgumentError, lambda: mm.Sphere(radius=-1.0)),
        "space": (errors.SpaceError, lambda: mm.Linear(3, 4) >> mm.Linear(3, 4)),
        "shape": (errors.ShapeError, lambda: mm.Stiefel().project(torch.zeros(0, 3))),
        "shared": (errors.SharedWeightError, lambda: f >> f),
        "pair": (
            errors.UnsupportedPairError,
            lambda: mm.Linear(3, 3, manifold=mm.Sphere(), norm=mm.RowRMS()),
        ),
        "nan": (errors.NonFiniteError, lambda: mm.Stiefel().project(nan)),
        "backend": (errors.BackendError, lambda: mm.msign(torch.eye(3), backend="triton")),
    }


@pytest.mark.parametrize("name", caused())
def test_real_errors_are_one_line_with_rule_value_and_remedy(name: str) -> None:
    kind, act = caused()[name]
    with pytest.raises(kind) as caught:
        act()
    error = caught.value
    assert type(error) is kind
    text = str(error)
    assert "\n" not in text
    assert error.rule.startswith("must ")
    assert text == f"{error.argument} {error.rule}, got {error.seen}. {error.remedy}"
    assert error.remedy.endswith(".")
    assert len(error.remedy.split()) >= 2
    assert str(pickle.loads(pickle.dumps(error))) == text


def test_an_unsupported_pair_lists_the_supported_ones() -> None:
    with pytest.raises(errors.UnsupportedPairError) as caught:
        mm.solvers.select(mm.Oblique(), mm.Spectral())
    listed = caught.value.remedy.removeprefix("Use one of ").removesuffix(".").split(", ")
    assert listed == [f"{m.__name__} × {n.__name__}" for m, n in TABLE]
    assert caught.value.seen == "Oblique × Spectral"


def test_one_except_catches_everything_a_caller_can_cause() -> None:
    for _, act in caused().values():
        with pytest.raises(errors.ModularManifoldsError):
            act()
