"""Data parallel: each solve once, the same bits on every rank, and the weights of one process."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from long_tests import mostly_long
from modular_manifolds_scale.ways import agreement_bytes
from ranks import folder_of_results, results
from torch import Tensor

CHECKS = "ddp_checks"
WORLDS = (2, 4)
EACH_WORLD = pytest.mark.parametrize("world", mostly_long(WORLDS, usual=lambda world: world == 2))
EACH_MODEL = pytest.mark.parametrize(
    "name", mostly_long(["mlp", "gpt", "gpt2"], usual=lambda name: name != "gpt")
)


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_results(request, tmp_path_factory)


def largest_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative to each matrix; vectors, of which some start at zero, relative to all of them."""
    assert found.keys() == expected.keys()
    vectors = torch.cat([each for each in expected.values() if each.dim() < 2] or [torch.ones(1)])
    sizes = {n: (each if each.dim() > 1 else vectors).norm() for n, each in expected.items()}
    return max(float((found[n] - each).norm() / sizes[n]) for n, each in expected.items())


def assert_same_bits(ranks: list[Any]) -> None:
    first, *others = ranks
    for other in others:
        for a, b in zip(first, other, strict=True):
            assert torch.equal(a, b)


@EACH_MODEL
@EACH_WORLD
def test_weights_are_those_of_one_process_and_the_same_bits_on_every_rank(
    folder: Path, name: str, world: int
) -> None:
    (alone,), ranks = results(folder, 1, name), results(folder, world, name)
    assert_same_bits([[*each["weights"].values(), *each["state"]] for each in ranks])
    assert largest_difference(ranks[0]["weights"], alone["weights"]) <= 1e-6
    assert largest_difference(alone["start"], alone["weights"]) > 1e-3


@EACH_MODEL
@EACH_WORLD
def test_each_matrix_is_solved_once(folder: Path, name: str, world: int) -> None:
    (alone,), ranks = results(folder, 1, name), results(folder, world, name)
    solves = [each["counts"].solves for each in ranks]
    print(f"{name}: one process {alone['counts'].solves}, {world} processes {solves}")
    assert sum(solves) == alone["counts"].solves > 0
    assert max(solves) < alone["counts"].solves


@EACH_MODEL
@EACH_WORLD
def test_the_bytes_of_a_step_follow_the_formula(folder: Path, name: str, world: int) -> None:
    """`4 (3 W + 3)` for the flags of W weights, and the points of the rank that owns most, in float32."""
    for each in results(folder, world, name):
        owned = [0] * world
        for weight, owner in each["placement"].owners.items():
            owned[owner] += math.prod(each["shapes"][weight])
        counts = each["counts"]
        assert dict(counts.calls) == {"allreduce_": 1, "_allgather_base_": 1}
        flags = counts.sent["allreduce_"]
        assert flags == 4 * (3 * each["members"] + 3) == agreement_bytes(each["members"])
        assert counts.sent["_allgather_base_"] == 4 * max(owned) == each["placement"].buffer_bytes


def test_replicated_steps_lead_to_the_same_weights_and_send_nothing(folder: Path) -> None:
    (alone,), ranks = results(folder, 1, "mlp"), results(folder, 2, "replicated")
    assert_same_bits([each["weights"].values() for each in ranks])
    assert largest_difference(ranks[0]["weights"], alone["weights"]) <= 1e-6
    for each in ranks:
        assert each["counts"].solves == alone["counts"].solves
        assert not each["counts"].calls
        assert str(each["placement"]).startswith("replicate: each of 2 processes")


def test_bare_parameters_take_the_group_that_is_passed(folder: Path) -> None:
    ranks = results(folder, 2, "by_hand")
    assert [each["solves"] for each in ranks] == [1, 1]
    assert_same_bits([each["weights"].values() for each in ranks])


@pytest.mark.parametrize(
    "check", mostly_long(["settings", "more_settings"], usual=lambda check: check == "settings")
)
def test_every_setting_on_both_ways(folder: Path, check: str) -> None:
    """Gradients are the same in every process here, so one process differs by the rounding of other stacks only."""
    (alone,), ranks = results(folder, 1, check), results(folder, 2, check)
    for name, (weights, _, counts) in alone.items():
        assert_same_bits([[*each[name][0].values(), *each[name][1]] for each in ranks])
        found = {n: each.float() for n, each in ranks[0][name][0].items()}
        expected = {n: each.float() for n, each in weights.items()}
        assert largest_difference(found, expected) <= 1e-6, name
        assert sum(each[name][2].solves for each in ranks) == counts.solves, name


@EACH_WORLD
def test_a_gradient_of_nan_in_one_process_stops_all(folder: Path, world: int) -> None:
    ranks = results(folder, world, "nonfinite")
    for rank, each in enumerate(ranks):
        message, rested, skipped, _ = each["raise"]
        own = rank == world - 1
        assert message.startswith("the gradient of '2.weight' must be finite")
        assert ("on another process" in message) != own
        assert rested
        assert skipped == 0
        message, rested, skipped, _ = each["skip"]
        assert message == "no error"
        assert rested
        assert skipped == 1
    for how in ("raise", "skip"):
        assert_same_bits([each[how][-1].values() for each in ranks])


@pytest.mark.parametrize("way", ["host", "device"])
def test_a_gradient_that_one_process_lacks_stops_all(folder: Path, way: str) -> None:
    for each in results(folder, 2, "missing"):
        message, after, before = each[way]
        assert message.startswith("the gradient of '2.weight' must exist")
        assert "find_unused_parameters=True" in message
        for name in before:
            assert torch.equal(after[name], before[name])


def test_a_process_without_any_gradient_stops_all(folder: Path) -> None:
    for message in results(folder, 2, "absent"):
        assert message.startswith("the gradient of '0.weight' must exist")


def test_processes_with_other_geometries_are_refused(folder: Path) -> None:
    for message in results(folder, 2, "others"):
        assert "must be built on the same weights, shapes and geometries" in message


@EACH_WORLD
def test_a_state_of_the_first_process_resumes_bit_for_bit(folder: Path, world: int) -> None:
    for each in results(folder, world, "resume"):
        for name, runs in each.items():
            assert len(runs) == 2, name
            assert_same_bits(runs)
