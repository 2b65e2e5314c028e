"""Messages that leave in the backward pass: the same bits and bytes as without, or an error in words on every process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from long_tests import mostly_long
from ranks import folder_of_results, results
from torch import nn

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError

CHECKS = "overlap_checks"


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_results(request, tmp_path_factory)


def is_same(first: Any, second: Any) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.mark.parametrize(
    "name", mostly_long(["mlp", "gpt", "gpt2"], usual=lambda name: name == "gpt")
)
def test_fsdp_trains_to_the_same_bits_and_sends_the_same_bytes(folder: Path, name: str) -> None:
    for rank in results(folder, 2, "trained"):
        (usual, counts, *_), (found, early, left, placement) = rank[name]
        assert is_same(usual, found)
        messages, sent = placement.overlap
        assert messages == sent == left > 1
        assert early.calls["alltoall_base_"] == messages + 1
        assert early.calls["allreduce_"] == 1
        assert early.sent["alltoall_base_"] == counts.sent["alltoall_base_"]
        assert (
            early.sent["alltoall_base_"] == placement.bytes_to_owners + placement.bytes_to_holders
        )
        assert early.sent["allreduce_"] == counts.sent["allreduce_"] + 8 == placement.flag_bytes
        assert f"{messages} messages to owners may leave in the backward pass" in str(placement)


@pytest.mark.long
def test_meshes_and_parts_of_them_overlap(folder: Path) -> None:
    for rank in results(folder, 4, "meshes"):
        for layout, ((usual, *_), (found, counts, crews)) in rank.items():
            assert is_same(usual, found), layout
            assert counts[0] == counts[1] > 2, layout
            assert len(crews) == (1 if layout == "hsdp" else 2), layout


def test_tensor_parallelism_of_torch_overlaps_too(folder: Path) -> None:
    for (usual, _), (found, counts) in results(folder, 2, "parallelized"):
        assert is_same(usual, found)
        assert counts == (1, 1)


@pytest.mark.parametrize(
    ("check", "count"),
    mostly_long([("settings", 3), ("more_settings", 4)], usual=2, several=True),
)
def test_settings_and_orders_of_arrival_change_no_bit(folder: Path, check: str, count: int) -> None:
    for rank in results(folder, 2, check):
        assert len(rank) == count
        for name, ((usual, _), (found, counts)) in rank.items():
            assert is_same(usual, found), name
            assert counts == (3, 3), name


@pytest.mark.parametrize(
    ("check", "count"), mostly_long([("changed", 4), ("more_changed", 5)], usual=2, several=True)
)
def test_a_change_after_the_backward_pass_is_refused_by_all(
    folder: Path, check: str, count: int
) -> None:
    first, second = results(folder, 2, check)
    assert first.keys() == second.keys()
    assert len(first) == count
    for name, (said, rested, moved) in (*first.items(), *second.items()):
        assert said["step"].startswith("the gradients of SteepestDescent(overlap) must stay"), name
        assert "Pass overlap=k if each step has k backward passes" in said["step"]
        assert said["next"] == "no error", name
        assert rested, name
        assert moved, name


EARLY: Mapping[str, list[int]] = {
    "given up": [3, 3, 3],
    "accumulated": [3, 3, 3],
    "fewer passes": [0, 0, 0],
    "other settings": [0, 0, 0],
    "other settings after": [0, 0, 0],
    "frozen": [3, 3, 3],
    "missing everywhere": [2, 2, 2],
}
"""The messages, of three, that had left before each step. After new settings the step sends all anew."""


def test_rounds_that_are_given_up_or_laid_out_anew_change_no_bit(folder: Path) -> None:
    for rank in results(folder, 2, "rounds"):
        assert rank.keys() == EARLY.keys()
        for name, ((usual, _), (found, early)) in rank.items():
            assert is_same(usual, found), name
            assert early == EARLY[name], name


def test_processes_out_of_step_are_told_and_come_back(folder: Path) -> None:
    (said, weights), (other, others) = results(folder, 2, "missing")
    assert said == other
    assert said["lacks"].startswith("the gradient of '2.weight' must exist")
    assert said["gave up 0"].startswith("the gradients of SteepestDescent(overlap) must stay")
    assert said["next"] == said["gave up 1"] == "no error"
    assert is_same(weights, others)


@pytest.mark.parametrize("way", ["host", "device"])
def test_a_gradient_of_nan_that_has_left_changes_nothing(folder: Path, way: str) -> None:
    for rank in results(folder, 2, "nonfinite"):
        usual, found = rank[way]
        assert is_same(usual[0], found[0])
        assert usual[1:4] == found[1:4]
        said, rested, skipped, counts = found[1:]
        assert rested
        assert counts == (3, 3)
        assert skipped == (way == "device")
        assert said["2"] == "no error"
        assert (way == "device") == (said["1"] == "no error")


def test_hooks_end_with_the_optimiser_and_copies_have_none(folder: Path) -> None:
    for rank in results(folder, 2, "life"):
        assert rank["hooks"] == 2
        assert rank["copies"] == [(0, None)] * 2
        assert rank["after"] == (0, True)
        assert not rank["alive"]
        assert not rank["keys"]
        first, *others = rank["weights"]
        for each in others:
            assert is_same(first.values(), each.values())
        assert "got no matrix that an owner gathers" in rank["no owners"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlap": True}, "needs sharded weights .* got whole weights"),
        ({"overlap": -1}, "must be True, False, or the number of backward passes of a step"),
        ({"overlap": "yes"}, "must be True, False, or the number of backward passes of a step"),
        ({"overlap": 2, "capturable": True}, "must be False if the step may be captured"),
    ],
)
def test_what_cannot_overlap_is_refused(options: dict[str, Any], message: str) -> None:
    net = nn.Sequential(nn.Linear(3, 2, bias=False))
    group = {"params": net.named_parameters(), "manifold": mm.Euclidean(), "norm": mm.Spectral()}
    with pytest.raises(ArgumentError, match=message):
        mm.SteepestDescent([group], 0.1, **options)
