"""Processes that step other weights than the others are refused in words, and those that hang or end leave an error behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lost_checks import SECONDS
from ranks import folder_of_results, results

CHECKS = "lost_checks"
KINDS = ("replicated", "sharded")


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_results(request, tmp_path_factory)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["fewer", "others"])
def test_stages_of_a_pipeline_in_one_group_are_refused(folder: Path, kind: str, case: str) -> None:
    for each in results(folder, 2, "stages"):
        message, rested = each[f"{kind}, {case}"]
        assert message.startswith("SteepestDescent(params) must be built on the same weights")
        assert "a process group for each stage" in message
        assert rested


def test_a_weight_that_stages_share_moves_as_one_if_its_gradients_are_summed(folder: Path) -> None:
    (alone,), (first, second) = results(folder, 1, "tied"), results(folder, 2, "tied")
    assert torch.equal(first["summed"], second["summed"])
    torch.testing.assert_close(first["summed"], alone["summed"], rtol=0, atol=1e-6)
    assert (first["apart"] - second["apart"]).norm() > 0.1


@pytest.mark.parametrize(
    ("world", "check", "kind"),
    [(2, "stuck", "replicated"), (3, "dead", "replicated"), (3, "dead", "sharded")],
)
def test_a_process_that_does_not_step_leaves_an_error_in_the_others(
    folder: Path, world: int, check: str, kind: str
) -> None:
    """Within the time-out of the group, and at once if the process has ended."""
    error, notes, seconds = results(folder, world, check)[0][kind]
    assert error != "no error"
    assert seconds <= SECONDS + 10
    assert notes.startswith("SteepestDescent.step() was waiting for the other processes, to agree")
    assert "No weight has moved" in notes
