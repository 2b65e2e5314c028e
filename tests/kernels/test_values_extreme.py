"""Sizes of entries, zeros, NaN, small singular values, the same bits twice, and how many launches it takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from kernel_cases import msign, stiefel_retract
from long_tests import mostly_long
from matrices import BFLOAT16, FLOAT32, error, polar, well_conditioned
from modular_manifolds_kernels import POLAR_EXPRESS, launches, naive
from modular_manifolds_kernels.coefficients import Polynomial
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.matrix_sign import msign_and_scale
from modular_manifolds_kernels.shipped import TARGETS, Precision
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.linalg import backend

ROUTES: list[tuple[tuple[int, int], Precision]] = [
    ((20, 17), "fp32"), ((17, 90), "fp32"), ((40, 90), "fp32"), ((65, 66), "fp32"), ((65, 100), "fp32"),
    ((20, 17), "bf16"), ((17, 150), "bf16"), ((130, 132), "bf16"), ((200, 130), "bf16"),
]  # fmt: skip
"""Each of the ways a matrix sign is computed: one launch resident, in strips, in tiles; standard form, Gram form."""


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize(
    ("shape", "precision"),
    mostly_long(ROUTES, usual=lambda route: max(route[0]) <= 90, several=True),
    ids=str,
)
def test_size_and_neighbours_do_not_matter(
    machine: Machine, shape: tuple[int, int], precision: Precision
) -> None:
    """The same bits again, and beside others in a stack; a power of two changes no bit, 1e-30 and 1e+30 little.

    Zero gives zero and NaN gives NaN, each in its own matrix only: no sum depends on what runs beside it. The scale
    follows the size of the entries.
    """
    x = well_conditioned(*shape).float()
    broken = x.clone()
    broken[3, 5] = torch.nan
    others = {"nan": broken, "power": x * 2.0**100}
    if max(shape) <= 128:
        others |= {
            "same": x, "smaller": x * 2.0**-100, "large": x * 1e30, "small": x * 1e-30, "zero": torch.zeros_like(x)
        }  # fmt: skip
    # In float32 two steps on one Gram matrix of a long X, and both of the other forms.
    steps = POLAR_EXPRESS[:2]
    plain, scale = msign_and_scale(machine, x, steps, precision)
    results, scales = msign_and_scale(machine, torch.stack([*others.values()]), steps, precision)
    found = dict(zip(others, results, strict=True))
    times = {"power": 2.0**100, "same": 1.0, "smaller": 2.0**-100, "large": 1e30, "small": 1e-30}
    for each, length in zip(others, scales, strict=True):
        wanted = torch.nan if each == "nan" else 0.0 if each == "zero" else times[each] * scale
        torch.testing.assert_close(length, torch.as_tensor(wanted), equal_nan=True)
    bar = FLOAT32 if precision == "fp32" else 2 * BFLOAT16
    for each in found.keys() & {"same", "power", "smaller"}:
        assert torch.equal(found[each], plain), each
    for each in found.keys() & {"large", "small"}:
        assert error(found[each], plain) <= bar, each
    assert bool(found["nan"].isnan().any())
    if "zero" in found:
        assert torch.equal(found["zero"], torch.zeros_like(x))


@pytest.mark.parametrize(
    ("shape", "precision"), [each for each in ROUTES if min(each[0]) <= 128], ids=str
)
def test_small_singular_values_do_no_harm(
    machine: Machine, shape: tuple[int, int], precision: Precision
) -> None:
    """Down to 1e-3 of the largest: products in half precision leave them between 0 and hardly over 1.

    Larger matrices of this kind are in `test_coefficients.py`, and steeper ones in `test_steep_spectra.py`.
    """
    x = well_conditioned(*shape, lowest=1e-3).float()
    found = msign(machine, x, POLAR_EXPRESS, precision)
    values = torch.linalg.svdvals(found.double())
    assert float((values - 1).abs().max()) <= (1e-3 if precision == "fp32" else BFLOAT16)
    # Rounding grows with the condition number.
    assert precision == "bf16" or error(found, polar(x)) <= 1e-3


@pytest.mark.long
def test_launches_of_small_batches(machine: Machine, launched: list[str]) -> None:
    """One for a matrix sign of a stack of heads, one for a retraction with correction and residual, one for
    the pre-step; and none for a norm when the pre-step has found it."""
    heads = well_conditioned(6, 16, 130).float()
    msign(machine, heads, POLAR_EXPRESS, "bf16")
    assert launched == ["narrow_msign"]
    launched.clear()
    msign(machine, heads[..., :16], POLAR_EXPRESS, "fp32")
    assert launched == ["small_msign"]
    launched.clear()
    w = polar(heads).float()
    _, residual = stiefel_retract(machine, w, w, 0.0, 1)
    assert launched == ["stiefel_retract"]
    assert residual.shape == (6,)
    launched.clear()
    larger = polar(torch.randn(2, 80, 66)).float()
    msign(machine, larger, POLAR_EXPRESS[:1], "fp32")
    # In half precision too: the rounding is the last of what it does.
    msign(machine, larger.half(), POLAR_EXPRESS[:1], "fp32")
    assert launched == ["tiled_msign", "tiled_msign"]
    launched.clear()
    _, residual = stiefel_retract(machine, larger, larger, 0.0, 1)
    assert launched == ["tiled_retract"]
    assert residual.shape == (2,)
    launched.clear()
    x = well_conditioned(129, 130).float()
    largest, _ = launches.pre_step_(machine, x[None].clone(), x[None], None, 0.9)
    assert launched == ["pre_step"]
    launched.clear()
    msign(machine, x, POLAR_EXPRESS[:2], "fp32", largest)
    assert Counter(launched) == {"gram": 2, "polynomial": 2, "apply": 2}


@pytest.mark.long
def test_launches_of_large_matrices(machine: Machine, launched: list[str]) -> None:
    """Three a step in standard form; in Gram form, in float32 alone, X is touched twice in four steps."""
    x = well_conditioned(129, 130).float()
    found = msign(machine, x, POLAR_EXPRESS[:3], "fp32")
    assert Counter(launched) == {"pre_step": 1, "gram": 3, "polynomial": 3, "apply": 3}
    assert error(found, naive.msign(x.double(), POLAR_EXPRESS[:3])) <= FLOAT32
    launched.clear()
    x = well_conditioned(129, 200, lowest=1e-3).float()
    found = msign(machine, x, POLAR_EXPRESS[:5], "fp32")
    # Four steps on one Gram matrix: each but the first multiplies Q, each but the last renews R by two.
    assert Counter(launched) == {"pre_step": 1, "gram": 2, "polynomial": 5 + 3 + 6, "apply": 2}
    # Rounding grows with the condition number.
    assert error(found, naive.msign(x.double(), POLAR_EXPRESS[:5])) <= 1e-3


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.long
def test_every_target_computes_the_same(target: str, machine: Machine) -> None:
    """Each column of the table holds what its launches need."""
    there = Machine(target, machine.kernels)
    for shape, precision in ROUTES[:3]:
        x = well_conditioned(*shape).float()
        assert error(msign(there, x, POLAR_EXPRESS, precision), polar(x)) <= FLOAT32
    x = well_conditioned(65, 66).float()
    assert (
        error(
            msign(there, x, POLAR_EXPRESS[:1], "bf16"), msign(machine, x, POLAR_EXPRESS[:1], "fp32")
        )
        <= BFLOAT16
    )
    w = polar(torch.randn(5, 9))
    assert float(stiefel_retract(there, w.float(), w.float(), 0.0, 1)[1]) <= 1e-6


@pytest.mark.parametrize("accuracy", mostly_long([0.02, 1e-3, 1e-5], usual=3))
@pytest.mark.parametrize("shape", [(30, 40), (17, 150), (66, 65)], ids=str)
def test_the_librarys_promise_holds_by_kernels(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], accuracy: float
) -> None:
    """`mm.msign` brings singular values of a thousandth of the largest within its accuracy of one."""

    def by_interpreter(
        x: Tensor, *, coefficients: Sequence[Polynomial], precision: Precision
    ) -> Tensor:
        asked.append(precision)
        return msign(machine, x, coefficients, precision)

    asked: list[Precision] = []
    monkeypatch.setattr(backend.kernels, "msign", by_interpreter)
    monkeypatch.setattr(backend.kernels, "why_not", lambda _: None)
    x = well_conditioned(*shape, lowest=1e-3).float()
    values = torch.linalg.svdvals(mm.msign(x, accuracy=accuracy, backend="triton").double())
    assert asked == ["fp32"]
    assert float((values - 1).abs().max()) <= accuracy


def test_strides_beyond_32_bits_are_copied_or_refused() -> None:
    """Offsets inside a tile are 32 bits, so a matrix whose rows lie too far apart is brought together."""
    for stride, kept in ((715_827_882, (3, 1)), (715_827_881, (715_827_881, 1))):
        x = torch.empty_strided((4, 3), (stride, 1), device="meta")
        assert launches.stack(x).stride()[1:] == kept
    for shape in [(1, 1 << 32), (1 << 32, 300), (100_000, 300, 300)]:
        x = torch.empty(shape, device="meta")
        assert launches.stack(x).stride()[1:] == x.stride()[-2:]
    x = torch.empty(300, 1 << 24, device="meta")
    with pytest.raises(ValueError, match=r"fewer than 2³¹ entries .* got a 300×16,777,216 matrix"):
        launches.stack(x)
    # What is written to is not copied.
    with pytest.raises(ValueError, match=r"with strides \(1, 1073741824\)"):
        launches.addressable(torch.empty_strided((1, 4, 4), (16, 1, 1 << 30), device="meta"))
