"""Errors of specifications say the place, the rule, the value seen and the remedy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from spec_mistakes import LINEAR, NETWORK_ERRORS, RUN_ERRORS

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, SpaceError, SpecError
from modular_manifolds.specs import NetworkSpec, RunSpec
from modular_manifolds.specs.errors import written_location
from modular_manifolds.specs.table import COMPOUNDS, MODULES
from modular_manifolds.specs.text import dump_yaml


class TestErrors:
    @pytest.mark.parametrize(("data", "message"), RUN_ERRORS)
    def test_of_a_run(self, data: Any, message: str, tmp_path: Path) -> None:
        for attempt in (
            lambda: RunSpec.model_validate(data),
            lambda: RunSpec.model_validate(copy.deepcopy(data)),
        ):
            with pytest.raises(SpecError) as caught:
                attempt()
            assert str(caught.value) == message
        if isinstance(data, dict):
            with pytest.raises(SpecError) as caught:
                RunSpec(**data)
            assert str(caught.value) == message
        path = tmp_path / "run.yaml"
        path.write_text(dump_yaml(data), encoding="utf-8")
        with pytest.raises(SpecError) as caught:
            RunSpec.from_file(path)
        assert str(caught.value) == f"{path}: {message}"

    @pytest.mark.parametrize(("data", "message"), NETWORK_ERRORS)
    def test_of_a_network(self, data: Any, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            NetworkSpec.model_validate(data)
        alone = message if not message.startswith("must") else f"the specification {message}"
        assert str(caught.value) == alone
        with pytest.raises(SpecError) as caught:
            RunSpec.model_validate({"network": data})
        below = f"network.{message}" if not message.startswith("must") else f"network {message}"
        assert str(caught.value) == below

    def test_the_parts_of_an_error(self) -> None:
        with pytest.raises(SpecError) as caught:
            RunSpec(epochs=0)
        error = caught.value
        assert (error.argument, error.rule, error.seen) == ("epochs", "must be at least 1", "0")
        assert error.__cause__ is None
        assert error.__suppress_context__

    def test_a_key_may_be_called_like_its_type(self) -> None:
        found = written_location(("gate", "gate", "size"), {"type": "gate", "gate": {"size": "x"}})
        assert list(found) == ["gate", "size"]

    def test_long_values_are_cut(self) -> None:
        with pytest.raises(SpecError) as caught:
            RunSpec.model_validate({"seed": list(range(10_000))})
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize(
        ("data", "kind", "message"),
        [
            (
                {"type": "series", "modules": ["relu", {**LINEAR, "in_features": -3}]},
                ArgumentError,
                "modules.1: Linear(in_features) must be a positive whole number, got -3. "
                "Pass the number of features.",
            ),
            (
                {
                    "type": "sum",
                    "modules": {"a": {**LINEAR, "manifold": {"type": "sphere", "radius": 0}}},
                },
                ArgumentError,
                "modules.a.manifold: Sphere(radius) must be finite and positive, got 0.0. "
                "Pass the size of the manifold's points, 1.0 by default.",
            ),
            (
                {
                    "type": "scale",
                    "factor": 2,
                    "module": {"type": "series", "modules": [LINEAR, {**LINEAR, "in_features": 4}]},
                },
                SpaceError,
                "module: Linear(3, 3) at '0' >> Linear(4, 3) at '1' must meet in one space, got l2[3] into "
                "l2[4]. Change a size or a norm so that both agree, or put a module between them that maps "
                "one to the other.",
            ),
            (
                {"type": "power", "times": 2, "module": {**LINEAR, "out_features": 4}},
                SpaceError,
                "Linear(3, 4) at '0' >> Linear(3, 4) at '1' must meet in one space, got l2[4] into l2[3]. "
                "Change a size or a norm so that both agree, or put a module between them that maps one to "
                "the other.",
            ),
            (
                {"type": "series", "modules": {"forward": "relu"}},
                ArgumentError,
                "Series(forward=...) must not be a name that the module already has, got 'forward'. "
                "Choose another name.",
            ),
        ],
    )
    def test_a_constructors_errors_say_where(
        self, data: Any, kind: type[ArgumentError], message: str
    ) -> None:
        spec = NetworkSpec.model_validate(data)
        with pytest.raises(ArgumentError) as caught:
            spec.build()
        assert type(caught.value) is kind
        assert str(caught.value) == message
        with pytest.raises(kind, match=r"^network[.:]"):
            RunSpec(network=spec).resolved()

    def test_classes_of_ones_own(self) -> None:
        class Halve(mm.Bond):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x / 2

        class Wide(mm.Linear):
            pass

        for net, where, name in (
            (mm.Linear(3, 3) >> Halve(), "net.1", "Halve"),
            (2 * (Wide(3, 3) + mm.Identity()), "net.module.0", "Wide"),
        ):
            with pytest.raises(SpecError) as caught:
                NetworkSpec.from_module(net)
            assert str(caught.value) == (
                f"{where} must be of a class that specifications know, got {name}. Known here: "
                f"{', '.join([*MODULES, *COMPOUNDS])}. Build a network with classes of your own in Python."
            )
        torch_module: Any = torch.nn.ReLU()
        with pytest.raises(ArgumentError, match=r"must be a modular_manifolds module.*got ReLU"):
            NetworkSpec.from_module(torch_module)
