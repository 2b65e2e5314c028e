"""The matrix sign reaches the accuracy it states, for every input a gradient can be."""

from __future__ import annotations

import math

import cases
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from spectra import orthonormal, with_values
from torch import Tensor
from torch._subclasses import FakeTensorMode

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, NonFiniteError, ShapeError
from modular_manifolds.linalg import matrix_sign


def exact(x: Tensor) -> Tensor:
    u, _, vh = torch.linalg.svd(x.double(), full_matrices=False)
    return (u @ vh).to(x.dtype)


@pytest.mark.parametrize("accuracy", [0.3, 1e-2, 1e-3, 1e-5, 1e-9, 1e-13])
@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6), (1, 4), (4, 1), (1, 1)], ids=cases.name)
def test_every_accuracy_is_reached(shape: tuple[int, int], accuracy: float) -> None:
    values = torch.logspace(0, -2.9, min(shape), dtype=torch.float64)
    x = with_values(values, max(shape))
    x = x if shape[0] >= shape[1] else x.mT
    result = mm.msign(x, accuracy=accuracy)
    # Rounding grows with the condition number, here 800.
    torch.testing.assert_close(result, exact(x), atol=accuracy + 1e-12, rtol=0)


@given(
    exponents=st.lists(st.floats(-3, 0), min_size=1, max_size=5),
    extra=st.integers(0, 3),
    accuracy=st.sampled_from([1e-2, 1e-3, 1e-6]),
)
def test_the_promise_holds_down_to_the_floor(
    exponents: list[float], extra: int, accuracy: float
) -> None:
    """Singular values of at least a thousandth of the largest are brought to one within the accuracy."""
    values = 10.0 ** torch.tensor([0.0, *exponents], dtype=torch.float64)
    reached = torch.linalg.svdvals(
        mm.msign(with_values(values, len(values) + extra), accuracy=accuracy)
    )
    assert float((reached - 1).abs().max()) <= accuracy * (1 + 1e-9)


@given(exponents=st.lists(st.floats(-30, 0), min_size=1, max_size=5))
def test_smaller_ones_stay_between_zero_and_one(exponents: list[float]) -> None:
    values = 10.0 ** torch.tensor([0.0, *exponents], dtype=torch.float64)
    reached = torch.linalg.svdvals(mm.msign(with_values(values, len(values) + 1)))
    assert float(reached.max()) <= 1 + 1e-3
    assert float(reached[0]) >= 1 - 1e-3


def test_a_lower_floor_reaches_smaller_ones() -> None:
    x = with_values(torch.tensor([1.0, 1e-6]), 4)
    assert float(torch.linalg.svdvals(mm.msign(x))[-1]) < 0.9
    assert float(torch.linalg.svdvals(mm.msign(x, floor=1e-6))[-1]) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=cases.name)
@pytest.mark.parametrize("accuracy", [1e-3, "exact"])
def test_dtype_is_kept_and_computed_in_at_least_float32(
    dtype: torch.dtype, accuracy: float
) -> None:
    x = torch.randn(8, 4).to(dtype)
    result = mm.msign(x, accuracy=accuracy)
    assert result.dtype == dtype
    wide = mm.msign(x.to(torch.promote_types(dtype, torch.float32)), accuracy=accuracy)
    assert torch.equal(result, wide.to(dtype))


