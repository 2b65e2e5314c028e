"""Networks as data: every network comes back from a mapping, from YAML and from JSON."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from networks import networks
from schemas import NETWORK_SCHEMA
from spec_mistakes import LINEAR

import modular_manifolds as mm
from modular_manifolds.models import MLP
from modular_manifolds.specs import NetworkSpec, RunSpec
from modular_manifolds.specs.table import COMPOUNDS, MANIFOLDS, MODULES, NORMS
from modular_manifolds.specs.text import dump_yaml


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
