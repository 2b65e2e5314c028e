"""Sharded weights: those of one process in every layout, the same bits on every rank, and the bytes of the formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from long_tests import mostly_long
from ranks import folder_of_results, results
from sharded_cases import ALL, USUAL
from test_ddp import assert_same_bits, largest_difference
from torch import Tensor

CHECKS = "sharded_checks"
WORLDS = (2, 4)
CASE = ("world", "layout", "name")
EACH_CASE = pytest.mark.parametrize(CASE, mostly_long(ALL, usual=USUAL.__contains__, several=True))
OWN_MESH = [each for each in ALL if each[1] != "fsdp_tp"]
EACH_WORLD = pytest.mark.parametrize("world", mostly_long(WORLDS, usual=lambda world: world == 2))


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_results(request, tmp_path_factory)


def trained(folder: Path, world: int, name: str, layout: str) -> tuple[dict[str, Any], list[Any]]:
    (alone,) = results(folder, 1, "alone")
    return alone[name], [each[name, layout] for each in results(folder, world, "trained")]


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], name: str = "") -> None:
    difference = largest_difference(
        {n: each.double() for n, each in found.items()},
        {n: each.double() for n, each in expected.items()},
    )
    assert difference <= 1e-6, name


@pytest.mark.long
def test_shards_lie_where_torch_puts_them(folder: Path) -> None:
    for differing, count in results(folder, 4, "layouts"):
        assert not differing
        assert count > 60


@EACH_CASE
def test_weights_are_those_of_one_process_and_the_same_bits_on_every_rank(
    folder: Path, name: str, world: int, layout: str
) -> None:
    alone, ranks = trained(folder, world, name, layout)
    assert_same_bits([[*each["weights"].values(), *each["state"].values()] for each in ranks])
    difference = largest_difference(ranks[0]["weights"], alone["weights"])
    print(f"{name}, {layout}, {world} processes: {difference:.2g}")
    assert difference <= 1e-6
    assert largest_difference(alone["start"], alone["weights"]) > 1e-3


@EACH_CASE
def test_one_reduction_and_two_exchanges_send_the_bytes_of_the_placement(
    folder: Path, name: str, world: int, layout: str
) -> None:
    for each in trained(folder, world, name, layout)[1]:
        counts, placement = each["counts"], each["placement"]
        meshes = 2 if layout == "fsdp_tp" and name != "mlp" else 1
        assert counts.calls["allreduce_"] == 1
        assert counts.calls["alltoall_base_"] <= 2 * meshes
        assert counts.sent["allreduce_"] == placement.flag_bytes
        sent = placement.bytes_to_owners + placement.bytes_to_holders
        assert counts.sent["alltoall_base_"] == sent


@pytest.mark.parametrize(CASE, mostly_long(OWN_MESH, usual=USUAL.__contains__, several=True))
def test_the_bytes_of_all_processes_follow_the_formula(
    folder: Path, name: str, world: int, layout: str
) -> None:
    """Twice a matrix to its owner, less twice the owner's shard; and back every other shard."""
    alone, ranks = trained(folder, world, name, layout)
    total = 0
    for weight, owner in ranks[0]["placement"].owners.items():
        numbers, own = alone["weights"][weight].numel(), ranks[owner]["held"][weight]
        total += 2 * (numbers - own) + sum(each["held"][weight] for each in ranks) - own
    assert sum(each["counts"].sent["alltoall_base_"] for each in ranks) == 4 * total


@pytest.mark.parametrize(
    "name", mostly_long(["mlp", "gpt", "gpt2"], usual=lambda name: name != "gpt")
)
@EACH_WORLD
def test_fsdp_solves_each_matrix_once(folder: Path, name: str, world: int) -> None:
    alone, ranks = trained(folder, world, name, "fsdp")
    solves = [each["counts"].solves for each in ranks]
    assert sum(solves) == alone["counts"].solves
    assert max(solves) < alone["counts"].solves


