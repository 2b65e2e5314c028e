"""Inverses of stacks, which torch and MKL cannot compute in two threads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import modular_manifolds
from modular_manifolds.linalg.inverses import inverse


@pytest.mark.parametrize(
    "shape", [(5, 5), (3, 4, 4), (2, 3, 6, 6), (1, 7, 7), (0, 4, 4), (2, 0, 0)]
)
def test_inverses_are_those_of_single_matrices(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(shape, dtype=torch.float64) + 5 * torch.eye(shape[-1], dtype=torch.float64)
    expected, _ = torch.linalg.inv_ex(x)
    invert: Any = torch.linalg.inv_ex

    def invert_one(matrix: torch.Tensor) -> Any:
        # A stack of large matrices would not return if torch has two threads.
        assert matrix.dim() == 2
        return invert(matrix)

    monkeypatch.setattr(torch.linalg, "inv_ex", invert_one)
    found, info = inverse(x)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    assert info.shape == shape[:-2]
    assert not info.any()


def test_a_matrix_without_an_inverse_is_told() -> None:
    _, info = inverse(torch.stack((torch.eye(3), torch.zeros(3, 3))))
    assert info.tolist()[0] == 0
    assert info.tolist()[1] > 0


def test_nothing_else_decomposes_stacks_by_lu() -> None:
    package = Path(modular_manifolds.__file__).parent
    by_lu = re.compile(
        r"torch\.(linalg\.)?(inv|inv_ex|inverse|solve|solve_ex|lu|lu_factor|det|slogdet)\("
    )
    users = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if by_lu.search(path.read_text(encoding="utf-8"))
    ]
    assert users == ["linalg/inverses.py"]
