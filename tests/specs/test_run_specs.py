"""Runs as data: defaults, sizes that fit the data, and a JSON Schema that agrees with the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from networks import networks
from schemas import NETWORK_SCHEMA, RUN_SCHEMA
from spec_mistakes import LINEAR

import modular_manifolds as mm
from modular_manifolds.errors import SpecError
from modular_manifolds.models import MLP
from modular_manifolds.specs import NetworkSpec, RunSpec
from modular_manifolds.specs.text import dump_yaml, parse_yaml


class TestRun:
    def test_the_default_run_is_the_seed_posts_mlp_on_digits(self) -> None:
        run = RunSpec().resolved()
        assert run.network is not None
        net = run.network.build()
        shapes = [tuple(p.shape) for p in net.parameters()]
        assert shapes == [(128, 64), (64, 128), (10, 64)]
        assert {g.manifold for _, g in net.geometries()} == {mm.Stiefel()}
        assert {g.norm for _, g in net.geometries()} == {mm.Spectral()}
        assert run.optimizer.name == "steepest-descent"
        assert run.optimizer.lr == 0.1

    def test_a_resolved_run_is_complete(self) -> None:
        run = RunSpec().resolved()
        written = parse_yaml(run.to_yaml())
        assert set(written) == set(RunSpec.model_fields)
        assert "null" not in dump_yaml(written["network"])
        assert RunSpec.from_yaml(run.to_yaml()) == run
        assert RunSpec.model_validate_json(run.to_json()) == run
        assert run.resolved() == run

    def test_the_network_fits_the_data(self) -> None:
        run = RunSpec().override(["data.name=cifar10"]).resolved()
        assert run.network is not None
        assert next(run.network.build().parameters()).shape == (128, 3072)
        other = RunSpec().resolved(in_features=5, classes=3).network
        assert other is not None
        assert other == NetworkSpec.from_module(MLP(5, 3))
        assert [tuple(p.shape) for p in other.build().parameters()][::2] == [(128, 5), (3, 64)]

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (
                NetworkSpec.from_module(MLP(5, 10)),
                "network (in_features) must be 64 for the data set digits, got 5. "
                "Change the size, or leave network out for the data set's own.",
            ),
            (
                NetworkSpec.from_module(MLP(64, 3)),
                "network (out_features) must be 10 for the data set digits, got 3. "
                "Change the size, or leave network out for the data set's own.",
            ),
            (
                NetworkSpec.from_module(mm.Linear(64, 3) | mm.Linear(64, 7)),
                "network (out_features) must be 10 for the data set digits, got (l2[3] + l2[7]). "
                "Change the size, or leave network out for the data set's own.",
            ),
        ],
    )
    def test_a_network_that_does_not_fit_the_data(self, network: NetworkSpec, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            RunSpec(network=network).resolved()
        assert str(caught.value) == message

    @given(
        optimizer=st.one_of(
            st.fixed_dictionaries(
                {"name": st.just("steepest-descent"), "lr": st.floats(1e-9, 10)},
                optional={
                    "momentum": st.floats(0.01, 0.99),
                    "nesterov": st.booleans(),
                    "tangent_momentum": st.booleans(),
                    "solver": st.sampled_from(["auto", "skew-sign"]),
                },
            ),
            st.fixed_dictionaries(
                {"name": st.just("adamw")},
                optional={
                    "lr": st.floats(1e-9, 10),
                    "betas": st.lists(st.floats(0, 0.999), min_size=2, max_size=2),
                    "eps": st.floats(1e-12, 1e-3),
                    "weight_decay": st.integers(0, 3),
                },
            ),
            st.fixed_dictionaries({"name": st.just("muon")}, optional={"lr": st.floats(1e-9, 10)}),
        ),
        rest=st.fixed_dictionaries(
            {},
            optional={
                "seed": st.integers(0, 2**63 - 1),
                "data": st.fixed_dictionaries(
                    {"name": st.sampled_from(["digits", "cifar10"])},
                    optional={"path": st.none() | st.text(st.characters(codec="ascii"))},
                ),
                "network": st.none() | networks(),
                "schedule": st.sampled_from(["linear", "cosine", "constant"]),
                "epochs": st.integers(1, 10**6),
                "batch_size": st.integers(1, 10**6),
                "checkpoint_every": st.integers(1, 10**6),
                "threads": st.none() | st.integers(1, 64),
            },
        ),
    )
    def test_any_run_survives_text(self, optimizer: Any, rest: dict[str, Any]) -> None:
        data = {"optimizer": optimizer, **rest}
        run = RunSpec.model_validate(data)
        assert RunSpec.from_yaml(run.to_yaml()) == run
        assert RunSpec.model_validate_json(run.to_json()) == run
        assert yaml.safe_load(run.to_yaml()) == run.model_dump(mode="json")
        RUN_SCHEMA.validate(data)
        RUN_SCHEMA.validate(run.model_dump(mode="json"))

    def test_files(self, tmp_path: Path) -> None:
        run = RunSpec(epochs=3).resolved()
        (tmp_path / "run.yaml").write_text(run.to_yaml(), encoding="utf-8")
        (tmp_path / "run.json").write_text(run.to_json(), encoding="utf-8")
        assert RunSpec.from_file(tmp_path / "run.yaml") == run
        assert RunSpec.from_file(str(tmp_path / "run.json")) == run


class TestJsonSchema:
    def test_the_schemas_are_schemas(self) -> None:
        for validator in (NETWORK_SCHEMA, RUN_SCHEMA):
            jsonschema.Draft202012Validator.check_schema(validator.schema)

    def test_examples_are_accepted(self) -> None:
        for each in ({}, {"network": "relu"}, {"optimizer": {"name": "muon"}}, {"network": None}):
            RUN_SCHEMA.validate(each)
            RunSpec.model_validate(each)

    @pytest.mark.parametrize(
        "data",
        [
            "linear",
            "tanh",
            {"type": "relu", "slope": 0.1},
            {"type": "linear", "in_features": 3},
            {**LINEAR, "in_features": "3"},
            {**LINEAR, "manifold": "torus"},
            {**LINEAR, "manifold": {"type": "euclidean", "radius": 2.0}},
            {**LINEAR, "source_norm": "l3"},
            {"type": "series", "modules": []},
            {"type": "series", "modules": {}},
            {"type": "series", "modules": {"a.b": "relu"}},
            {"type": "series", "modules": ["relu", 3]},
            {"type": "power", "module": "relu", "times": 0},
            {"type": "scale", "module": "relu"},
            {"modules": ["relu"]},
        ],
    )
    def test_it_refuses_what_the_models_refuse(self, data: Any) -> None:
        with pytest.raises(SpecError):
            NetworkSpec.model_validate(data)
        assert not NETWORK_SCHEMA.is_valid(data)
        assert not RUN_SCHEMA.is_valid({"network": data})

    @pytest.mark.parametrize(
        "data",
        [
            {"format": 2},
            {"epoch": 3},
            {"epochs": 0},
            {"seed": -1},
            {"seed": 2**63},
            {"schedule": "step"},
            {"optimizer": "adamw"},
            {"optimizer": {"lr": 0.1}},
            {"optimizer": {"name": "adamw", "momentum": 0.9}},
            {"optimizer": {"name": "adamw", "betas": [0.9]}},
            {"optimizer": {"name": "muon", "lr": 0}},
            {"data": {"name": "mnist"}},
            {"data": None},
        ],
    )
    def test_it_refuses_runs_that_the_models_refuse(self, data: Any) -> None:
        with pytest.raises(SpecError):
            RunSpec.model_validate(data)
        assert not RUN_SCHEMA.is_valid(data)
