"""Values that a run does not name follow from its model and its data; values that it names stay."""

from __future__ import annotations

import pytest

from modular_manifolds.specs import RunSpec


@pytest.mark.parametrize(
    ("assignments", "rate", "batch"),
    [
        ([], 0.1, 128),
        (["data.name=cifar10"], 0.1, 128),
        (["data.name=text"], 1.0, 16),
        (["model.name=residual-mlp"], 1.0, 128),
        (["model.name=convnet"], 1.0, 128),
        (["data.name=text", "model.name=gpt", "model.width=64"], 1.0, 16),
        (["data.name=text", "optimizer.name=adamw"], 3e-3, 16),
        (["optimizer.lr=0.3", "model.name=convnet"], 0.3, 128),
        (["data.name=text", "optimizer.lr=0.1", "batch_size=128"], 0.1, 128),
    ],
)
def test_defaults_follow_from_the_model(assignments: list[str], rate: float, batch: int) -> None:
    run = RunSpec().override(assignments)
    assert (run.optimizer.lr, run.batch_size) == (rate, batch)
    again = RunSpec.from_yaml(run.to_yaml())
    assert again == run
    # A value that was written down is set.
    assert again.override(["data.name=digits"]).optimizer.lr == rate


def test_the_order_of_what_is_named_does_not_matter() -> None:
    run = RunSpec().override(["data.name=text"]).override(["seed=1", "data.name=digits"])
    assert (run.optimizer.lr, run.batch_size) == (0.1, 128)


def test_a_resolved_run_keeps_its_rate() -> None:
    run = RunSpec().override(["model.name=convnet"]).resolved()
    assert run.override(["seed=1"]).optimizer.lr == 1.0
    assert run.origin_of_rate() is None


def test_the_origin_of_a_rate_is_said() -> None:
    for assignments, origin in (
        ([], "the default of steepest-descent for mlp"),
        (["data.name=text", "model.logit_scale=4"], "for gpt, whose outputs are scaled by 4"),
        (["optimizer.name=muon"], "the default of muon"),
        (["network={type: linear, in_features: 64, out_features: 10}"], "that is written out"),
    ):
        assert str(RunSpec().override(assignments).origin_of_rate()).endswith(origin)
    assert RunSpec().override(["optimizer.lr=0.1"]).origin_of_rate() is None
    explicit = RunSpec.from_yaml("{data: {name: text}, optimizer: {name: steepest-descent, lr: 2}}")
    assert explicit.optimizer.lr == 2.0
    absent = RunSpec.from_yaml("{data: {name: text}, optimizer: {name: steepest-descent}}")
    assert absent.optimizer.lr == 1.0
