"""Examples run: the post's experiment on a handful of random images."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    """examples/seed_experiment.py as a module."""
    spec = importlib.util.spec_from_file_location(
        "seed_experiment", EXAMPLES / "seed_experiment.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["seed_experiment"] = module
    spec.loader.exec_module(module)
    return module


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
    assert [group["share"] for group in optimizer.param_groups] == [1.0, 1.0, 1.0]
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}