@pytest.mark.parametrize("accuracy", [1e-4, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("condition", [6.0, 1000.0])
@pytest.mark.parametrize("shape", [(64, 32), (256, 128), (128, 128), (40, 300)], ids=cases.name)
def test_float32_reaches_the_accuracy_it_is_asked_for(
    shape: tuple[int, int], condition: float, accuracy: float
) -> None:
    """Singular values within the accuracy and the rounding of the result; below 1e-5 vectors too."""
    n = min(shape)
    x = with_values(torch.logspace(0, -math.log10(condition), n), max(shape))
    x = (x if shape[0] >= shape[1] else x.mT).float()
    found = mm.msign(x, accuracy=accuracy).double()
    # ‖E‖₂ ≤ ‖E‖_F ≤ ε/2 ‖A‖_F for the rounding E of the entries of A.
    rounding = torch.finfo(torch.float32).eps / 2 * n**0.5
    assert float((torch.linalg.svdvals(found) - 1).abs().max()) <= accuracy + rounding
    if accuracy < 1e-5:
        off = torch.linalg.vector_norm(found - exact(x.double())) / n**0.5
        assert float(off) <= accuracy + rounding


@pytest.mark.parametrize("accuracy", [1e-3, "exact"])
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-8, 1e8, 1e30, 1e37])
def test_the_size_of_the_input_does_not_matter(scale: float, accuracy: float) -> None:
    x = torch.randn(7, 4)
    expected = mm.msign(x.double(), accuracy=accuracy).float()
    atol = 1e-5 if scale > 1e-37 else 1e-3  # 1e-38 is beyond float32's normal numbers
    torch.testing.assert_close(mm.msign(scale * x, accuracy=accuracy), expected, atol=atol, rtol=0)


@pytest.mark.parametrize("accuracy", [1e-3, "exact"])
def test_zero_gives_zero(accuracy: float) -> None:
    x = torch.zeros(2, 4, 3)
    x[1] = torch.randn(4, 3)
    result = mm.msign(x, accuracy=accuracy)
    assert torch.equal(result[0], torch.zeros(4, 3))
    # Beside another matrix sums may come in another order; the steps magnify that by up to a thousand.
    alone = mm.msign(x[1], accuracy=accuracy)
    torch.testing.assert_close(result[1], alone, rtol=0, atol=1e3 * torch.finfo(x.dtype).eps)


@pytest.mark.parametrize("accuracy", [1e-3, "exact"])
def test_finite_input_never_gives_nan(accuracy: float) -> None:
    largest = torch.finfo(torch.float32).max
    for x in (
        torch.full((4, 3), largest),
        torch.full((4, 3), 1e-45),
        torch.eye(5),
        torch.ones(5, 4),
        torch.diag(torch.tensor([largest, 1.0, 1e-45])),
    ):
        result = mm.msign(x, accuracy=accuracy)
        assert bool(torch.isfinite(result).all())
        assert float(torch.linalg.matrix_norm(result, 2)) <= 1 + 2e-3


@pytest.mark.parametrize("accuracy", [1e-3, "exact"])
def test_stacks_transposes_and_vectors(accuracy: float) -> None:
    x = torch.randn(2, 3, 7, 4, dtype=torch.float64)
    x[1, 2] *= 1e6
    result = mm.msign(x, accuracy=accuracy)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(result[i, j], mm.msign(x[i, j], accuracy=accuracy))
    torch.testing.assert_close(mm.msign(x.mT, accuracy=accuracy), result.mT)
    vector = torch.randn(5, dtype=torch.float64)
    expected = vector / vector.norm()
    torch.testing.assert_close(mm.msign(vector, accuracy=accuracy), expected, atol=1e-3, rtol=0)


def test_it_commutes_with_rotations() -> None:
    x = torch.randn(6, 4, dtype=torch.float64)
    left, right = orthonormal(6, 6), orthonormal(4, 4)
    torch.testing.assert_close(mm.msign(left @ x @ right), left @ mm.msign(x) @ right)


