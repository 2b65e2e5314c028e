"""Whole networks: their shapes, their sensitivity, the split of the learning rate, and their specs."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, SpecError, UnsupportedPairError
from modular_manifolds.models.rms_linear import rms_linear
from modular_manifolds.specs.data import Sizes
from modular_manifolds.specs.models import FROM_DATA, MODELS, SPECS

SMALL = {
    "mlp": ({"hidden": [6, 5]}, Sizes(7, 4)),
    "residual-mlp": ({"width": 6, "depth": 3}, Sizes(7, 4)),
    "convnet": ({"width": 2, "depth": 1}, Sizes(64, 10, (1, 8, 8))),
    "gpt": ({"width": 8, "depth": 1, "heads": 2}, Sizes(5, 5)),
}
"""Arguments of each model, and the sizes of data that it can take."""


def shares(net: mm.Module) -> list[float]:
    return [row.share for row in mm.budget(net).rows]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class TestMLP:
    def test_it_is_linear_maps_with_relu_between(self) -> None:
        net = mm.models.MLP(7, 4, hidden=(6, 5)).double()
        first, second, third = net.parameters()
        x = torch.randn(3, 7, dtype=torch.float64)
        by_hand = ((x @ first.T).relu() @ second.T).relu() @ third.T
        torch.testing.assert_close(net(x), by_hand)
        assert net.sensitivity == 1.0

    def test_without_hidden_sizes_it_is_a_linear_map(self) -> None:
        assert [p.shape for p in mm.models.MLP(7, 4, hidden=()).parameters()] == [(4, 7)]

    def test_its_geometry_can_be_chosen(self) -> None:
        net = mm.models.MLP(7, 4, manifold=mm.Euclidean(), norm=mm.RMSOperator())
        assert {each for _, each in net.geometries()} == {
            mm.Geometry(mm.Euclidean(), mm.RMSOperator())
        }


class TestResidualMLP:
    @pytest.mark.parametrize(("width", "depth"), [(6, 1), (6, 3), (16, 8)])
    def test_only_the_scale_of_the_logits_is_its_sensitivity(self, width: int, depth: int) -> None:
        net = mm.models.ResidualMLP(7, 4, width=width, depth=depth, logit_scale=5.0)
        assert net.sensitivity == pytest.approx(5.0, rel=1e-12)
        assert mm.budget(net).first_order <= 1 + 1e-9

    def test_every_weight_has_rms_operator_norm_one(self) -> None:
        net = mm.models.ResidualMLP(7, 4, width=6)
        for weight in net.parameters():
            out, into = weight.shape
            values = torch.linalg.svdvals(weight.detach())
            torch.testing.assert_close(
                values, torch.full_like(values, math.sqrt(out / into)), rtol=1e-5, atol=0
            )

    @pytest.mark.parametrize("depth", [1, 2, 8])
    def test_depth_takes_nothing_from_the_input_and_the_output(self, depth: int) -> None:
        masses = (1.0, 3.0, 2.0)
        net = mm.models.ResidualMLP(7, 4, width=6, depth=depth, masses=masses, logit_scale=2.0)
        first, *between, last = (row.mass for row in mm.budget(net).rows)
        assert (first, last) == (1.0, 2.0)
        assert len(between) == depth
        assert sum(between) == pytest.approx(3.0)

    def test_shares_do_not_depend_on_width_or_depth(self) -> None:
        """With share = mass / (Σ mass · downstream), a block's 1/L in mass and in slope cancel."""
        one = shares(mm.models.ResidualMLP(7, 4, width=6, depth=2))
        other = shares(mm.models.ResidualMLP(70, 4, width=32, depth=5))
        assert other == pytest.approx([1 / 24, *[1 / 24] * 5, 1 / 24])
        assert one == pytest.approx([1 / 24] * 4)

    def test_blocks_have_weights_of_their_own(self) -> None:
        _, first, second, _ = mm.models.ResidualMLP(7, 4, width=6, depth=2).parameters()
        assert not torch.equal(first, second)

    def test_the_norm_without_the_manifold(self) -> None:
        net = mm.models.ResidualMLP(7, 4, width=6, manifold=mm.Euclidean())
        assert {each for _, each in net.geometries()} == {
            mm.Geometry(mm.Euclidean(), mm.RMSOperator())
        }
        for weight in net.parameters():
            assert float(mm.RMSOperator().value(weight.detach())) == pytest.approx(1.0, rel=1e-5)
        with_manifold = mm.models.ResidualMLP(7, 4, width=6)
        assert shares(net) == pytest.approx(shares(with_manifold))

    def test_it_learns(self) -> None:
        net = mm.models.ResidualMLP(8, 3, width=16)
        optimizer = mm.SteepestDescent(net, lr=1.0, momentum=0.9)
        x = torch.randn(60, 8)
        labels = x[:, :3].argmax(dim=1)
        for _ in range(60):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(x), labels)
            loss.backward()
            optimizer.step()
        assert float((net(x).argmax(dim=1) == labels).float().mean()) > 0.9


