"""Checkpoints by `torch.distributed.checkpoint` are saved by one number of processes in one layout, and taken up by others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ranks import results, start_once


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "checkpoints"
    # One and two processes come twice: the second time they find what more have saved.
    start_once(Path(__file__).with_name("checkpoint_checks.py"), folder, 1, 2, 4, 2, 1)
    return folder


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_world_and_layout_goes_on_from_every_checkpoint(folder: Path, world: int) -> None:
    """Three steps before the checkpoint and three behind it, against processes that went on."""
    ranks = results(folder, world, "went_on")
    assert all(each == ranks[0] for each in ranks)
    differences: dict[Any, tuple[float, bool]] = ranks[0]
    assert len(differences) == 5 * {1: 1, 2: 3, 4: 2}[world]
    for (name, saved_world, saved_layout, now, layout), (most, same) in differences.items():
        case = f"{name}: {saved_layout} of {saved_world} to {layout} of {now}: {most:.2g}"
        print(case)
        if (saved_world, saved_layout) == (now, layout):
            assert same, case
        assert most <= 1e-6, case


def test_a_checkpoint_of_an_optimiser_without_state_changes_nothing(folder: Path) -> None:
    """torch steps optimisers that have no state, with zero gradients."""
    for rank in results(folder, 2, "empty"):
        assert rank.keys() == {"ddp", "fsdp", "tp"}
        assert all(unchanged for _, unchanged in rank.values())


def test_a_resume_into_another_model_is_refused_in_every_process(folder: Path) -> None:
    for rank in results(folder, 2, "refused"):
        for layout in ("ddp", "fsdp", "tp"):
            manifold = rank[layout, "manifold"]
            assert "must be for the manifold {'name': 'spectral_ball'" in manifold, layout
            assert "'0.weight', got {'name': 'stiefel'" in manifold, layout
            assert "Size mismatch" in rank[layout, "deeper"], layout
            assert "Missing key in checkpoint state_dict: model.1.weight" in rank[layout, "renamed"]
