"""The products that the computation of scale counts are those that the library's own plans multiply."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import torch
from fakes import Multiplications
from modular_manifolds_scale import MODELS, build_model
from modular_manifolds_scale.loads import placed, solved, solver_of
from modular_manifolds_scale.products import (
    Product,
    matrix_sign,
    newton_schulz,
    skew_polynomials,
    skew_sign,
)
from torch._subclasses import FakeTensorMode

import modular_manifolds as mm
from modular_manifolds.linalg import backend
from modular_manifolds.linalg import matrix_sign as matrix_sign_file
from modular_manifolds.linalg.polar_factor import polar_factor_within
from modular_manifolds.optim import products
from modular_manifolds.optim.placement import cost_of
from modular_manifolds.solvers import skew_sign as skew_sign_file
from modular_manifolds.solvers.plan import Plan
from modular_manifolds.solvers.resolvent_plan import ResolventPlan

BY_SOLVER = {"skew-sign": skew_sign, "norm-steepest": matrix_sign}


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plans as on a GPU with bfloat16; those of other machines are forgotten before and after."""
    monkeypatch.setattr(skew_sign_file, "half_is_fast", lambda _: True)
    plans = vars(skew_sign_file)["_plan"]
    plans.cache_clear()
    yield
    plans.cache_clear()


def counted(plan: Plan, shape: tuple[int, ...]) -> dict[torch.dtype, float]:
    """The multiplications of a solve on an accelerator and of a short retraction."""
    with FakeTensorMode(), torch.no_grad():
        point, gradient = (torch.empty(shape, device="cuda") for _ in range(2))
        landed = point.mT if shape[-2] < shape[-1] else point
        with Multiplications() as multiplications:
            plan.solve(point, gradient)
            polar_factor_within(landed, 0.01)
    return {dtype: float(value) for dtype, value in multiplications.found.items()}


def computed(listed: Sequence[Product], depth: int = 1) -> dict[torch.dtype, float]:
    found: Counter[torch.dtype] = Counter()
    for each in listed:
        dtype = getattr(torch, each.precision)
        found[dtype] += depth * each.multiplications  # pyright: ignore[reportArgumentType]
    return {dtype: float(value) for dtype, value in found.items()}


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize(
    "shape", [(768, 768), (3072, 768), (4096, 11008), (12, 64, 768), (900, 768), (1600, 768)]
)
def test_products_of_manifold_muon_are_those_of_its_plan(shape: tuple[int, ...]) -> None:
    solver = mm.solvers.SkewSign(backend="torch")
    plan = solver.plan(mm.Stiefel(), mm.Spectral(), shape, torch.float32, "cuda")
    *stack, m, n = shape
    formula = computed(skew_sign(max(m, n), min(m, n)), math.prod(stack))
    assert counted(plan, shape) == pytest.approx(formula, rel=1e-12)


def test_products_of_a_matrix_sign_are_those_of_msign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_sign_file, "half_is_fast", lambda _: True)
    monkeypatch.setattr(backend.kernels, "why_not", lambda _: "this test asks for torch")
    for shape in ((1024, 768), (3200, 4096)):
        with FakeTensorMode(), torch.no_grad(), Multiplications() as multiplications:
            mm.RMSOperator().steepest(torch.empty(shape, device="cuda"))
        assert dict(multiplications.found) == computed(matrix_sign(max(shape), min(shape)))


def test_products_of_muon_are_those_of_torch() -> None:
    for shape in ((64, 32), (32, 32), (32, 96)):
        with FakeTensorMode():
            weight = torch.nn.Parameter(torch.empty(shape))
            weight.grad = torch.empty(shape)
            muon = torch.optim.Muon([weight])
            with Multiplications() as multiplications:
                muon.step()
        assert dict(multiplications.found) == computed(newton_schulz(max(shape), min(shape)))


@pytest.mark.parametrize("name", MODELS)
def test_owners_are_dealt_out_by_the_counted_products(name: str) -> None:
    for each in solved(build_model(name).weights):
        solver, (*stack, a, b) = solver_of(each), each.shape
        counted = sum(computed(BY_SOLVER[solver](max(a, b), min(a, b)), math.prod(stack)).values())
        assert cost_of(each, "auto") == pytest.approx(counted, rel=0.15), (each.name, counted)


def test_a_tall_matrix_costs_seven_inverses_on_a_cpu() -> None:
    """The plan of a CPU has them from the same shapes on as the cost."""
    for m, n in ((768, 256), (257, 128), (256, 128), (1024, 127), (256, 256)):
        plan = mm.solvers.SkewSign().plan(mm.Stiefel(), mm.Spectral(), (m, n), torch.float32, "cpu")
        inverses = len(plan.function.poles) if isinstance(plan, ResolventPlan) else 0
        on_host, elsewhere = (products.skew_sign(m, n, device) for device in ("cpu", "cuda"))
        assert inverses == (products.INVERSES if 2 * on_host < elsewhere else 0), (m, n)


def test_the_numbers_of_polynomials_are_those_of_the_plans() -> None:
    assert skew_polynomials("bfloat16") == products.POLYNOMIALS
    assert skew_polynomials("float32") == products.FLOAT32_POLYNOMIALS


def test_owners_of_gpt2_small_on_8_ranks_have_even_loads() -> None:
    """The weights are those that `mm.adapt` finds: queries, keys and values are stacks of heads."""
    model = build_model("gpt2")
    placement = placed(model.weights, 8)
    print(f"imbalance {placement.imbalance:.4f}")
    assert len(placement.owners) == 6 * 12
    assert placement.imbalance <= 1.1


def test_models_have_their_sizes() -> None:
    found = {name: build_model(name).numbers for name in MODELS}
    assert found == {"gpt2": 124_439_808, "gpt2-xl": 1_557_611_200, "llama2-7b": 6_738_415_616}
    heads = [each for each in build_model("llama2-7b").weights if len(each.shape) == 3]
    assert {each.shape for each in heads} == {(32, 128, 4096)}
    whole = build_model("llama2-7b", whole=True).weights
    assert {each.shape for each in whole if "q_proj" in each.name} == {(4096, 4096)}
