"""Every number that is taken may be Python's, numpy's or a fraction; what is kept is Python's."""

from __future__ import annotations

import dataclasses
import inspect
import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import cases
import numpy as np
import pytest
import torch
from networks import MODELS

import modular_manifolds as mm
from modular_manifolds.arguments import NOT_NEGATIVE, POSITIVE, check_count, check_number
from modular_manifolds.composition import Signature
from modular_manifolds.errors import ArgumentError
from modular_manifolds.solvers import Solver, pairs

SOLVERS = list(dict.fromkeys(each for pair in pairs() for each in cases.solvers(pair)))


HUGE = [math.inf, -1, 10**400, -(10**400), np.float64("-inf")]


def of_numpy(value: Any) -> Any:
    """The same numbers as numpy's, in tuples too."""
    match value:
        case bool():
            return value
        case int():
            return np.int64(value)
        case float():
            return np.float64(value)
        case tuple():
            return tuple(map(of_numpy, value))
        case _:
            return value


def is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(is_plain, value))
    return not isinstance(value, np.generic)


def numbers_of(arguments: dict[str, Any]) -> list[str]:
    return [
        name
        for name, value in arguments.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


@pytest.mark.parametrize(
    "value", [3, np.int8(3), np.uint64(3), np.array(3), torch.tensor(3), np.int64(3)], ids=repr
)
def test_whole_numbers_of_every_kind_are_taken(value: Any) -> None:
    found = check_count(value, argument="n")
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    [True, np.True_, torch.tensor(True), 2.0, np.float64(2), "2", None, [2], 0, -1, math.nan],
)
def test_what_is_no_positive_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^n must be a positive whole number, got"):
        check_count(value, argument="n")


def test_a_tensor_without_a_value_is_no_whole_number() -> None:
    with pytest.raises(ArgumentError, match="whole number of at least 0"):
        check_count(torch.tensor(3, device="meta"), argument="n", least=0)


@pytest.mark.parametrize(
    "value",
    [0.5, np.float16(0.5), np.float32(0.5), np.float64(0.5), np.longdouble(0.5), Fraction(1, 2)],
    ids=repr,
)
def test_real_numbers_of_every_kind_are_taken(value: Any) -> None:
    found = check_number(value, POSITIVE, argument="x", remedy="Pass one.")
    assert found == 0.5
    assert type(found) is float


@pytest.mark.parametrize(
    "value",
    [True, np.True_, "1", None, 1j, [1.0], torch.tensor(1.0), math.nan, np.float32("nan"), *HUGE],
)
def test_what_is_no_number_in_the_range_is_refused(value: Any) -> None:
    with pytest.raises(
        ArgumentError, match=r"^x must be finite and at least 0, got .* Pass one\.$"
    ):
        check_number(value, NOT_NEGATIVE, argument="x", remedy="Pass one.")


@pytest.mark.parametrize("case", cases.MODULES, ids=cases.name)
def test_modules_take_numbers_of_numpy_and_keep_their_own(case: cases.ModuleCase) -> None:
    module = case.build()
    arguments = module.arguments()
    again = type(module)(**{name: of_numpy(value) for name, value in arguments.items()})
    again.train(module.training)
    assert again.arguments() == arguments
    assert all(map(is_plain, again.arguments().values()))
    # Nothing else of the module may be numpy's either: it would travel into figures and files.
    assert all(map(is_plain, vars(again).values()))
    assert again.tree() == module.tree()
    assert mm.NetworkSpec.from_module(again) == mm.NetworkSpec.from_module(module)
    signature: Signature = again.tree().signature
    assert {type(signature.mass), type(signature.sensitivity)} == {float}


@pytest.mark.parametrize("case", cases.MODULES, ids=cases.name)
def test_modules_refuse_what_is_no_number_by_its_name(case: cases.ModuleCase) -> None:
    module = case.build()
    for name in numbers_of(module.arguments()):
        for value in (True, math.nan, np.float32("nan"), -math.inf, "1"):
            with pytest.raises(ArgumentError) as caught:
                type(module)(**{**module.arguments(), name: value})
            assert caught.value.argument.endswith(f"({name})")


@pytest.mark.parametrize("name", MODELS)
def test_models_take_numbers_of_numpy(name: str) -> None:
    model, given = MODELS[name]
    defaults = {
        each.name: each.default
        for each in inspect.signature(model).parameters.values()
        if each.default is not each.empty
    }
    arguments = {**defaults, **given}
    again = model(**{key: of_numpy(value) for key, value in arguments.items()})
    assert again.tree() == model(**arguments).tree()
    spec = mm.NetworkSpec.from_module(again)
    assert spec == mm.NetworkSpec.from_module(model(**arguments))


