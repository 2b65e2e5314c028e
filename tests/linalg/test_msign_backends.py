"""The matrix sign compiles without a break, and a backend asked for by name is used or refused."""

from __future__ import annotations

from functools import partial

import cases
import pytest
import torch
from long_tests import mostly_long

import modular_manifolds as mm
from modular_manifolds.errors import BackendError
from modular_manifolds.linalg import backend, matrix_sign

COMPILED = ("eager", "aot_eager")
"""Compilers that need no C++ compiler; the graph is the same for all of them."""


def test_a_backend_asked_for_by_name_is_used_or_refused() -> None:
    x = torch.randn(4, 3)
    assert torch.equal(mm.msign(x, backend="torch"), mm.msign(x, backend="auto"))
    reason = backend.why_not(x)
    assert reason == "the tensor is on cpu, and Triton kernels run on cuda devices only"
    with pytest.raises(BackendError, match=f"got 'triton'. Use 'auto': {reason}"):
        mm.msign(x, backend="triton")
    with pytest.raises(
        BackendError, match="backend must be one of auto, torch, triton, got 'cuda'"
    ):
        mm.msign(x, backend="cuda")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("compiler", mostly_long(COMPILED, usual=2))
@pytest.mark.parametrize(
    ("chosen", "shape"), [("auto", (6, 6)), ("torch", (9, 4)), ("auto", (2, 5, 7))], ids=cases.name
)
def test_compiled_without_a_graph_break(
    shape: tuple[int, ...], chosen: backend.Backend, compiler: str
) -> None:
    """The polynomials are those of eager code: others would be off by the accuracy, 1e-3.

    A compiler may change strides, and a BLAS then the order of sums; five steps magnify that by up to a thousand.
    """
    torch.compiler.reset()
    x = torch.randn(shape, dtype=torch.float64)
    compiled = torch.compile(partial(mm.msign, backend=chosen), fullgraph=True, backend=compiler)
    torch.testing.assert_close(compiled(x), mm.msign(x, backend=chosen), rtol=0, atol=1e-10)


@pytest.mark.long
@pytest.mark.parametrize("dynamic", [None, True])
def test_compiled_for_every_size_and_accuracy(dynamic: bool | None) -> None:
    """Sizes and accuracies that a compiler has made symbolic choose the polynomials all the same."""
    torch.compiler.reset()
    compiled = torch.compile(mm.msign, fullgraph=True, backend="eager", dynamic=dynamic)
    for shape in [(9, 4), (3, 7), (2, 9, 4), (3, 9, 4)]:
        x = torch.randn(shape)
        assert torch.equal(compiled(x), mm.msign(x))
    for accuracy in (0.1, 1e-5):
        assert torch.equal(compiled(x, accuracy=accuracy), mm.msign(x, accuracy=accuracy))


def test_compiled_in_bfloat16_where_that_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    monkeypatch.setattr(matrix_sign, "half_is_fast", lambda device_type: device_type == "cpu")
    x = torch.randn(256, 256)
    coarse = partial(mm.msign, accuracy=0.1, floor=0.01)
    compiled = torch.compile(coarse, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), coarse(x))
    assert float((torch.linalg.svdvals(compiled(x)) - 1).abs().max()) > 1e-3
