"""The torch operators: schemas, fakes, batches, compilation and derivatives, on a machine without a GPU."""

from __future__ import annotations

import modular_manifolds_kernels as kernels
import pytest
import torch
from matrices import error, polar, well_conditioned
from modular_manifolds_kernels import POLAR_EXPRESS, launches, naive, operators
from modular_manifolds_kernels.derivative import polar_gradient
from modular_manifolds_kernels.machine import Machine
from torch import Tensor
from torch._subclasses import FakeTensorMode

FLAT = [value for polynomial in POLAR_EXPRESS for value in polynomial]
LONG = (*POLAR_EXPRESS, *POLAR_EXPRESS[-1:] * 3)
"""Converged in float64, so that differences see the derivative of the polar factor itself."""


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 4)], ids=str)
@pytest.mark.long
def test_msign_passes_torchs_own_check(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, requires_grad=True)
    torch.library.opcheck(operators.msign, (x, FLAT, "fp32"))
    torch.library.opcheck(operators.msign, (x.detach().mT, FLAT, "bf16", torch.ones(1, 1)))


def test_the_others_pass_it_too() -> None:
    w, a = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    torch.library.opcheck(operators.stiefel_retract, (w, a, 0.1, 1))
    torch.library.opcheck(operators.stiefel_retract, (w, a, 1.0, 1, torch.rand(2), False, False))
    for nesterov in (False, True):
        torch.library.opcheck(operators.pre_step_, (w, a, 0.9, nesterov))


@pytest.mark.parametrize("shape", [(6, 4), (2, 3, 5, 5), (0, 4, 3), (2, 0, 3)], ids=str)
def test_the_scale_is_the_length_that_was_divided_by(shape: tuple[int, ...]) -> None:
    """`‖X Xᵀ‖_F^{1/2}` in units of X, at least the largest singular value; without a derivative."""
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    result, scale = kernels.msign_and_scale(10 * x)
    torch.testing.assert_close(result, kernels.msign(x))
    assert not scale.requires_grad
    if x.numel():
        r = 100 * x.detach() @ x.detach().mT
        torch.testing.assert_close(scale, torch.linalg.matrix_norm(r).sqrt())
        assert bool((scale >= 10 * torch.linalg.matrix_norm(x.detach(), 2)).all())
        assert kernels.msign_and_scale(x.bfloat16())[1].dtype == torch.float32
    else:
        torch.testing.assert_close(scale, torch.zeros(shape[:-2], dtype=torch.float64))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (2, 3, 2)], ids=str)
def test_the_derivative_of_msign_is_that_of_differences(shape: tuple[int, ...]) -> None:
    x = well_conditioned(*shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: kernels.msign(y, coefficients=LONG), (x,))


def test_the_derivative_has_no_scale_and_no_nan() -> None:
    """At X/s it is s times as large; zero and rank-deficient matrices give finite numbers."""
    x, g = well_conditioned(6, 4), torch.randn(6, 4, dtype=torch.float64)
    wanted = polar_gradient(x, polar(x), g)
    for scale in (1e-30, 1e30):
        found = polar_gradient((x * scale).float(), polar(x).float(), g.float())
        assert error(found * scale, wanted) <= 1e-5
    zero = torch.zeros(6, 4)
    assert torch.equal(polar_gradient(zero, zero, torch.ones(6, 4)), zero)
    low = x.clone()
    low[:, 3] = low[:, 2]
    assert bool(polar_gradient(low, naive.msign(low, POLAR_EXPRESS), g).isfinite().all())


