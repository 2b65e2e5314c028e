"""One run by several processes: the examples, weights, metrics and files of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from long_tests import mostly_long
from ranks import folder_of_results, results
from torch import Tensor

from modular_manifolds.errors import SpecError
from modular_manifolds.training.processes import Processes

CHECKS = "run_checks"
WORLDS = (2, 4)
EACH_WORLD = pytest.mark.parametrize("world", mostly_long(WORLDS, usual=lambda world: world == 2))


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_results(request, tmp_path_factory)


def largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    return max(float((found[n] - each).norm() / each.norm()) for n, each in expected.items())


USUAL = [(2, "steepest-descent, ddp"), (2, "steepest-descent, fsdp")]
RUNS = [
    *("steepest-descent, ddp", "adamw, ddp", "muon, ddp"),
    *("steepest-descent, fsdp", "adamw, fsdp"),
]
ALL_RUNS = [
    *((2, name) for name in RUNS),
    *((4, "steepest-descent, ddp"), (4, "steepest-descent, fsdp")),
]
TOLERANCES = {"steepest-descent": 2e-6, "adamw": 1e-5, "muon": 2e-2}


@pytest.mark.parametrize(
    ("world", "name"), mostly_long(ALL_RUNS, usual=USUAL.__contains__, several=True)
)
def test_any_number_of_processes_takes_the_same_steps(folder: Path, world: int, name: str) -> None:
    """Fifteen steps, three of them on batches that four processes cannot share equally."""
    ((weights, steps, epochs, saved),) = (each[name] for each in results(folder, 1, "trained"))
    ranks = [each[name] for each in results(folder, world, "trained")]
    found, found_steps, found_epochs, found_saved = ranks[0]
    near = TOLERANCES[name.partition(",")[0]]
    print(f"{name}, {world} processes: {largest_difference(found, weights):.2g}")
    assert largest_difference(found, weights) <= near
    for one, other in zip(steps, found_steps, strict=True):
        assert (one.step, one.epoch, one.lr) == (other.step, other.epoch, other.lr)
        assert other.loss == pytest.approx(one.loss, rel=10 * near)
        assert other.accuracy == pytest.approx(one.accuracy, abs=10 * near)
    for one, other in zip(epochs, found_epochs, strict=True):
        assert other.test_loss == pytest.approx(one.test_loss, rel=10 * near)
        assert other.train_accuracy == pytest.approx(one.train_accuracy, abs=10 * near)
        assert other.test_accuracy == pytest.approx(one.test_accuracy, abs=10 * near)
        assert one.weights.keys() == other.weights.keys()
    for other, other_steps, *_ in ranks[1:]:
        assert other_steps == found_steps
        assert all(torch.equal(each, found[name]) for name, each in other.items())
    # A checkpoint holds whole tensors, however many processes have saved it.
    own = {n: each for n, each in found_saved.items() if not n.startswith("generator.")}
    assert {n: each.shape for n, each in own.items()} == {
        n: each.shape for n, each in saved.items()
    }
    assert all(torch.equal(each, own[f"net.{name}"]) for name, each in found.items())


@pytest.mark.parametrize(
    "parallel", mostly_long(["ddp", "fsdp"], usual=lambda each: each == "fsdp")
)
@EACH_WORLD
def test_a_stopped_run_goes_on_to_the_same_bits(folder: Path, world: int, parallel: str) -> None:
    ranks = results(folder, world, f"resumed_{parallel}")
    assert [each[:2] for each in ranks] == world * [(3, 10)]
    assert ranks[0][2] is True


def test_muon_is_refused_on_shards(folder: Path) -> None:
    for message in results(folder, 2, "muon_in_shards"):
        assert message.startswith("optimizer.name can be steepest-descent or adamw")


def test_a_run_of_one_process_goes_on_with_two(folder: Path) -> None:
    for begun_at, expected, found in results(folder, 2, "other_count"):
        assert begun_at == 7
        assert largest_difference(found, expected) <= TOLERANCES["steepest-descent"]


def test_all_stop_after_the_step_at_which_one_is_asked(folder: Path) -> None:
    assert results(folder, 2, "stop") == [(False, 3), (False, 3)]


def test_a_checkpoint_that_the_first_process_cannot_write_stops_all(folder: Path) -> None:
    first, second = results(folder, 2, "failed_write")
    assert first == second
    assert "checkpoint.safetensors" in first


def test_a_loss_that_is_not_finite_in_one_process_stops_all(folder: Path) -> None:
    for message, unmoved in results(folder, 2, "nonfinite"):
        assert message.startswith("the loss at step 1 must be finite, got nan")
        assert unmoved


def pieces(count: int, batch: int) -> list[tuple[list[int], float]]:
    shared = [Processes(rank, count).share(torch.arange(batch)) for rank in range(count)]
    return [(own.tolist(), factor) for own, factor in shared]


def test_a_batch_is_shared_in_order_and_weighted_by_example() -> None:
    assert pieces(1, 3) == [([0, 1, 2], 1.0)]
    assert pieces(2, 4) == [([0, 1], 1.0), ([2, 3], 1.0)]
    assert pieces(2, 3) == [([0, 1], 4 / 3), ([2], 2 / 3)]
    # A process without an example takes part with weight zero.
    assert pieces(3, 2) == [([0], 1.5), ([1], 1.5), ([0], 0.0)]


def test_a_batch_that_does_not_divide_is_refused() -> None:
    processes: Any = Processes(1, 3)
    processes.check_batch(6)
    with pytest.raises(SpecError, match=r"must divide by the 3 processes .* batch_size=9"):
        processes.check_batch(8)
