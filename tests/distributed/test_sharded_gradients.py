"""Gradients that are placed in another way than their parameters, and torch's own tensor parallelism."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import folder_of_results, results
from test_ddp import assert_same_bits, largest_difference

CHECKS = "sharded_checks"
WAYS = ("host", "device")


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_results(request, tmp_path_factory)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_are_brought_to_the_placements_of_their_parameters(
    folder: Path, way: str
) -> None:
    """Sums of shares, averages, replicas and other shards."""
    (alone,), ranks = results(folder, 1, "placed"), results(folder, 2, "placed")
    assert_same_bits([each[way].values() for each in ranks])
    assert largest_difference(ranks[0][way], alone[way]) <= 1e-6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ["NaN", "infinity"])
def test_a_share_that_is_not_finite_stops_all(folder: Path, way: str, case: str) -> None:
    for each in results(folder, 2, "placed_nonfinite"):
        assert each[f"{way}, {case}"].startswith("the gradient of '0.weight' must be finite")
        assert each[f"{way}, {case}, rested"]


def test_norms_under_sequence_parallelism(folder: Path) -> None:
    ((alone, _),) = results(folder, 1, "sequence_parallel")
    ranks = results(folder, 2, "sequence_parallel")
    assert all(is_partial for _, is_partial in ranks)
    assert_same_bits([weights.values() for weights, _ in ranks])
    assert largest_difference(ranks[0][0], alone) <= 1e-6


@pytest.mark.long
def test_an_adapted_transformer_under_the_tensor_parallelism_of_torch(folder: Path) -> None:
    ((start, alone, _),), ranks = results(folder, 1, "llama"), results(folder, 2, "llama")
    assert_same_bits([weights.values() for _, weights, _ in ranks])
    assert largest_difference(ranks[0][1], alone) <= 1e-6
    assert largest_difference(start, alone) > 1e-3
    assert ranks[0][2].startswith("sharded over 2 processes")


@pytest.mark.long
def test_a_compiled_step_of_sharded_weights_has_the_bits_of_one_that_is_not(folder: Path) -> None:
    for plain, compiled in results(folder, 2, "compiled"):
        assert_same_bits([plain, compiled])
