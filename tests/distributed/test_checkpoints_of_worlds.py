"""Checkpoints by `torch.distributed.checkpoint` are saved by one number of processes in one layout, and taken up by others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from long_tests import mostly_long
from ranks import folder_of_results, results

CHECKS = "checkpoint_checks"
EACH_LAYOUT = pytest.mark.parametrize(
    "layout", mostly_long(["ddp", "fsdp", "tp"], usual=lambda layout: layout == "fsdp")
)


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_results(request, tmp_path_factory)


@pytest.mark.parametrize(
    ("world", "count"),
    [
        *((1, 2), (2, 3)),
        *mostly_long([(1, 7), (2, 21), (4, 21)], usual=lambda _: False, several=True),
    ],
)
def test_worlds_and_layouts_go_on_from_checkpoints(folder: Path, world: int, count: int) -> None:
    """Three steps before the checkpoint and three behind it, against processes that went on."""
    ranks = results(folder, world, "went_on")
    assert all(each == ranks[0] for each in ranks)
    differences: dict[Any, tuple[float, bool]] = ranks[0]
    assert len(differences) >= count
    for (name, saved_world, saved_layout, now, layout), (most, same) in differences.items():
        case = f"{name}: {saved_layout} of {saved_world} to {layout} of {now}: {most:.2g}"
        print(case)
        if (saved_world, saved_layout) == (now, layout):
            assert same, case
        assert most <= 1e-6, case


@EACH_LAYOUT
def test_a_checkpoint_of_an_optimiser_without_state_changes_nothing(
    folder: Path, layout: str
) -> None:
    """torch steps optimisers that have no state, with zero gradients."""
    for rank in results(folder, 2, "empty"):
        _, unchanged = rank[layout]
        assert unchanged


@EACH_LAYOUT
def test_a_resume_into_another_model_is_refused_in_every_process(folder: Path, layout: str) -> None:
    for rank in results(folder, 2, "refused"):
        manifold = rank[layout, "manifold"]
        assert "must be for the manifold {'name': 'spectral_ball'" in manifold
        assert "'0.weight', got {'name': 'stiefel'" in manifold
        assert "Size mismatch" in rank[layout, "deeper"]
        assert "Missing key in checkpoint state_dict: model.1.weight" in rank[layout, "renamed"]
