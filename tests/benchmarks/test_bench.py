"""The benchmarks: the harness keeps time fairly, the problems are real, the report says all of it."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from modular_manifolds_bench import (
    BENCHES,
    Environment,
    Report,
    Row,
    Settings,
    bars,
    contenders,
    gradients,
    quality,
    run,
)
from modular_manifolds_bench.drift import drift
from modular_manifolds_bench.memory import measure, of_steps
from modular_manifolds_bench.report import amount, cells
from modular_manifolds_bench.timing import Contender, Timings, interleave, threads

import modular_manifolds as mm
from modular_manifolds.cli.main import main
from modular_manifolds.errors import ArgumentError, DataError

QUICK = Settings(rounds=2, drift_steps=50)


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


def problems() -> list[gradients.Problem]:
    """Two weights of a small net on the digits, each at two moments."""
    torch.manual_seed(0)
    net = gradients.perceptron((64, 24, 10))
    found = gradients.record(
        net, gradients.digits_alone(), steps=6, at=(3, 5), lr=0.1, share=1.0, batch=128
    )
    return gradients.one_weight_each(found)


def stack() -> gradients.Problem:
    """Three square weights of one net."""
    torch.manual_seed(0)
    net = gradients.perceptron((64,) * 4, mm.Abs)
    found = gradients.record(
        net, gradients.digits_alone(), steps=3, at=(1, 2), lr=0.1, share=0.3, batch=128
    )
    return gradients.all_weights(found, name="3 of 64×64")


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
        assert certificate <= bars.GAP
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


def test_a_report_survives_json_and_shows_what_is_missed(tmp_path: Path) -> None:
    report = Report(
        Environment.here(threads=2),
        "digits",
        1.5,
        (
            Row(
                "a",
                "met",
                ours=0.002,
                theirs=0.004,
                ratio=0.5,
                low=0.4,
                high=0.6,
                bar="≤ 1",
                met=True,
            ),
            Row("a", "missed", unit="B", ours=3 * 2**20, bar="≤ 1", met=False, note="a note"),
            Row("b", "no bar", unit="", ours=1e-7),
        ),
    )
    assert Report.from_json(report.to_json()) == report
    path = tmp_path / "report.json"
    report.write(path)
    assert Report.from_json(path.read_text(encoding="utf-8")) == report
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
    assert [row.what for row in report.missed] == ["missed"]
    assert cells(report.rows) == [
        ("met", "2 ms", "4 ms", "0.5 [0.4, 0.6]", "≤ 1", "yes"),
        ("missed (a note)", "3 MiB", "–", "–", "≤ 1", "no"),
        ("no bar", "1e-07", "–", "–", "–", "–"),
    ]
    assert json.loads(report.to_json())["environment"]["torch"] == torch.__version__
    for broken in ("{", "{}", '{"rows": [{"x": 1}], "environment": {}}'):
        with pytest.raises(DataError, match="report must be what"):
            Report.from_json(broken)
    with pytest.raises(DataError, match="--json must be a file that can be written"):
        report.write(tmp_path / "nowhere" / "report.json")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.0, "s", "2 s"),
        (3e-5, "s", "30 µs"),
        (12.0, "B", "12 B"),
        (0.0, "", "0"),
        (None, "s", "–"),
    ],
)
def test_amounts_read_well(value: float | None, unit: str, text: str) -> None:
    assert amount(value, unit) == text


def test_the_enlarged_digits_are_the_digits_at_another_size() -> None:
    large, small = gradients.enlarged_digits(), gradients.digits_alone()
    assert large.images.shape == (len(small.images), 3 * 32 * 32)
    assert torch.equal(large.labels, small.labels)
    assert float(large.images.min()) >= float(small.images.min())
    assert float(large.images.max()) <= float(small.images.max())
    # More than the 64 dimensions of the small ones, or every gradient would have rank 64.
    assert int(torch.linalg.matrix_rank(large.images[:512], rtol=1e-4)) > 400


def test_the_command_prints_the_bars_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "bench.json"
    before = torch.get_num_threads()
    said = ["bench", "--only", "drift", "--drift-steps", "50", "--threads", "1"]
    assert main([*said, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    for text in ("Benchmarks", "float32", "bfloat16", "machine", "bars", "drift\n", "≤ 1e-05"):
        assert text in out
    report = Report.from_json(path.read_text(encoding="utf-8"))
    assert [row.bench for row in report.rows] == ["drift", "drift"]
    assert report.environment.threads == 1
    assert torch.get_num_threads() == before


def test_a_missed_bar_is_named_and_the_exit_code_is_zero(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        BENCHES, "drift", lambda _: iter([Row("drift", "a bar out of reach", bar="≤ 0", met=False)])
    )
    assert main(["bench", "--only", "drift"]) == 0
    out = capsys.readouterr().out
    assert "missed    1 of 1 bars" in out
    assert "\n  a bar out of reach" in out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--only", "speed"], "--only must be one of manifold-muon, dual-ascent"),
        (["--rounds", "0"], "rounds must be at least 1"),
        (["--drift-steps", "0"], "drift_steps must be at least 1"),
        (["--threads", "0"], "threads must be a positive whole number"),
        (["--only", "manifold-muon", "--data-path", "nowhere"], "data path must be a folder"),
    ],
)
def test_a_callers_mistake_is_one_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {text}")
    assert captured.err.count("\n") == 1


def test_the_help_of_only_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in BENCHES)


def test_running_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    run(Settings(drift_steps=10), only=["drift"], threads=1)
    assert torch.equal(torch.get_rng_state(), before)


COMMAND = importlib.import_module("modular_manifolds.cli.bench")


def test_the_command_finds_the_folder_beside_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != folder])
    monkeypatch.setitem(BENCHES, "drift", lambda _: iter(()))
    assert main(["bench", "--only", "drift"]) == 0
    assert sys.path.count(folder) == 1
    assert main(["bench", "--only", "drift"]) == 0
    assert sys.path.count(folder) == 1


def test_an_installed_package_says_where_the_benchmarks_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = tmp_path / "modular_manifolds" / "cli" / "bench.py"
    monkeypatch.setattr(COMMAND, "__file__", str(installed))
    assert main(["bench"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: bench must run in the repository, where the folder benchmarks/")
    assert "pip install -e '.[bench]'" in error