def test_the_argument_is_not_written_into() -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = torch.randn(5, 4).to(dtype)
        before = x.clone()
        for accuracy in (1e-3, "exact"):
            result = mm.msign(x, accuracy=accuracy)
            result.zero_()
            assert torch.equal(x, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite(bad: float) -> None:
    x = torch.randn(4, 3)
    x[0, 0] = bad
    with pytest.raises(NonFiniteError, match=r"msign\(x\) must be finite, got NaN or infinity"):
        mm.msign(x, accuracy="exact")
    assert bool(mm.msign(x).isnan().any())


@pytest.mark.parametrize("accuracy", [0.0, -1e-3, 1.0, math.nan, 1e-16, 1, "best", None])
def test_bad_accuracies_are_refused(accuracy: float) -> None:
    with pytest.raises(
        ArgumentError, match=r"accuracy must be 'exact' or lie in \[1e-15, 1\), got"
    ):
        mm.msign(torch.ones(2, 2), accuracy=accuracy)


@pytest.mark.parametrize("floor", [0.0, -1.0, 1e-9, 1.1, math.nan, None])
def test_bad_floors_are_refused(floor: float) -> None:
    with pytest.raises(ArgumentError, match=r"floor must lie in \[1e-8, 1\], got"):
        mm.msign(torch.ones(2, 2), floor=floor)


def test_bad_tensors_are_refused() -> None:
    with pytest.raises(ShapeError, match="without empty dimensions, got"):
        mm.msign(torch.zeros(0, 3))
    with pytest.raises(
        ArgumentError, match=r"must be a real floating-point tensor, got torch\.complex64"
    ):
        mm.msign(torch.ones(2, 2, dtype=torch.complex64))


@pytest.mark.parametrize("power", [0.5, 0.7])
@pytest.mark.parametrize("rows", [256, 512])
def test_bfloat16_keeps_singular_values_in_range(
    rows: int, power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spectra of gradients: of several steps on one Gram matrix in bfloat16 the largest came out at 1.1 to 17."""
    monkeypatch.setattr(matrix_sign, "half_is_fast", lambda device_type: device_type == "cpu")
    x = with_values(torch.arange(1, 257, dtype=torch.float64) ** -power, rows).float()
    found = torch.linalg.svdvals(mm.msign(x, accuracy=0.1, floor=0.01).double())
    assert float(found[0]) <= 1.05
    assert float((found - 1).abs()[0]) > 1e-4
    # A floor that bfloat16 is too coarse for is reached in float32.
    fine = torch.linalg.svdvals(mm.msign(x, accuracy=0.1, floor=1e-3).double())
    assert float(fine[0]) <= 1.05 + 1e-5
    assert torch.equal(mm.msign(x, accuracy=0.1, floor=1e-3), msign_in_float32(x))


def msign_in_float32(x: Tensor) -> Tensor:
    """The matrix sign of a machine without bfloat16, with an accuracy of 0.1 and a floor of 1e-3."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix_sign, "half_is_fast", lambda _: False)
        return mm.msign(x, accuracy=0.1, floor=1e-3)


def test_its_derivative_is_that_of_differences() -> None:
    x = with_values(torch.tensor([1.0, 0.7, 0.4]), 5).requires_grad_()
    assert torch.autograd.gradcheck(mm.msign, (x,))


@pytest.mark.long
def test_its_derivative_is_the_same_if_compiled() -> None:
    torch.compiler.reset()
    x = with_values(torch.tensor([1.0, 0.7, 0.4]), 5).requires_grad_()
    (expected,) = torch.autograd.grad(mm.msign(x).square()[0, 0], x)
    compiled = torch.compile(mm.msign, fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(x).square()[0, 0], x)
    torch.testing.assert_close(found, expected)


def test_shapes_are_known_without_storage() -> None:
    """For fakes on cuda, whether or not a kernel would run, and on meta."""
    for shape in [(6, 6), (9, 4), (2, 3, 64, 768), (5,)]:
        for dtype in (torch.float32, torch.bfloat16, torch.float64):
            with FakeTensorMode():
                x = torch.empty(shape, device="cuda", dtype=dtype)
                for name in ("auto", "torch"):
                    found = mm.msign(x, backend=name)
                    assert (found.shape, found.dtype, found.device) == (x.shape, dtype, x.device)
            found = mm.msign(torch.empty(shape, device="meta", dtype=dtype))
            assert (found.shape, found.dtype, found.device.type) == (shape, dtype, "meta")