def test_sizes_do_not_overflow_in_a_narrow_type() -> None:
    width = np.int8(70)  # twice as many are no int8
    net = mm.models.ConvNet(1, 2, size=(2, 2), width=width, depth=1)  # pyright: ignore[reportArgumentType]
    assert net.source == mm.Space(4)
    assert isinstance(net.target, mm.Space)


@pytest.mark.parametrize("manifold", cases.MANIFOLDS, ids=cases.name)
def test_manifolds_keep_their_radius_as_a_float(manifold: mm.Manifold) -> None:
    fields = {each.name: getattr(manifold, each.name) for each in dataclasses.fields(manifold)}
    for convert in (of_numpy, lambda r: Fraction(r) if r is not None else r):
        again = type(manifold)(**{name: convert(value) for name, value in fields.items()})
        assert again == manifold
        assert hash(again) == hash(manifold)
        assert repr(again) == repr(manifold)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_solvers_take_numbers_of_numpy_and_refuse_what_is_none(solver: Solver) -> None:
    fields = {each.name: getattr(solver, each.name) for each in dataclasses.fields(solver)}
    again = type(solver)(**{name: of_numpy(value) for name, value in fields.items()})
    assert again == solver
    assert repr(again) == repr(solver)
    for name in numbers_of(fields):
        for value in (math.nan, True, "1", -1):
            with pytest.raises(ArgumentError, match=rf"\({name}\) must be"):
                dataclasses.replace(solver, **{name: value})


def small() -> mm.Module:
    return mm.Linear(3, 4) >> mm.ReLU() >> mm.Linear(4, 2)


CALLS: dict[str, Callable[[Any], object]] = {
    "scale": lambda c: (c * small()).sensitivity,
    "scaled from behind": lambda c: (small() * c).sensitivity,
    "budget": lambda c: str(mm.budget(small(), lr=c)),
    "accuracy": lambda c: mm.msign(torch.eye(3), accuracy=c).tolist(),
    "floor": lambda c: mm.msign(torch.eye(3), floor=c).tolist(),
    "lipschitz": lambda c: mm.lipschitz(small(), radius=c, starts=1, iterations=1).radius,
    "activations": lambda c: mm.activations(small(), radius=c).radius,
    "signature": lambda c: repr(Signature(c, c, None, mm.SAME)),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_take_numbers_of_every_kind(name: str) -> None:
    answers = []
    for value in (0.5, np.float16(0.5), np.float32(0.5), np.float64(0.5), Fraction(1, 2)):
        torch.manual_seed(0)
        answers.append(repr(CALLS[name](value)))
    assert len(set(answers)) == 1
    for wrong in (
        (np.float32("nan"), True, "1") if name not in ("scale", "scaled from behind") else ()
    ):
        with pytest.raises(ArgumentError):
            CALLS[name](wrong)


def test_counts_of_functions_may_be_numpys() -> None:
    net = small() ** 1
    assert len(mm.Linear(3, 3) ** np.int64(2)) == 2
    found = mm.lipschitz(net, starts=np.int64(1), iterations=np.int32(1), seed=np.int64(5))  # pyright: ignore[reportArgumentType]
    assert found.certified == mm.lipschitz(net, starts=1, iterations=1, seed=5).certified


def test_specifications_take_numbers_of_numpy() -> None:
    written = {
        "type": "linear",
        "in_features": np.int64(3),
        "out_features": np.int8(2),
        "mass": np.float32(2),
    }
    plain = {"type": "linear", "in_features": 3, "out_features": 2, "mass": 2.0}
    spec = mm.NetworkSpec.model_validate(written)
    assert spec == mm.NetworkSpec.model_validate(plain)
    assert spec.model_dump_json() == mm.NetworkSpec.model_validate(plain).model_dump_json()
    pool = {
        "type": "max_pool",
        "channels": 1,
        "kernel_size": [np.int64(2), np.int64(2)],
        "size": np.int64(4),
    }
    assert mm.NetworkSpec.model_validate(pool).build().target == mm.Space(4)


def test_an_array_of_numpy_does_not_take_a_network_apart() -> None:
    arrays: list[Any] = [np.ones(3), np.array(2.0)]
    for array in arrays:
        with pytest.raises(TypeError):
            operator.mul(array, small())