@pytest.mark.parametrize(
    ("world", "check"),
    [
        *((2, check) for check in ("settings", "rows", "stacks")),
        *mostly_long([(2, "more_settings"), (4, "rows")], usual=lambda _: False, several=True),
    ],
)
def test_every_setting_and_unit_on_both_ways(folder: Path, world: int, check: str) -> None:
    """The fourth process holds no row."""
    (alone,), ranks = results(folder, 1, check), results(folder, world, check)
    for name, (weights, state, *_) in alone.items():
        assert_same_bits([[*each[name][0].values(), *each[name][1].values()] for each in ranks])
        assert_close(ranks[0][name][0], weights, name)
        # Duals that make the same direction may differ.
        state = {key: each for key, each in state.items() if "dual" not in key}
        if state:
            assert_close({key: ranks[0][name][1][key] for key in state}, state, name)


def test_a_unit_moves_if_any_of_its_shards_has_a_gradient(folder: Path) -> None:
    """The first weight rests, and the gradient of the last is zero in the first process."""
    for each in results(folder, 2, "settings"):
        for name, (_, _, moved) in each.items():
            assert moved == [name.startswith("decay"), True, True, True], name


def test_rows_stay_local_under_a_split_of_rows_only(folder: Path) -> None:
    (found, _) = results(folder, 2, "rows")
    ways = {name: each[2].split(": ")[1].startswith("1 ") for name, each in found.items()}
    assert {
        name.removesuffix(", host"): is_local for name, is_local in ways.items() if "host" in name
    } == {
        "RowRMS, 0": True,
        "RowRMS, 1": False,
        "Max, 0": True,
        "Max, 1": True,
    }
    (found, _) = results(folder, 2, "stacks")
    assert "1 parameters are stepped in their shards" in found["0, host"][2]
    assert "1 by owners" in found["1, host"][2]


@pytest.mark.parametrize("way", ["host", "device"])
def test_a_gradient_of_nan_in_one_shard_stops_all(folder: Path, way: str) -> None:
    ranks = results(folder, 2, "nonfinite")
    for rank, each in enumerate(ranks):
        message, rested, skipped, _ = each[f"{way}, raise"]
        assert message.startswith("the gradient of '2.weight' must be finite")
        if way == "host":
            assert ("on another process" in message) == (rank == 0)
        assert rested
        assert skipped == 0
        message, rested, skipped, _ = each[f"{way}, skip"]
        assert (message, rested, skipped) == ("no error", True, 1)
    for how in ("raise", "skip"):
        assert_same_bits([each[f"{way}, {how}"][-1].values() for each in ranks])


@pytest.mark.parametrize("way", ["host", "device"])
def test_a_gradient_that_one_process_lacks_stops_all(folder: Path, way: str) -> None:
    for each in results(folder, 2, "missing"):
        assert each[way].startswith("the gradient of '2.weight' must exist")
        assert each[f"{way} rests"]


@pytest.mark.parametrize("check", ["unused", "parallelized"])
def test_other_ways_to_gradients(folder: Path, check: str) -> None:
    (alone,), ranks = results(folder, 1, check), results(folder, 2, check)
    assert_same_bits([each.values() for each in ranks])
    assert_close(ranks[0], alone)


@EACH_WORLD
def test_methods_with_names_of_their_own(folder: Path, world: int) -> None:
    (alone,), ranks = results(folder, 1, "named"), results(folder, world, "named")
    for name, weights in alone.items():
        assert_close(ranks[0][name], weights, name)


def test_a_sharded_model_is_adapted_and_projected_but_not_measured(folder: Path) -> None:
    (alone,), ranks = results(folder, 1, "adapted"), results(folder, 2, "adapted")
    for start in ("keep", "project"):
        assert_close(ranks[0][start], alone[start], start)
        for each in ranks:
            message = each[f"{start}, measured"]
            assert message.startswith("measure(batch) needs whole weights")
            assert "Measure before sharding" in message


def test_a_state_resumes_bit_for_bit_and_whole_tensors_are_refused(folder: Path) -> None:
    for each in results(folder, 2, "resume"):
        for name in ("Stiefel", "SpectralSphere"):
            assert_same_bits(list(each[name]))
            assert "must hold momentum of '0.weight' as a DTensor (S(0))" in each[f"{name}, whole"]


def test_a_checkpoint_of_torch_resumes_bit_for_bit(folder: Path) -> None:
    for each in results(folder, 2, "saved"):
        assert_same_bits(list(each))
