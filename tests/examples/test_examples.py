"""Examples run: the post's experiment on a handful of random images."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
import torch
from modular_manifolds_bench.baselines import BASELINES, SPEL, DualAscent, Lyapunov

import modular_manifolds as mm
from modular_manifolds.training.split import Split

ROOT = Path(__file__).parents[2]


def example(name: str) -> ModuleType:
    """A file of examples/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    return example("seed_experiment")


@pytest.fixture(scope="module")
def race() -> ModuleType:
    return example("solver_race")


def test_the_posts_experiment_runs_and_goes_on(experiment: ModuleType, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(60, 3072, generator=generator)
    labels = torch.randint(0, 10, (60,), generator=generator)
    data = experiment.Data(images[:40], labels[:40], images[40:], labels[40:])
    grids = {"manifold Muon": (0.1,), "hyperspherical descent": (0.4,), "AdamW": (2e-3, 4e-3)}
    settings = {"seeds": (1, 2), "epochs": 2, "batch": 20, "grids": grids}
    runs = experiment.run_all(data, tmp_path, **settings)
    assert len(runs) == 8
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")}
    assert len(written) == 8
    assert experiment.run_all(data, tmp_path, **settings) == runs
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.json")} == written

    assert experiment.off_one(runs) <= 1e-5
    method, rate, *_, spread = experiment.best(runs, "AdamW")
    assert method == "AdamW"
    assert rate in (2e-3, 4e-3)
    assert spread >= 0
    figure = experiment.draw(runs)
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_every_weight_steps_by_the_rate_itself(experiment: ModuleType) -> None:
    net = experiment.network("manifold Muon")
    optimizer = experiment.optimizer("manifold Muon", net, 0.1)
    assert [group["shares"] for group in optimizer.param_groups] == [[1.0, 1.0, 1.0]]
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


def solvers_of_manifold_muon() -> list[str]:
    solvers = mm.solvers.find_pair(mm.Stiefel(), mm.Spectral()).solvers
    return [each.name for each in (*solvers, *BASELINES)]


def test_solvers_race_on_gradients_from_training(race: ModuleType, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    data = Split(
        torch.randn(40, 12, generator=generator), torch.randint(0, 3, (40,), generator=generator)
    )
    problems = race.record(data, sizes=(12, 6, 3), steps=4, keep=2, batch=10)
    assert [problem.weight for problem in problems] == ["0.weight", "2.weight"] * 2
    assert not torch.equal(problems[0].point, problems[2].point)
    for problem in problems:
        assert float(mm.Stiefel().residual(problem.point)) <= 1e-5
        assert float(problem.gradient.norm()) > 0

    found = race.run(problems, data="noise", budgets=(0, 2), repeats=1)
    for weight, shape in (("0.weight", (6, 12)), ("2.weight", (3, 6))):
        mine = [point for point in found.points if point.weight == weight]
        assert {point.shape for point in mine} == {shape}
        assert {point.method for point in mine} == {*solvers_of_manifold_muon(), *race.FITTED}
        fixed = [point for point in mine if point.method == "lyapunov"]
        assert [point.budget for point in fixed] == [0, 2]
        assert fixed[1].gap < fixed[0].gap
        assert all(point.milliseconds > 0 and 0 <= point.gap <= 1 for point in mine)

    picture = race.write(found, tmp_path)
    assert picture.stat().st_size > 10_000
    assert {file.name for file in tmp_path.iterdir()} == {"solver_race.json", "solver_race.png"}
    numbers = json.loads((tmp_path / "solver_race.json").read_text())
    assert len(numbers["points"]) == len(found.points)
    assert numbers["data"] == "noise"


def test_a_budget_is_all_that_limits_a_solver_in_the_race(race: ModuleType) -> None:
    entries = race.entries((0, 7))
    assert ("lyapunov", 7, Lyapunov(tolerance=0.0, max_iterations=7)) in entries
    assert ("dual-ascent", 7, DualAscent(tolerance=0.0, steps=7)) in entries
    assert ("spel", None, SPEL()) in entries


def test_digits_are_enlarged_to_the_size_of_the_network(race: ModuleType) -> None:
    images = race.digits().images
    assert images.shape[1] == race.SIZES[0]
    squares = images.reshape(-1, 3, 32, 32)
    assert torch.equal(squares[:, 0], squares[:, 2])
    assert float(images.std()) > 1


def test_the_figure_in_the_documentation_shows_every_solver() -> None:
    """A new solver must race too: run the example again."""
    numbers = json.loads((ROOT / "docs" / "figures" / "solver_race.json").read_text())
    assert set(solvers_of_manifold_muon()) <= {point["method"] for point in numbers["points"]}


def test_a_small_gpt_learns_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "sea.txt"
    text.write_text("the sea is wide and the boat is small\n" * 20)
    gpt = example("char_gpt")
    settings = {"width": 16, "depth": 1, "context": 16, "batch": 8, "steps": 50, "lr": 0.5}
    found = gpt.run(text, **settings, quiet=True)
    assert capsys.readouterr().out == ""
    assert len(found.losses) == 50
    assert sum(found.losses[-5:]) < 0.8 * sum(found.losses[:5])
    assert set(found.sample) <= set(text.read_text())
    assert gpt.run(text, **settings).losses == found.losses
    out = capsys.readouterr().out
    assert "one step moves the output by at most" in out
    assert "step 50 of 50: loss" in out
    assert found.sample in out


def test_the_run_file_of_the_gpt_is_a_run() -> None:
    run = mm.RunSpec.from_file(ROOT / "examples" / "char_gpt.yaml")
    assert run.steps == 1000
    network = run.resolved(in_features=65, classes=65).network
    assert network is not None
    net = network.build_aside()
    assert net.source == mm.Space(65, "l1")


@pytest.fixture(scope="module")
def word_embedding() -> ModuleType:
    return example("word_embedding")


@pytest.fixture(scope="module")
def words(word_embedding: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Words of a made-up language: which word comes next depends on the last one, and most words are rare."""
    random = Random(0)
    last, text = 1, []
    for _ in range(900):
        last = min(int(60 * random.random() ** 3) + last % 5, 59)
        text.append(f"w{last}{random.choice([' ', ' ', ', ', chr(10)])}")
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("".join(text))
    return word_embedding.read_words(path, vocabulary=40, context=8)


def test_words_become_tokens_in_order_of_their_frequency(
    word_embedding: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("Don't go, go! Go\nno GO\n" + "strange")
    found = word_embedding.read_words(path, vocabulary=3, context=2)
    # Training: don't go , go ! go . no go . with . for the end of a line.
    assert found.train.tokens.tolist() == [0, 1, 0, 1, 0, 1, 2, 0, 1, 2]
    assert found.test.tokens.tolist() == [0]
    assert found.counts.tolist() == [4, 4, 2]


def test_the_rules_differ_in_the_rows_that_a_batch_does_not_contain(
    word_embedding: ModuleType,
) -> None:
    kept: dict[str, torch.Tensor] = {}
    for method in word_embedding.METHODS:
        torch.manual_seed(0)
        net = mm.models.GPT(6, width=16, depth=1)
        weight = net.get_parameter("embedding.weight")
        steppers = word_embedding.optimisers(net, word_embedding.Trial(method, 1.0, 0.1))
        momentum = steppers[0].state[weight]["momentum"]
        for tokens in ([[1, 2]], [[2, 3]]):
            before, averages = weight.detach().clone(), momentum.clone()
            net.zero_grad()
            net(torch.tensor(tokens)).square().sum().backward()
            word_embedding.prepare_absent_rows_(method, weight, momentum)
            for stepper in steppers:
                stepper.step()
        moved = (weight.detach() - before).square().mean(dim=1).sqrt() > 1e-4
        wanted = [word_embedding.AT_REST, word_embedding.DAMPED, word_embedding.KEPT]
        rows = [2, 3] if method in wanted else [] if method == "frozen" else [1, 2, 3]
        assert moved.nonzero().flatten().tolist() == rows, method
        kept[method] = momentum[1] / averages[1]
    for method, left in {"at rest": 0.9, "momentum kept": 1.0, "every row moves": 0.9}.items():
        # 1e-6 is what the smallest gradient adds; the rest is a rounding in each operation.
        torch.testing.assert_close(kept[method], torch.full((16,), left), rtol=1e-6, atol=0)


def test_the_rules_of_an_embedding_are_compared_and_the_comparison_goes_on(
    word_embedding: ModuleType, words: Any, tmp_path: Path
) -> None:
    reports: list[Any] = []
    experiment = word_embedding.Experiment(
        words, tmp_path, width=16, batch=4, steps=2, report=lambda t, _: reports.append(t)
    )
    methods = (next(iter(word_embedding.BETAS)), word_embedding.FROZEN)
    found = experiment.results(methods, seeds=(1,))
    assert [trial.method for trial in found] == list(methods)

    tried = [json.loads(file.read_text()) for file in tmp_path.glob("*.json")]
    losses = {word_embedding.Trial(**each["trial"]): each["run"]["loss"] for each in tried}
    assert set(reports) == set(losses)
    for trial, (run,) in found.items():
        assert run.loss == losses[replace(trial, seed=1)]
        for first, second in ((run.after_rare, run.after_frequent), (run.of_rare, run.of_frequent)):
            assert min(first, second) < run.loss < max(first, second)
        for name in ("rate", "embedding_rate"):
            own = getattr(trial, name)
            if own is not None:
                for factor in (0.5, 2):
                    assert losses[trial] <= losses[replace(trial, **{name: factor * own})]

    written = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    assert experiment.results(methods, seeds=(1,)) == found
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == written
    best = next(iter(found))
    assert replace(experiment, steps=1).run(best).loss != losses[best]
    assert word_embedding.table(found).row_count == 2


@pytest.fixture(scope="module")
def nanogpt() -> ModuleType:
    return example("nanogpt")


SMALL_GPT = ["--width", "16", "--depth", "1", "--context", "16", "--batch", "8", "--steps", "40"]


@pytest.mark.parametrize(
    ("name", "rates"), [("ours", ["1.0"]), ("adamw", ["0.03"]), ("muon", ["0.03"])]
)
def test_a_plain_gpt_learns_by_each_of_the_three_optimisers(
    nanogpt: ModuleType,
    name: str,
    rates: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = tmp_path / "sea.txt"
    text.write_text("the sea is wide and the boat is small\n" * 30)
    said = ["--data", str(text), "--optimizer", name, "--lr", *rates, *SMALL_GPT]
    found = nanogpt.main(said)
    (result,) = found.values()
    assert len(result.losses) == 40
    assert sum(result.losses[-5:]) < 0.8 * sum(result.losses[:5])
    assert result.valid < 0.8 * result.losses[0]
    assert f"validation loss {result.valid:.3f}" in capsys.readouterr().out
    assert next(iter(nanogpt.main(said).values())).losses == result.losses


def test_every_optimiser_of_the_plain_gpt_starts_from_the_same_weights_and_batches(
    nanogpt: ModuleType, tmp_path: Path
) -> None:
    """Ours projects the hidden matrices, so only the others see the very same first loss."""
    text = tmp_path / "sea.txt"
    text.write_text("the sea is wide and the boat is small\n" * 30)
    first = {
        name: next(
            iter(nanogpt.main(["--data", str(text), "--optimizer", name, *SMALL_GPT]).values())
        ).losses[0]
        for name in nanogpt.RATES
    }
    assert first["adamw"] == first["muon"] != first["ours"]


def test_several_rates_are_a_grid_and_the_two_lines_are_marked(
    nanogpt: ModuleType, tmp_path: Path
) -> None:
    text = tmp_path / "sea.txt"
    text.write_text("the sea is wide and the boat is small\n" * 30)
    grid = ["--lr", "0.01", "0.02", "--adamw-lr", "0.01", "0.02", "--steps", "2"]
    found = nanogpt.main(["--data", str(text), "--optimizer", "muon", *SMALL_GPT, *grid])
    assert list(found) == [(0.01, 0.01), (0.01, 0.02), (0.02, 0.01), (0.02, 0.02)]
    lines = (ROOT / "examples" / "nanogpt.py").read_text().splitlines()
    marked = [line for line in lines if line.endswith("# modular_manifolds")]
    assert len(marked) == 2
    assert all("mm." in line for line in marked)
    assert sum("mm." in line for line in lines) == 2
