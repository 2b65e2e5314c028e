"""Networks and runs as data: round trips, the JSON Schema, assignments, and errors in words."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from networks import networks

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, SpaceError, SpecError
from modular_manifolds.models import MLP
from modular_manifolds.specs import NetworkSpec, RunSpec
from modular_manifolds.specs.errors import written_location
from modular_manifolds.specs.table import COMPOUNDS, MANIFOLDS, MODULES, NORMS
from modular_manifolds.specs.text import dump_yaml, parse_json, parse_yaml

NETWORK_SCHEMA = jsonschema.Draft202012Validator(NetworkSpec.model_json_schema())
RUN_SCHEMA = jsonschema.Draft202012Validator(RunSpec.model_json_schema())

LINEAR = {"type": "linear", "in_features": 3, "out_features": 3}


def same_structure(a: mm.Module, b: mm.Module) -> None:
    """The trees are equal, and what a tree does not hold in full is equal too."""
    assert a.tree() == b.tree()
    assert list(a.geometries()) == list(b.geometries())
    assert {k: v.shape for k, v in a.state_dict().items()} == {
        k: v.shape for k, v in b.state_dict().items()
    }


class TestRoundTrip:
    @given(networks())
    def test_a_dumped_network_is_a_normal_form(self, data: Any) -> None:
        net = NetworkSpec.model_validate(data).build()
        normal = NetworkSpec.from_module(net)
        rebuilt = normal.build()
        same_structure(rebuilt, net)
        assert NetworkSpec.from_module(rebuilt) == normal

    @given(networks())
    def test_text_loses_nothing(self, data: Any) -> None:
        spec = NetworkSpec.model_validate(data)
        normal = spec.normal()
        for each in (spec, normal):
            assert NetworkSpec.from_yaml(each.to_yaml()) == each
            assert NetworkSpec.from_yaml(each.to_json()) == each
            assert NetworkSpec.model_validate_json(each.to_json()) == each
            # Another reader, of YAML 1.1, understands what is written here in the same way.
            assert yaml.safe_load(each.to_yaml()) == each.model_dump(mode="json")
        assert NetworkSpec.from_yaml(dump_yaml(data)) == spec

    @given(networks())
    def test_the_json_schema_accepts_every_network(self, data: Any) -> None:
        NETWORK_SCHEMA.validate(data)
        NETWORK_SCHEMA.validate(NetworkSpec.model_validate(data).normal().model_dump(mode="json"))

    def test_networks_made_with_operators(self) -> None:
        a, b, c, d = (mm.Linear(3, 3) for _ in range(4))
        block = mm.Series(up=mm.Linear(3, 5, mass=0.0), act=mm.GELU(), down=mm.Linear(5, 3))
        nets = [
            (a >> mm.ReLU()) ** 3 >> -2 * b,
            mm.Residual(block, depth=4) ** 4,
            c | (d + mm.Identity()),
            mm.Series(**{"0": mm.Series(mm.Linear(3, 3), mm.ReLU()), "1": mm.Linear(3, 3)}),
            mm.Series(mm.Series(inner=mm.Linear(3, 3)), mm.ReLU()),
            mm.Parallel(mm.Series(mm.Linear(3, 3), mm.ReLU()), mm.Series(mm.Abs())),
            mm.Series(head=mm.ReLU()) >> mm.Linear(2, 2),
            mm.Linear(3, 2, manifold=mm.Oblique(radius=1 / 3), norm=mm.RowRMS()),
        ]
        for net in nets:
            spec = NetworkSpec.from_module(net)
            same_structure(spec.build(), net)
            assert spec.normal() == spec

    def test_every_class_has_its_row(self) -> None:
        public = {each for each in vars(mm).values() if inspect.isclass(each)}
        declared = {
            each
            for each in public
            if issubclass(each, mm.Module | mm.Manifold | mm.Norm) and not inspect.isabstract(each)
        }
        assert declared == {
            *MANIFOLDS.values(),
            *NORMS.values(),
            *MODULES.values(),
            *COMPOUNDS.values(),
        }

    def test_names_become_names(self) -> None:
        net = NetworkSpec.from_yaml(
            """
            type: series
            modules:
              body: {type: linear, in_features: 4, out_features: 8, manifold: {type: stiefel, radius: 2}}
              act: relu
              head: {type: linear, in_features: 8, out_features: 2, mass: 3}
            """
        ).build()
        assert [path for path, _ in net.named_parameters()] == ["body.weight", "head.weight"]
        assert dict(net.geometries())["body.weight"].manifold == mm.Stiefel(radius=2.0)
        assert net.mass == 4.0

    def test_power_draws_fresh_weights(self) -> None:
        data = {"type": "power", "module": LINEAR, "times": 2}
        net = NetworkSpec.model_validate(data).build()
        first, second = net.parameters()
        assert not torch.equal(first, second)

    def test_normal_leaves_the_generator_alone(self) -> None:
        spec = NetworkSpec.from_module(MLP(4, 2, hidden=(3,)))
        before = torch.random.get_rng_state()
        spec.normal()
        RunSpec().resolved()
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_copies_and_pickles(self) -> None:
        run = RunSpec().resolved()
        assert pickle.loads(pickle.dumps(run)) == run
        assert copy.deepcopy(run) == run

    def test_specs_are_frozen(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            RunSpec().__setattr__("epochs", 3)


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


class TestOverride:
    def test_values_are_yaml(self) -> None:
        run = RunSpec().override(
            ["optimizer.lr=1e-2", "optimizer.nesterov=false", "data.path= a dir ", "epochs=3"]
        )
        assert run.optimizer.lr == 0.01
        assert run.optimizer.model_dump()["nesterov"] is False
        assert run.data.path == "a dir"
        assert run.epochs == 3
        assert run.override(["data.path="]).data.path is None

    def test_nothing_is_nothing(self) -> None:
        assert RunSpec().override([]) == RunSpec()

    def test_the_run_itself_stays(self) -> None:
        run = RunSpec().resolved()
        before = run.to_yaml()
        run.override(["network.modules.0.mass=5", "optimizer.name=adamw", "seed=1"])
        assert run.to_yaml() == before

    @pytest.mark.parametrize("name", ["steepest-descent", "adamw", "muon"])
    def test_another_optimizer_brings_its_own_defaults(self, name: str) -> None:
        for other in ("steepest-descent", "adamw", "muon"):
            start = RunSpec.model_validate({"optimizer": {"name": other, "lr": 7.0}})
            run = start.override([f"optimizer.name={name}"])
            if name == other:
                assert run == start
            else:
                assert run == RunSpec.model_validate({"optimizer": {"name": name}})

    def test_the_order_of_assignments_does_not_matter(self) -> None:
        for order in (["optimizer.lr=0.5", "optimizer.name=adamw", "optimizer.betas.0=0.5"],):
            expected = {"name": "adamw", "lr": 0.5, "betas": [0.5, 0.999]}
            for each in (order, order[::-1]):
                run = RunSpec().override(each)
                assert run == RunSpec.model_validate({"optimizer": expected})
        for each in (
            ["seed=1", "data.path=p", "data.name=cifar10"],
            ["data.name=cifar10", "data.path=p", "seed=1"],
        ):
            run = RunSpec().override(each)
            assert (run.seed, run.data.name, run.data.path) == (1, "cifar10", "p")

    def test_into_the_network(self) -> None:
        run = RunSpec().override(
            ["network.modules.0.mass=2", "network.modules.1=gelu", "data.name=cifar10"]
        )
        assert run.network is not None
        net = run.network.build()
        assert net.mass == 4.0
        assert isinstance(net.get_submodule("1"), mm.GELU)
        assert next(net.parameters()).shape == (128, 3072)

    def test_another_type_starts_from_its_own_defaults(self) -> None:
        start = RunSpec().override(["network.modules.0.manifold.radius=3"])
        run = start.override(
            ["network.modules.0.manifold.type=euclidean", "network.modules.2.manifold.radius=2"]
        )
        assert run.network is not None
        first, second, _ = (geometry.manifold for _, geometry in run.network.build().geometries())
        assert first == mm.Euclidean()
        assert second == mm.Stiefel(radius=2.0)

    def test_a_type_comes_before_what_belongs_to_it(self) -> None:
        run = RunSpec().override(
            [
                "network.modules.0.manifold.radius=3",
                "network.modules.0.manifold.type=sphere",
                "network.modules.0.norm.type=frobenius",
            ]
        )
        assert run.network is not None
        first = next(geometry for _, geometry in run.network.build().geometries())
        assert first == mm.Geometry(mm.Sphere(radius=3.0), mm.Frobenius())

    @pytest.mark.parametrize(
        ("assignment", "message"),
        [
            (
                "optimizer.lrr=3",
                "optimizer.lrr must be a known key, got 'lrr'. Did you mean 'lr'? "
                "Known here: name, lr, momentum, nesterov, tangent_momentum, solver.",
            ),
            (
                "optimzer.lr=3",
                "optimzer must be a known key, got 'optimzer'. Did you mean 'optimizer'? Known here: "
                "format, seed, data, model, network, optimizer, loss, schedule, epochs, steps, batch_size, evaluate_every, checkpoint_every, max_modules, max_weights, tensorboard, threads, device.",
            ),
            (
                "epoch=3",
                "epoch must be a known key, got 'epoch'. Did you mean 'epochs'? Known here: "
                "format, seed, data, model, network, optimizer, loss, schedule, epochs, steps, batch_size, evaluate_every, checkpoint_every, max_modules, max_weights, tensorboard, threads, device.",
            ),
            (
                "optimizer.lr=fast",
                "optimizer.lr must be a number, got 'fast'. Write it without quotes, such as 0.1.",
            ),
            (
                "optimizer.name=adam",
                "optimizer.name must be a known name, got 'adam'. Did you mean 'adamw'? "
                "Known here: steepest-descent, adamw, muon.",
            ),
            (
                "network.modules.9.mass=2",
                "network.modules.9 must be an index below 5, got '9'. Count from 0.",
            ),
            (
                "network.modules.first.mass=2",
                "network.modules.first must be an index below 5, got 'first'. Count from 0.",
            ),
            ("seed.x=2", "seed.x must lead through mappings and lists, got 42. Shorten the key."),
            (
                "seed.x.y=2",
                "seed.x must lead through mappings and lists, got 42. Shorten the key.",
            ),
            (
                "optimizer.lr",
                "an assignment must read key=value, got 'optimizer.lr'. Write it as optimizer.lr=0.3.",
            ),
            ("=3", "an assignment must read key=value, got '=3'. Write it as optimizer.lr=0.3."),
            (
                "optimizer..lr=3",
                "an assignment must read key=value, got 'optimizer..lr=3'. Write it as optimizer.lr=0.3.",
            ),
            (
                "optimizer.betas=[1",
                "the value of optimizer.betas must be valid YAML, got expected ',' or ']', but got "
                "'<stream end>' at line 1, column 3. Mend the YAML there.",
            ),
        ],
    )
    def test_errors(self, assignment: str, message: str) -> None:
        with pytest.raises(SpecError) as caught:
            RunSpec().override([assignment])
        assert str(caught.value) == message


RUN_ERRORS = [
    ({"epochs": 0}, "epochs must be at least 1, got 0. Choose a larger value."),
    (
        {"epochs": 2.5},
        "epochs must be a whole number, got 2.5. Write it without quotes and without a point.",
    ),
    (
        {"epochs": True},
        "epochs must be a whole number, got True. Write it without quotes and without a point.",
    ),
    (
        {"epochs": "3"},
        "epochs must be a whole number, got '3'. Write it without quotes and without a point.",
    ),
    ({"batch_size": -1}, "batch_size must be at least 1, got -1. Choose a larger value."),
    ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0. Choose a larger value."),
    ({"seed": -1}, "seed must be at least 0, got -1. Choose a larger value."),
    (
        {"format": 2},
        "format must be 1, got 2. Read it with the version of the library that wrote it.",
    ),
    (
        {"format": True},
        "format must be 1, got True. Read it with the version of the library that wrote it.",
    ),
    (
        {"schedule": "linaer"},
        "schedule must be 'linear', 'cosine' or 'constant', got 'linaer'. Did you mean 'linear'? "
        "Known here: linear, cosine, constant.",
    ),
    (
        {"data": {"name": "cifar"}},
        "data.name must be a known name, got 'cifar'. Did you mean 'cifar10'? "
        "Known here: digits, cifar10, images, text.",
    ),
    ({"data": {"name": "cifar10", "path": 3}}, "data.path must be text, got 3. Put it in quotes."),
    ({"data": "digits"}, "data must be a mapping, got 'digits'. Write it as key: value."),
    (
        {"optimizer": {"lr": 0.1}},
        "optimizer.name must be given, got nothing. Say which kind is wanted.",
    ),
    (
        {"optimizer": {"name": "muon", "lr": 0}},
        "optimizer.lr must be greater than 0, got 0. Choose a larger value.",
    ),
    (
        {"optimizer": {"name": "muon", "lr": float("inf")}},
        "optimizer.lr must be finite, got inf. Write an ordinary number.",
    ),
    (
        {"optimizer": {"name": "muon", "momentum": 1}},
        "optimizer.momentum must be less than 1, got 1. Choose a smaller value.",
    ),
    (
        {"optimizer": {"name": "muon", "nesterov": 1}},
        "optimizer.nesterov must be true or false, got 1. Write true or false without quotes.",
    ),
    (
        {"optimizer": {"name": "adamw", "betas": [0.9, 1.5]}},
        "optimizer.betas.1 must be less than 1, got 1.5. Choose a smaller value.",
    ),
    (
        {"optimizer": {"name": "adamw", "betas": 0.9}},
        "optimizer.betas must be a list, got 0.9. Write it as [first, second].",
    ),
    (
        {"optimizer": {"name": "adamw", "betas": [0.9, 0.9, 0.9]}},
        "optimizer.betas must hold at most 2, got [0.9, 0.9, 0.9]. Take some away.",
    ),
    (
        {"optimizer": {"name": "adamw", "betas": [0.9]}},
        "optimizer.betas.1 must be given, got nothing. Add it.",
    ),
    (
        {"optimizer": {"name": "steepest-descent", "momentum": 0}},
        "optimizer.nesterov must be false where momentum is 0, got True. "
        "Write nesterov: false too, or a momentum such as 0.9.",
    ),
    (
        {"optimizer": {"name": "steepest-descent", "solver": "skew-sing"}},
        "optimizer.solver must be a known solver, got 'skew-sing'. Did you mean 'skew-sign'? Known here: "
        "auto, norm-steepest, tangent-gradient, weighted-median, spectral-sphere-dual, "
        "row-tangent-gradient, skew-sign.",
    ),
    (
        {"optimizer": {"name": "adamw", "momentum": 0.9}},
        "optimizer.momentum must be a known key, got 'momentum'. "
        "Known here: name, lr, betas, eps, weight_decay.",
    ),
    (None, "the specification must be a mapping, got None. Write it as key: value."),
    (["epochs"], "the specification must be a mapping, got ['epochs']. Write it as key: value."),
]

KINDS = ", ".join([*MODULES, *COMPOUNDS, "power"])
NETWORK_ERRORS = [
    (
        "rellu",
        f"type must be a known name, got 'rellu'. Did you mean 'relu'? Known here: {KINDS}.",
    ),
    (3, "must be a mapping or a name, got 3. Write a mapping with a type, or the type alone."),
    ({"in_features": 3}, "type must be given, got nothing. Say which kind is wanted."),
    ("linear", "in_features must be given, got nothing. Add it."),
    (
        {**LINEAR, "in_feature": 3},
        "in_feature must be a known key, got 'in_feature'. Did you mean 'in_features'? Known here: "
        "type, in_features, out_features, manifold, norm, mass, source_norm, target_norm.",
    ),
    (
        {"type": "relu", "relu": 3},
        "relu must be a known key, got 'relu'. Known here: type.",
    ),
    (
        {"type": "series", "modules": ["relu", {**LINEAR, "manifold": {"type": "stifel"}}]},
        "modules.1.manifold.type must be a known name, got 'stifel'. Did you mean 'stiefel'? "
        "Known here: euclidean, sphere, oblique, balanced_rows, stiefel, spectral_ball, "
        "spectral_sphere.",
    ),
    (
        {"type": "series", "modules": ["relu", {**LINEAR, "norm": "spectre"}]},
        "modules.1.norm.type must be a known name, got 'spectre'. Did you mean 'spectral'? "
        "Known here: frobenius, max, spectral, rms_operator, row_rms.",
    ),
    (
        {"type": "sum", "modules": [{**LINEAR, "manifold": {"type": "stiefel", "radius": "1"}}]},
        "modules.0.manifold.radius must be a number, got '1'. Write it without quotes, such as 0.1.",
    ),
    (
        # Names that are types or fields as well do not confuse the path.
        {"type": "series", "modules": {"linear": {**LINEAR, "linear": 1}}},
        "modules.linear.linear must be a known key, got 'linear'. Known here: "
        "type, in_features, out_features, manifold, norm, mass, source_norm, target_norm.",
    ),
    (
        {
            "type": "series",
            "modules": {"name": "scale", "scale": {"type": "scale", "module": "relu"}},
        },
        "modules.name.module must be given, got nothing. Add it.",
    ),
    (
        {"type": "sum", "modules": {"name": "relu", "relu": {"type": "scale", "module": "relu"}}},
        "modules.relu.factor must be given, got nothing. Add it.",
    ),
    (
        {"type": "scale", "module": {"type": "scale", "module": "relu"}, "factor": 2},
        "module.factor must be given, got nothing. Add it.",
    ),
    (
        {"type": "scale", "module": {"type": "power", "module": "relu", "times": 0}, "factor": 2},
        "module.times must be at least 1, got 0. Choose a larger value.",
    ),
    (
        {"type": "series", "modules": "relu"},
        "modules must be a list of modules or a mapping from names to modules, got 'relu'. "
        "Write one module a line, each beginning with '- '.",
    ),
    (
        {"type": "series", "modules": []},
        "modules must hold at least 1, got []. Add what is missing.",
    ),
    (
        {"type": "series", "modules": {"a.b": "relu"}},
        "modules.a.b must be a name without dots, got 'a.b'. A module's name becomes part of a dotted path.",
    ),
]


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


class TestText:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-3", 1e-3),
            ("-2E+4", -2e4),
            (".5", 0.5),
            ("3.", 3.0),
            ("10", 10),
            ("+7", 7),
            ("010", "010"),
            ("1:30", "1:30"),
            ("1_000", "1_000"),
            ("no", "no"),
            ("on", "on"),
            ("2020-01-01", "2020-01-01"),
            ("TRUE", True),
            ("~", None),
            ("", None),
            ("{1: 2, no: 3}", {"1": 2, "no": 3}),
            ("{<<: {a: 1}}", {"<<": {"a": 1}}),
        ],
    )
    def test_scalars(self, text: str, value: object) -> None:
        parsed = parse_yaml(text)
        assert parsed == value
        assert type(parsed) is type(value)

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False)
            | st.text(
                st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"), max_size=8
            )
            | st.from_regex(r"[-+]?[0-9._:eE]{1,6}", fullmatch=True)
            | st.sampled_from(["yes", "no", "null", "~", "1e3", "0x1f", "<<", "=", ".inf", "1_0"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text("abcno1e~.-<", max_size=4), inner, max_size=3)
            ),
            max_leaves=8,
        )
    )
    def test_what_is_written_is_read(self, data: object) -> None:
        assert parse_yaml(dump_yaml(data)) == data
        assert yaml.safe_load(dump_yaml(data)) == data
        assert parse_json(json.dumps(data)) == data

    @pytest.mark.parametrize(
        ("text", "position"),
        [
            (
                "epochs: 3\nseed: 1\nepochs: 4",
                "got the key 'epochs' a second time at line 3, column 1",
            ),
            ("data: {name: digits, name: cifar10}", "at line 1, column 22"),
            ("epochs: [", "at line 1, column 10"),
            ("epochs: 1\n  seed: 2", "at line 2, column 7"),
            ("? [a]\n: 1", "got a key that is not text at line 1, column 3"),
            ("seed: !!python/object/apply:os.getcwd []", "at line 1, column 7"),
            ("seed: *other", "at line 1, column 7"),
            ("seed: 1\x00", "unacceptable character"),
            ("seed: " + "1" * 5000, "integer string conversion"),
            ("[" * 5000, "recursion"),
        ],
    )
    def test_bad_yaml(self, text: str, position: str) -> None:
        with pytest.raises(SpecError) as caught:
            RunSpec.from_yaml(text)
        message = str(caught.value)
        assert message.startswith("the YAML text must be valid YAML, got ")
        assert position in message
        assert message.endswith(". Mend the YAML there.")
        assert "\n" not in message

    @pytest.mark.parametrize(
        ("text", "position"),
        [
            ('{"seed": 1, "seed": 2}', "the key 'seed' a second time"),
            ('{"seed": }', "at line 1, column 10"),
            ('{"seed": 1,\n"epochs"}', "at line 2, column 9"),
            ("[" * 100_000, "recursion"),
        ],
    )
    def test_bad_json(self, text: str, position: str) -> None:
        with pytest.raises(SpecError) as caught:
            RunSpec.model_validate_json(text)
        assert str(caught.value).startswith("the JSON text must be valid JSON, got ")
        assert position in str(caught.value)

    def test_a_network_that_holds_itself(self) -> None:
        with pytest.raises(SpecError, match=r"module must not contain itself, got .*\. Write"):
            NetworkSpec.from_yaml("&x {type: scale, factor: 2, module: *x}")

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        missing = tmp_path / "missing.yaml"
        with pytest.raises(SpecError) as caught:
            RunSpec.from_file(missing)
        assert str(caught.value) == (
            f"{missing} must be a readable file, got No such file or directory. Check the path."
        )
        with pytest.raises(SpecError, match="must be a readable file, got Is a directory"):
            RunSpec.from_file(tmp_path)
        binary = tmp_path / "binary.yaml"
        binary.write_bytes(b"seed: \xff")
        with pytest.raises(SpecError, match="must be text in UTF-8, got byte 6 that is not"):
            RunSpec.from_file(binary)
        with pytest.raises(SpecError, match="the JSON text must be text in UTF-8"):
            RunSpec.model_validate_json(b"\xff")

    @pytest.mark.parametrize("name", ["run.yaml", "run.json"])
    def test_a_byte_order_mark_is_no_text(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_bytes(b'\xef\xbb\xbf{"seed": 5}')
        assert RunSpec.from_file(path).seed == 5