class TestRMSLinear:
    @pytest.mark.parametrize(
        "manifold", [mm.Stiefel(2.0), mm.SpectralBall(2.0), mm.SpectralSphere(2.0)]
    )
    @pytest.mark.parametrize("shape", [(4, 9), (9, 4), (1, 5), (5, 1)])
    def test_the_radius_of_the_manifold_is_the_sensitivity(
        self, manifold: mm.Manifold, shape: tuple[int, int]
    ) -> None:
        assert rms_linear(*shape, manifold=manifold).sensitivity == pytest.approx(2.0)

    def test_a_manifold_without_a_solver_is_refused(self) -> None:
        with pytest.raises(UnsupportedPairError):
            rms_linear(4, 4, manifold=mm.Oblique())


class TestSpecs:
    def test_every_model_has_a_row(self) -> None:
        public = [each for _, each in inspect.getmembers(mm.models, inspect.isfunction)]
        assert set(public) == set(MODELS.values())

    def test_the_documentation_lists_every_model_with_its_keys(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "specs.md").read_text(encoding="utf-8")
        for name, spec in SPECS.items():
            (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
            keys = set(spec.model_fields) - {"name"}
            assert {f"`{key}`" for key in keys} == set(row.rsplit("|", 2)[1].strip().split(", "))

    @pytest.mark.parametrize("name", MODELS)
    def test_a_spec_has_the_arguments_that_the_data_does_not_decide(self, name: str) -> None:
        parameters = inspect.signature(MODELS[name]).parameters
        assert {"name", *parameters} - set(FROM_DATA) == set(SPECS[name].model_fields)
        for key, each in parameters.items():
            if key not in FROM_DATA and each.default is not each.empty:
                assert SPECS[name].model_fields[key].default == each.default

    @pytest.mark.parametrize("name", MODELS)
    def test_a_run_that_names_a_model_writes_its_network(self, name: str) -> None:
        arguments, sizes = SMALL[name]
        model = {"name": name, **arguments}
        run = mm.RunSpec.model_validate({"model": model})
        assert mm.RunSpec.from_yaml(run.to_yaml()) == run
        resolved = run.resolved(*sizes[:2])
        assert resolved.model is None
        net = SPECS[name].model_validate(model).build(sizes)
        assert resolved.network == mm.NetworkSpec.from_module(net)
        assert mm.RunSpec.from_yaml(resolved.to_yaml()) == resolved
        assert resolved.resolved(*sizes[:2]) == resolved

    def test_a_name_alone_stands_for_a_model(self) -> None:
        assert mm.RunSpec.from_yaml("model: residual-mlp").model == SPECS["residual-mlp"](
            name="residual-mlp"
        )

    def test_the_default_model_is_the_default_network(self) -> None:
        assert mm.RunSpec.from_yaml("model: mlp").resolved() == mm.RunSpec().resolved()

    def test_overrides_reach_into_the_model(self) -> None:
        run = mm.RunSpec().override(
            ["model.width=16", "model.name=residual-mlp", "model.masses=[1, 2, 3]"]
        )
        assert run.model == SPECS["residual-mlp"].model_validate(
            {"name": "residual-mlp", "width": 16, "masses": [1, 2, 3]}
        )
        other = run.override(["model.name=mlp"])
        assert other.model == SPECS["mlp"](name="mlp")
        assert mm.RunSpec().override(["model.hidden=[3]"]).resolved().network == (
            mm.NetworkSpec.from_module(mm.models.MLP(64, 10, hidden=(3,)))
        )

    def test_a_model_can_be_changed_below_its_arguments(self) -> None:
        run = mm.RunSpec().override(
            ["model.name=residual-mlp", "model.depth=1", "network.module.modules.0.mass=5"]
        )
        assert run.model is None
        assert run.network is not None
        assert run.network.build().mass == 7.0

    @pytest.mark.parametrize(
        ("assignments", "message"),
        [
            (
                ["model.width=3"],
                "model.width must be a known key, got 'width'. "
                "Known here: name, hidden, manifold, norm.",
            ),
            (
                ["model.name=residual-mpl"],
                "model.name must be a known name, got 'residual-mpl'. Did you mean 'residual-mlp'? "
                f"Known here: {', '.join(MODELS)}.",
            ),
            (
                ["model.name=mlp", "model.in_features=3"],
                "model.in_features must be a known key, got 'in_features'. "
                "Known here: name, hidden, manifold, norm.",
            ),
            (
                ["model.hidden=3"],
                "model.hidden must be a list, got 3. Write it as [first, second].",
            ),
            (
                ["device=gpu"],
                "device must be cpu or cuda, got 'gpu'. "
                "Write cpu, or cuda, or a numbered device as cuda:0.",
            ),
            (["steps=0"], "steps must be at least 1, got 0. Choose a larger value."),
        ],
    )
    def test_errors(self, assignments: list[str], message: str) -> None:
        with pytest.raises(SpecError) as caught:
            mm.RunSpec().override(assignments)
        assert str(caught.value) == message

    def test_a_model_beside_a_network_is_refused(self) -> None:
        with pytest.raises(SpecError) as caught:
            mm.RunSpec().resolved().override(["model.name=mlp"])
        assert str(caught.value) == (
            "model must be null where a network is written out, got 'mlp'. "
            "Leave model out, or set network to null."
        )
        assert mm.RunSpec().resolved().override(["network=", "model.name=mlp"]).network is None

    def test_an_argument_that_the_function_refuses_names_the_model(self) -> None:
        with pytest.raises(ArgumentError, match=r"^model: ResidualMLP\(depth\) must be a positive"):
            mm.RunSpec().override(["model.name=residual-mlp", "model.depth=0"]).resolved()
