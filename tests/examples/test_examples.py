"""The post's experiment and the race of solvers run on a handful of random images."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from modular_manifolds_bench.baselines import BASELINES, SPEL, DualAscent, Lyapunov
from scripts_of_examples import ROOT, example

import modular_manifolds as mm
from modular_manifolds.training.split import Split


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
