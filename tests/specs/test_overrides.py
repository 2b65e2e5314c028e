"""Assignments change a run: values are YAML, and their order does not matter."""

from __future__ import annotations

import pytest

import modular_manifolds as mm
from modular_manifolds.errors import SpecError
from modular_manifolds.specs import RunSpec


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
                "format, seed, data, model, network, optimizer, loss, schedule, epochs, steps, batch_size, evaluate_every, checkpoint_every, max_modules, max_weights, tensorboard, threads, device, parallel.",
            ),
            (
                "epoch=3",
                "epoch must be a known key, got 'epoch'. Did you mean 'epochs'? Known here: "
                "format, seed, data, model, network, optimizer, loss, schedule, epochs, steps, batch_size, evaluate_every, checkpoint_every, max_modules, max_weights, tensorboard, threads, device, parallel.",
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
