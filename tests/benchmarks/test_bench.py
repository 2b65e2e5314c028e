"""The harness of the benchmarks keeps time fairly and counts memory."""

from __future__ import annotations

import pytest
import torch
from modular_manifolds_bench import (
    Settings,
    bars,
    contenders,
    gradients,
    quality,
    run,
)
from modular_manifolds_bench.memory import measure, of_steps
from modular_manifolds_bench.timing import Contender, Timings, interleave, threads
from recorded import QUICK, problems, stack

from modular_manifolds.errors import ArgumentError


class Clock:
    """Time that only a fake contender moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def contender(self, name: str, *seconds: float, most: int | None = None) -> Contender:
        """Takes the next of `seconds` at each run; preparing takes long, and must not count."""
        left = list(seconds)

        def prepare(number: int) -> None:
            self.log.append(f"{name}{number}")
            self.now += 1000.0

        def step() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return Contender(name, prepare, step, most)


def test_rounds_alternate_and_only_the_step_is_timed() -> None:
    clock = Clock()
    a, b = clock.contender("a", 9.0, 1.0, 2.0, 3.0), clock.contender("b", 9.0, 2.0)
    timings = interleave([a, b], rounds=3, clock=clock)
    assert clock.log == ["a0", "b0", "a0", "b0", "a1", "b1", "a2", "b2"]
    assert timings.seconds == {"a": (1.0, 2.0, 3.0), "b": (2.0, 2.0, 2.0)}


def test_a_slow_contender_takes_part_in_few_rounds_and_time_ends_them_all() -> None:
    clock = Clock()
    slow, quick = clock.contender("slow", 50.0, most=1), clock.contender("quick", 9.0, 2.0, 1.0)
    timings = interleave([quick, slow], rounds=9, seconds=20.0, clock=clock)
    assert timings.seconds == {"quick": (2.0, 1.0, 1.0), "slow": (50.0,)}
    ratio = timings.ratio("slow", "quick")
    assert (ratio.value, ratio.low, ratio.high) == (25.0, None, None)


def test_a_ratio_is_of_medians_and_its_quartiles_of_rounds() -> None:
    timings = Timings({"a": (1.0, 2.0, 30.0), "b": (1.0, 1.0, 10.0)})
    ratio = timings.ratio("a", "b")
    assert ratio.value == 2.0
    assert (ratio.low, ratio.high) == (1.5, 2.5)


@pytest.mark.parametrize("rounds", [0, -1, True, 1.5])
def test_rounds_must_be_a_positive_number(rounds: int) -> None:
    with pytest.raises(ArgumentError, match="rounds must be a positive whole number"):
        interleave([], rounds=rounds)


def test_threads_are_set_and_restored() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ArgumentError, match="threads must be"), threads(0):
        pass


def test_the_meter_sees_a_known_allocation() -> None:
    kept: list[torch.Tensor] = []

    def step() -> None:
        passing = torch.empty(1 << 20)
        del passing
        kept.append(torch.empty(1 << 18))

    use = measure(step)
    assert use.peak == 4 << 20
    assert use.kept == 1 << 20


def test_the_meter_does_not_count_what_was_prepared() -> None:
    held: list[torch.Tensor] = []
    use = measure(held.clear, prepare=lambda: held.append(torch.empty(1 << 18)))
    assert (use.peak, use.kept) == (0, -(1 << 20))


def test_memory_of_a_muon_is_its_momentum() -> None:
    stepper = contenders.torch_muon(stack())
    stepper.restore(stack().moments[0])
    found = of_steps(stepper.optimizer)
    assert found.weights == found.state == 3 * 64 * 64 * 4
    assert found.allowed_state == 2 * found.weights
    assert found.largest == found.transient > 0


def test_memory_rows_of_a_net(capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    net = gradients.perceptron((64, 24, 10))
    steps = gradients.training(net, gradients.digits_alone(), steps=2, lr=0.1, share=1.0, batch=64)
    optimizer = next(optimizer for step, optimizer in steps if step == 1)
    weights = [weight.detach().clone() for weight in net.parameters()]
    state, transient = bars.memory_rows("small", of_steps(optimizer))
    assert state.ours is not None
    assert state.ours >= 4 * (24 * 64 + 10 * 24)
    assert transient.ours is not None
    assert transient.theirs is not None
    assert transient.ours >= transient.theirs > 0
    assert not all(map(torch.equal, weights, net.parameters())), "a step was taken"
    assert capfd.readouterr().err == ""


def test_rows_of_one_weight() -> None:
    problem = problems()[1]
    best = quality.best_dual(problem.moments[0])
    first, *others = bars.step_rows(problem, best, QUICK)
    assert first.what == "manifold Muon / torch.optim.Muon, 10×24"
    assert first.met is not None
    assert len(others) == 2
    assert all(row.met is None for row in others)
    seed = bars.seed_row(problem, best, QUICK)
    assert seed.ratio is not None
    assert seed.ratio > 1, "dual ascent is slower than we are"
    assert seed.met is not None


def test_rows_of_a_stack() -> None:
    problem = stack()
    for row in (bars.plain_row(problem, QUICK), bars.whole_row(problem, QUICK)):
        assert row.ratio is not None
        assert row.met is not None
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.high


def test_running_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    run(Settings(drift_steps=10), only=["drift"], threads=1)
    assert torch.equal(torch.get_rng_state(), before)
