"""Tall matrices by rows: the weights of one process, the same bits of every sum, and no matrix of m×n on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from long_tests import mostly_long
from ranks import folder_of_results, results

CHECKS = "sharded_checks"
PAIRS = ["stiefel", "muon", "ball"]
ALL = [*PAIRS, "default", "bfloat16"]


def is_usual(name: str) -> bool:
    return name in {"stiefel", "bfloat16"}


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_results(request, tmp_path_factory)


def distance(found: Any) -> float:
    """The largest relative difference of a weight from that of one process."""
    pairs = [(each.double(), found["alone"][name].double()) for name, each in found["rows"].items()]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def trained(folder: Path, name: str) -> list[Any]:
    return [each[name] for each in results(folder, 2, "rows_trained")]


@pytest.mark.parametrize("name", mostly_long(PAIRS, usual=is_usual))
def test_weights_are_those_of_one_process(folder: Path, name: str) -> None:
    first, second = trained(folder, name)
    found = distance(first)
    print(f"{name}: {found:.2g}")
    assert found <= 1e-5
    for weight, each in first["rows"].items():
        assert torch.equal(each, second["rows"][weight])
    for entry, each in first["state"].items():
        assert torch.equal(each, second["state"][entry])


@pytest.mark.long
def test_at_the_default_tolerance_directions_differ_within_the_gap(folder: Path) -> None:
    """One process decomposes small matrices, and rows go by polynomials: both are certified to 1e-2."""
    found = trained(folder, "default")[0]
    print(f"default: {distance(found):.2g}")
    assert distance(found) <= 1e-3
    assert max(float(each) for each in found["gaps"].values()) <= 1e-2


def test_weights_in_bfloat16_have_master_copies_and_decay(folder: Path) -> None:
    found = trained(folder, "bfloat16")[0]
    assert any(entry.endswith("master") for entry in found["state"])
    assert distance(found) <= 2e-3


@pytest.mark.parametrize("name", mostly_long(ALL, usual=is_usual))
def test_sums_are_the_same_bits_on_every_process(folder: Path, name: str) -> None:
    first, second = trained(folder, name)
    assert first["digests"] == second["digests"]
    assert len(set(first["digests"])) > 20
    for weight, gap in first["gaps"].items():
        assert torch.equal(gap, second["gaps"][weight])


@pytest.mark.parametrize("name", mostly_long(ALL, usual=is_usual))
def test_bytes_are_those_of_the_formula_and_nothing_is_gathered(folder: Path, name: str) -> None:
    """Each matrix sends C with one number more, E as a triangle in float64, `XᵀX` as a triangle, and the scale."""
    triangle = {n: n * (n + 1) // 2 for n in (2, 5, 6, 8)}
    columns = (6, 6, 5, 8, 2)
    expected = {
        "stiefel": sum(4 * (n**2 + 1) + 8 * triangle[n] + 4 * triangle[n] + 8 for n in columns),
        "muon": sum(8 * triangle[n] + 8 for n in columns),
        "ball": sum(8 * triangle[n] + 4 * triangle[n] + 8 for n in columns),
    }
    expected |= {
        "default": expected["stiefel"],
        "bfloat16": expected["muon"],
    }
    for each in trained(folder, name):
        placement, counts = each["placement"], each["counts"]
        assert {way.way for way in placement.ways} == {"rows"}
        assert placement.row_bytes == expected[name]
        assert dict(counts.sent) == {"allreduce_": placement.row_bytes + placement.flag_bytes}
        # The flags; then a scale and three sums at most for each of four shapes.
        assert counts.calls["allreduce_"] <= 1 + 4 * 4


@pytest.mark.long
def test_a_process_may_have_no_rows(folder: Path) -> None:
    ranks = results(folder, 4, "rows_empty")
    assert distance(ranks[0]) <= 1e-5
    for each in ranks[1:]:
        assert each["digests"] == ranks[0]["digests"]
        assert all(torch.equal(each["rows"][name], x) for name, x in ranks[0]["rows"].items())


def test_the_way_of_an_accelerator_cancels_on_all(folder: Path) -> None:
    for found in results(folder, 2, "rows_without_host_reads"):
        assert torch.equal(found["before"]["twin"], found["start"])
        for name, each in found["before"].items():
            assert torch.equal(each, found["after"][name])
            assert bool(each.isfinite().all())
        before, after = found["state"]
        assert all(torch.equal(each, after[entry]) for entry, each in before.items())
        assert found["error"] == "the gradient of 'wide'"


def test_the_way_is_chosen_by_name_or_by_cost(folder: Path) -> None:
    for ways, errors in results(folder, 2, "rows_choice"):
        assert set(ways["rows"].values()) == {"rows"}
        assert set(ways["gather"].values()) == {"owner"}
        assert ways["auto"]["square"] == "owner"
        (way,) = ways["very tall"].ways
        assert way.way == "rows"
        assert way.comparison.prefers_rows
        assert "1 by rows" in ways["printed"]
        assert ways["later"] == "owner"
        assert "must be 'auto', 'rows' or 'gather'" in errors[0]
        assert "for weights that are not sharded" in errors[1]
        assert "if no weight can be stepped by rows" in errors[2]
