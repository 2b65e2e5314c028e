"""The problems of the benchmarks are real, and every contender repeats its step."""

from __future__ import annotations

import sys

import pytest
import torch
from modular_manifolds_bench import (
    bars,
    contenders,
    gradients,
    quality,
)
from modular_manifolds_bench.drift import drift
from recorded import QUICK, problems, stack

import modular_manifolds as mm


def test_recorded_gradients_are_those_of_the_loss() -> None:
    """The gradient is what the recorded weights give: a descent along it lowers the loss."""
    first, second = problems()
    assert [first.shape, second.shape] == [(24, 64), (10, 24)]
    assert len(first.moments) == len(second.moments) == 2
    for problem in (first, second):
        moment = problem.moments[0]
        assert float(mm.Stiefel().residual(moment.weights[0])) < 1e-5
        assert 1e-4 < float(moment.gradients[0].norm()) < 100
        assert moment.lr == pytest.approx(0.1 * (1 - 3 / 6))
        assert not torch.equal(moment.weights[0], problem.moments[1].weights[0])
        # Three steps of momentum: it is not the gradient, and it is no longer zero.
        assert not torch.equal(moment.states[0]["momentum"], moment.gradients[0])
        assert float(moment.states[0]["momentum"].norm()) > 0


def test_a_recorded_step_repeats_bit_for_bit_and_is_the_one_that_training_took() -> None:
    torch.manual_seed(0)
    net = gradients.perceptron((64, 10))
    found = gradients.record(
        net, gradients.digits_alone(), steps=4, at=(2, 3), lr=0.1, share=1.0, batch=128
    )
    (problem,) = gradients.one_weight_each(found)
    before, after = problem.moments
    stepper = contenders.ours(problem)
    for _ in range(3):
        stepper.restore(before)
        stepper.optimizer.step()
        assert torch.equal(stepper.weights[0], after.weights[0])
    assert torch.equal(problem.moments[0].weights[0], before.weights[0])


def test_every_contender_repeats_its_step() -> None:
    problem, _ = problems()
    for stepper in (
        contenders.ours(problem),
        contenders.ours(problem, manifold=mm.Euclidean(), warm=False),
        contenders.torch_muon(problem),
        contenders.torch_adamw(problem),
    ):
        landed = []
        for number in (0, 1, 0):
            contender = stepper.contender(problem)
            contender.prepare(number)
            contender.run()
            landed.append(stepper.weights[0].detach().clone())
        assert torch.equal(landed[0], landed[2])
        assert not torch.equal(landed[0], landed[1])
        assert not torch.equal(landed[0], problem.moments[0].weights[0])


def test_the_true_gap_is_independent_of_the_solver_and_small() -> None:
    for problem in problems():
        moment = problem.moments[0]
        best = quality.best_dual(moment)
        gap, certificate = bars.gaps(problem, best, contenders.ours(problem))
        # The best dual objective known is itself above the optimum by as much as 1e-4.
        assert -1e-4 < gap <= certificate + 1e-4
        assert certificate <= bars.MAX_GAP
        # Something that is not steepest is seen to fall short; so is a step uphill.
        tangent = mm.Stiefel().tangent(moment.weights[0], -moment.gradients[0])
        assert quality.true_gap(moment, 1e-3 * tangent / tangent.norm(), best) > 0.9
        assert quality.true_gap(moment, -quality.direction(moment), best) > 1.9


def test_orthogonality_is_that_of_the_step_and_not_of_the_weight() -> None:
    problem = stack()
    moment = problem.moments[0]
    muon = contenders.ours(problem, manifold=mm.Euclidean(), warm=False)
    direction = mm.steepest(mm.Euclidean(), mm.Spectral(), *_first(moment)).direction
    values = torch.linalg.svdvals(direction.double())
    alone = gradients.Problem(
        "one",
        problem.shape,
        (
            gradients.Moment(
                moment.weights[:1], moment.gradients[:1], moment.states[:1], moment.lr, 1.0
            ),
        ),
    )
    single = contenders.ours(alone, manifold=mm.Euclidean(), warm=False)
    off = quality.orthogonality(single, alone.moments[0])
    assert off == pytest.approx(float((values - 1).square().mean().sqrt()), rel=1e-3, abs=1e-6)
    assert 0 < quality.orthogonality(muon, moment) < 1
    assert 0 < quality.orthogonality(contenders.torch_muon(problem), moment) < 1


def _first(moment: gradients.Moment) -> tuple[torch.Tensor, torch.Tensor]:
    return moment.weights[0], quality.descended(moment, 0)


def test_drift_of_a_short_training() -> None:
    for dtype, bound in bars.RESIDUALS.items():
        torch.manual_seed(0)
        net = gradients.perceptron((64, 16, 10))
        found = drift(net, gradients.digits_alone(), steps=50, dtype=dtype)
        assert 0 < found.largest <= bound
        assert max(found.first, found.last) <= found.largest
        assert found.growth == found.last / found.first


def test_a_missing_geoopt_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geoopt", None)
    problem = problems()[1]
    assert contenders.riemannian_sgd(problem) is None
    rows = list(bars.step_rows(problem, quality.best_dual(problem.moments[0]), QUICK))
    (row,) = (row for row in rows if "geoopt" in row.what)
    assert row.note == "not installed: pip install 'modular-manifolds[bench]'"
    assert (row.theirs, row.ratio, row.met) == (None, None, None)


def test_geoopt_steps_on_the_manifold_where_it_is_installed() -> None:
    problem = problems()[0]
    stepper = contenders.riemannian_sgd(problem)
    if stepper is None:
        pytest.skip("geoopt is not installed")
    stepper.restore(problem.moments[0])
    stepper.optimizer.step()
    assert stepper.weights[0].shape == (64, 24)
    assert float(mm.Stiefel().residual(stepper.weights[0].detach())) < 1e-5
    assert not torch.equal(stepper.weights[0].mT, problem.moments[0].weights[0])


def test_the_enlarged_digits_are_the_digits_at_another_size() -> None:
    large, small = gradients.enlarged_digits(), gradients.digits_alone()
    assert large.images.shape == (len(small.images), 3 * 32 * 32)
    assert torch.equal(large.labels, small.labels)
    assert float(large.images.min()) >= float(small.images.min())
    assert float(large.images.max()) <= float(small.images.max())
    # More than the 64 dimensions of the small ones, or every gradient would have rank 64.
    assert int(torch.linalg.matrix_rank(large.images[:512], rtol=1e-4)) > 400