@pytest.mark.long
def test_compiled_without_a_graph_break() -> None:
    """Forward and backward, and the step with its retraction."""

    def step(w: Tensor, momentum: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        found = kernels.pre_step_(momentum, gradient, mu=0.9, nesterov=True)
        a = kernels.msign(found.direction, largest=found.largest)
        return kernels.stiefel_retract(w, a, eta=0.1)

    w = naive.msign(torch.randn(6, 4), LONG)
    momentum, gradient = torch.randn(6, 4), torch.randn(6, 4)
    wanted = step(w, momentum.clone(), gradient)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for found, plain in zip(compiled(w, momentum.clone(), gradient), wanted, strict=True):
        torch.testing.assert_close(found, plain)
    x = torch.randn(5, 3, requires_grad=True)
    torch.compile(lambda y: kernels.msign(y).sum(), fullgraph=True, backend="aot_eager")(
        x
    ).backward()
    assert x.grad is not None
    (wanted_gradient,) = torch.autograd.grad(kernels.msign(x).sum(), x)
    torch.testing.assert_close(x.grad, wanted_gradient)


def test_shapes_on_cuda_without_a_gpu() -> None:
    """Fakes on cuda have the shapes, dtypes and strides that the kernels give."""
    with FakeTensorMode():
        for shape in [(5, 3), (2, 3, 64, 768)]:
            x = torch.empty(shape, device="cuda", dtype=torch.bfloat16).mT
            y, scale = kernels.msign_and_scale(x)
            assert (scale.shape, scale.dtype) == (x.shape[:-2], torch.float32)
            assert (y.shape, y.dtype, y.device.type) == (x.shape, x.dtype, "cuda")
            assert y.is_contiguous()
            w, residual = kernels.stiefel_retract(x, x, eta=0.1)
            assert (w.shape, residual.shape) == (x.shape, x.shape[:-2])
            assert (w.dtype, residual.dtype) == (torch.bfloat16, torch.float32)
            rate = torch.empty((), device="cuda")
            w, residual = kernels.stiefel_retract(x, x, eta=rate, measured=False)
            assert (w.shape, residual.shape) == (x.shape, (0,))
            found = kernels.pre_step_(
                torch.empty(shape, device="cuda"), x.mT, mu=0.9, nesterov=True
            )
            assert found.direction.shape == shape
            assert found.largest.shape == (*shape[:-2], launches.parts_of_pre_step(*shape[-2:]))
            assert found.norm().shape == shape[:-2]
    assert kernels.msign(torch.empty(4, 7, 3, device="meta")).shape == (4, 7, 3)


def test_the_choice_is_compiled_for_cuda_without_a_gpu() -> None:
    """A graph traced for cuda holds the operator: `why_not` is read as a constant."""
    pytest.importorskip("triton")

    class Chosen(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return kernels.msign(x) if kernels.why_not(x) is None else x

    with FakeTensorMode():
        graph = torch.export.export(
            Chosen(), (torch.empty(6, 4, device="cuda"),), strict=True
        ).graph
    called = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert called[0] == "modular_manifolds_kernels.msign.default"
    assert all("getitem" in each for each in called[1:])


def test_fakes_agree_with_launches(machine: Machine) -> None:
    """The fake of the pre-step promises the parts that a launch returns."""
    x = torch.randn(2, 17, 300)
    largest, squares = launches.pre_step_(machine, x.clone(), x, None, 0.5)
    assert largest.shape == squares.shape == (2, launches.parts_of_pre_step(17, 300))


def test_a_batch_is_a_loop() -> None:
    """By a leading dimension and by vmap, whichever dimension that is over."""
    x = torch.randn(4, 5, 3)
    looped = torch.stack([kernels.msign(each) for each in x])
    torch.testing.assert_close(kernels.msign(x), looped)
    torch.testing.assert_close(torch.vmap(kernels.msign)(x), looped)
    torch.testing.assert_close(torch.vmap(kernels.msign, in_dims=2)(x.movedim(0, 2)), looped)
    for found in (kernels.msign_and_scale(x), torch.vmap(kernels.msign_and_scale)(x)):
        torch.testing.assert_close(found[0], looped)
        torch.testing.assert_close(found[1], naive.normalise(x)[1])
    w = naive.msign(x, LONG)

    def retract(w: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.stiefel_retract(w, a, eta=0.1)

    found = torch.vmap(retract, in_dims=(0, None))(w, w[0])
    wanted = kernels.stiefel_retract(w, w[0].expand_as(w), eta=0.1)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)

    def retract_by_length(w: Tensor, a: Tensor, length: Tensor) -> Tensor:
        return kernels.stiefel_retract(w, a, eta=length, unit=False, measured=False)[0]

    lengths = torch.rand(4)
    for dims, length in ((0, lengths), (None, lengths[0])):
        landed = torch.vmap(retract_by_length, in_dims=(0, 0, dims))(w, 0.1 * x, length)
        torch.testing.assert_close(landed, retract_by_length(w, 0.1 * x, length))


def test_the_norm_of_the_pre_step_is_safe() -> None:
    """`‖·‖_F` from parts neither overflows nor vanishes, and is zero for zero."""
    g = torch.randn(3, 5, 4)
    for scale in (1e-30, 1.0, 1e30):
        found = kernels.pre_step_(torch.zeros_like(g), g * scale, mu=0.0).norm()
        torch.testing.assert_close(found / scale, g.square().sum(dim=(-2, -1)).sqrt())
    assert torch.equal(
        kernels.pre_step_(torch.zeros(2, 2), torch.zeros(2, 2), mu=0.5).norm(), torch.tensor(0.0)
    )


def test_arguments_are_refused_in_words() -> None:
    x = torch.randn(3, 2)
    with pytest.raises(
        ValueError, match=r"must be real and floating-point .* Reshape or convert it"
    ):
        kernels.msign(torch.ones(3))
    with pytest.raises(ValueError, match="coefficients must hold at least one triple"):
        kernels.msign(x, coefficients=())
    with pytest.raises(ValueError, match="precision must be one of auto, bf16, fp32, got 'fp8'"):
        kernels.msign(x, precision="fp8")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="a must have the shape and device of w"):
        kernels.stiefel_retract(x, x.mT, eta=0.1)
    for eta in (torch.ones(2), torch.ones((), device="meta")):
        with pytest.raises(ValueError, match=r"eta must be a number or expand to \(\) on cpu"):
            kernels.stiefel_retract(x, x, eta=eta)
    with pytest.raises(ValueError, match="corrections must not be negative"):
        kernels.stiefel_retract(x, x, eta=0.1, corrections=-1)
    with pytest.raises(ValueError, match="gradient must have the shape and device of momentum"):
        kernels.pre_step_(x, x.mT, mu=0.9)
    with pytest.raises(ValueError, match=r"mu must lie in \[0, 1\)"):
        kernels.pre_step_(x, x, mu=1.0)
