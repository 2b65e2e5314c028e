"""Mistakes that were seen in code of this kind: each is a test whose name says the mistake.

Most are laws that stand elsewhere; MISTAKES says where. Those below had no test of their own.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from pathlib import Path

import cases
import pytest
import torch
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.nn.bonds import GELU_SLOPE
from modular_manifolds.solvers import TABLE, Solver
from modular_manifolds.solvers.solution import Solution

HERE = Path(__file__).parent
SOURCE = HERE.parent / "modular_manifolds"

MISTAKES: dict[str, tuple[str, ...]] = {
    "a dual step of fixed size: the result depends on the scale of the gradient": (
        "test_solvers.py::test_dual_ascent_depends_on_the_size_of_the_gradient",
        "test_solvers.py::test_law",
    ),
    "a tolerance that is never reached, and nobody is told": (
        "test_peers.py::test_a_tolerance_that_is_never_reached",
        "test_solvers.py::test_dual_ascent_stops_by_its_own_rule",
        "test_solvers.py::test_what_did_not_converge_says_so_and_what_to_try",
    ),
    "a retraction by a rough msign leaves the weight off its manifold": (
        "test_peers.py::test_a_rough_msign_leaves_the_weight_off_its_manifold",
        "test_steepest_descent.py::test_a_thousand_steps_do_not_drift",
    ),
    "a signed sensitivity: a negative factor flips every update below it": (
        "test_peers.py::test_a_negative_factor_flips_the_updates_below_it",
        "test_composition.py::test_scaling_up_scales_shares_down",
        "test_composition.py::test_a_bond_has_no_mass_and_a_slope_no_sign",
    ),
    "GELU divided by slightly too little": (
        "test_nn.py::test_gelu_is_divided_by_enough",
        "test_module_laws.py::test_a_gelu_divided_by_slightly_too_little_is_refuted",
    ),
    "GELU's slope divided out twice": (
        "test_peers.py::test_the_slope_of_gelu_is_divided_out_twice",
    ),
    "a constant that is declared and wrong": (
        "test_nn.py::test_declared_numbers_that_are_wrong_are_refuted",
        "test_module_laws.py::test_nine_tenths_of_a_sensitivity_are_refuted",
        "test_module_laws.py::test_every_exported_atom_and_bond_has_a_row",
    ),
    "a power iteration where an upper bound is needed": (
        "test_peers.py::test_a_power_iteration_stands_where_an_upper_bound_is_claimed",
        "test_certificates.py::test_certified_is_rounded_up",
        "test_certificates.py::test_no_pair_of_inputs_beats_the_certified_bound",
        "test_local_lipschitz.py::test_multipliers_that_are_wrong_prove_nothing_false",
    ),
    "a bound of one that is above by 2e-7, from rounding alone": (
        "test_peers.py::test_a_bound_of_one_is_exceeded_by_rounding_alone",
        "test_bounds_hold.py::test_no_pair_beats_the_certified_bound",
    ),
    "singular values that reach 1.2 to 1.5 in training": (
        "test_trained_bounds.py::test_the_bound_of_a_trained_network_is_one_and_within_twice_of_what_is_found",
        "test_steepest_descent.py::test_descends_and_stays_on_the_manifold",
        "test_certificates.py::test_weights_off_their_manifold_are_seen",
    ),
    "a metric that asks for a GPU": ("test_peers.py::test_a_call_that_needs_a_gpu",),
    "mass copied into parents, which go stale": ("test_nn.py::test_the_tree_follows_the_modules",),
    "a module used twice and rescaled twice": (
        "test_nn.py::test_a_weight_at_two_places_is_refused_with_both_named",
        "test_nn.py::test_the_same_bond_may_stand_at_many_places",
    ),
    "what transfer needs is lost by copying, saving or compiling": (
        "test_peers.py::test_geometry_and_mass_are_lost_by_saving",
        "test_nn.py::test_copies_are_independent",
        "test_steepest_descent.py::test_compiled_networks_train_alike",
        "test_steepest_descent.py::test_a_copied_optimiser_steps_alike",
    ),
    "an option set where it is never looked up, on an instance's __call__": (
        "test_peers.py::test_a_method_is_set_on_an_instance_where_calls_never_look",
    ),
    "gradients modified in place": (
        "test_steepest_descent.py::test_gradients_are_not_written_into",
        "test_solvers.py::test_law",
    ),
    "weight decay without effect on a compact manifold": (
        "test_steepest_descent.py::test_weight_decay_is_refused_where_it_does_nothing",
    ),
    "a function or a buffer in param_groups: the state cannot be saved": (
        "test_steepest_descent.py::test_state_holds_tensors_and_json_values_only",
    ),
    "a fixed epsilon under which small gradients degenerate": (
        "test_msign.py::test_the_size_of_the_input_does_not_matter",
        "test_steepest_descent.py::test_the_size_of_the_gradient_does_not_matter",
    ),
    "a Riemannian direction that is not tangent": (
        "test_solvers.py::test_law",
        "test_solvers.py::test_the_laws_find_faults",
    ),
    "a norm without keepdim divides a batch by the wrong numbers": (
        "test_steepest_descent.py::test_one_batch_equals_one_by_one",
        "test_norms.py::test_law",
        "test_manifolds.py::test_law",
        "test_solvers.py::test_law",
    ),
    "parameters sorted into groups by hand, wrongly": (
        "test_steepest_descent.py::test_groups_are_the_budget",
        "test_steepest_descent.py::test_a_parameter_without_a_manifold_is_refused",
        "test_steepest_descent.py::test_a_parameter_group_from_outside_is_refused",
    ),
    "a conversion that shares its storage, then divided in place": (
        "test_peers.py::test_a_conversion_that_shares_its_storage_is_written_into",
        "test_peers.py::test_the_momentum_is_what_the_solver_divided",
        "test_msign.py::test_the_argument_is_not_written_into",
    ),
    "a checkpoint that no longer resumes after an argument was renamed": (
        "test_peers.py::test_an_argument_was_renamed_and_a_checkpoint_no_longer_resumes",
    ),
    "an option that silently runs another algorithm for a matrix that is not square": (
        "test_peers.py::test_another_algorithm_runs_where_the_matrix_is_not_square",
        "test_msign.py::test_a_backend_asked_for_by_name_is_used_or_refused",
    ),
    "normalisation layers declared with constant 1, whose slope at zero is 1/√ε": (
        "test_bonds.py::test_the_constant_of_rms_norm_is_attained_at_zero_and_its_outputs_are_bounded",
        "test_bonds.py::test_constants_that_are_too_small_are_refuted",
    ),
    "attention constants without a proof": (
        "test_attention.py::test_the_laws_hold",
        "test_attention.py::test_no_constant_of_attention_could_be_smaller",
        "test_attention.py::test_without_a_radius_attention_has_no_bound_and_is_named",
    ),
    "a grouped convolution's norm as the product over its groups, where it is the maximum": (
        "test_conv.py::test_a_grouped_convolution_takes_the_largest_of_its_groups",
    ),
    "stacked convolution weights flattened along the wrong axis": (
        "test_conv.py::test_the_weight_of_a_convolution_is_orthogonal_the_right_way",
        "test_conv.py::test_training_keeps_every_matrix_of_a_stack_on_its_manifold",
    ),
}
"""Each mistake with the tests that would find it here."""

NOT_HERE_YET = (
    "what transfer needs, lost by sharding a network over devices",
    "distributed checkpoints whose optimiser state differs across ranks",
    "a batch offset beyond 32 bits in a kernel",
    "a tuned kernel configuration that gives NaN on another device",
)
"""Mistakes in what this library does not have: devices that share a network, and kernels that tune themselves. Whoever adds one of these moves its lines up."""


def names_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield f"{path.name}::{node.name}"


def test_every_mistake_has_tests_that_exist() -> None:
    known = {each for path in HERE.glob("test_*.py") for each in names_in(path)}
    named = {each for tests in MISTAKES.values() for each in tests}
    assert all(MISTAKES.values())
    assert not sorted(named - known)
    own = set(names_in(Path(__file__))) - named
    assert own == {"test_peers.py::test_every_mistake_has_tests_that_exist"}


@pytest.mark.parametrize("shape", [(128, 64), (256, 256), (1024, 256)], ids=cases.name)
def test_a_tolerance_that_is_never_reached(shape: tuple[int, int]) -> None:
    """The default reaches its own, in float32, whatever the size of a Gaussian gradient."""
    stiefel = mm.Stiefel()
    w, g = stiefel.random(shape), torch.randn(shape)
    for scale in (1.0, 1e-4):
        found = mm.steepest(stiefel, mm.Spectral(), w, scale * g)
        assert found.status is mm.Status.CONVERGED
        off = w.mT @ found.direction
        assert float((off + off.mT).abs().max()) <= 1e-5


@pytest.mark.parametrize("solver", [each.name for each in TABLE[mm.Stiefel, mm.Spectral]])
def test_a_rough_msign_leaves_the_weight_off_its_manifold(solver: str) -> None:
    """Also where the solver works in bfloat16: the retraction answers for the weight."""
    net = mm.Linear(64, 128)
    opt = mm.SteepestDescent(net, lr=0.1, solver=solver)
    for _ in range(3):
        net.weight.grad = torch.randn_like(net.weight)
        opt.step()
        w = net.weight.detach().double()
        assert float((w.mT @ w - torch.eye(64)).abs().max()) <= 1e-5


def test_a_negative_factor_flips_the_updates_below_it() -> None:
    """Every weight goes downhill through a negative factor, and as far as through a positive one."""
    parts = mm.Linear(4, 4), mm.Linear(4, 4), mm.Linear(4, 4)
    x, y = torch.randn(8, 4), torch.randn(8, 4)
    shares = {}
    for factor in (-2.0, 2.0):
        first, second, third = parts
        net = first >> mm.ReLU() >> factor * (second >> mm.Abs()) >> third
        shares[factor] = list(mm.budget(net).shares.values())
        assert min(shares[factor]) > 0
        before = [p.detach().clone() for p in net.parameters()]
        opt = mm.SteepestDescent(net, lr=1e-3)
        opt.zero_grad()
        (net(x) - y).square().sum().backward()
        opt.step()
        for old, p in zip(before, net.parameters(), strict=True):
            assert p.grad is not None
            assert float((p.grad * (p.detach() - old)).sum()) < 0
    assert shares[-2.0] == shares[2.0]


def test_the_slope_of_gelu_is_divided_out_twice() -> None:
    """Of a network as steep as it may be, the bound is the slope: not more than once divided."""
    net = (mm.Linear(1, 1) >> mm.GELU() >> mm.Linear(1, 1)).double()
    sign = next(iter(net.parameters())).detach().sign()
    x = (math.sqrt(2) * sign).requires_grad_()
    net(x).sum().backward()
    assert x.grad is not None
    slope = float(x.grad.abs())
    report = mm.lipschitz(net)
    assert slope <= report.certified <= slope * (1 + 1e-6)
    assert report.declared == 1.0
    assert float(mm.GELU()(torch.tensor(50.0))) == pytest.approx(50.0 / GELU_SLOPE)


UPPER = (
    "certificates/bounds", "certificates/forward_error", "certificates/leaves", "certificates/linear_map",
    "certificates/margins", "certificates/propagation", "certificates/relu_chain", "certificates/semidefinite",
    "linalg/convolution", "linalg/rounding",
)  # fmt: skip
"""The files that make upper bounds."""
SEARCHES = ("ascent", "empirical", "power", "spectrum")


def test_a_power_iteration_stands_where_an_upper_bound_is_claimed() -> None:
    """Nothing that searches is imported where bounds are made; a flat spectrum shows what it would cost."""
    for name in UPPER:
        tree = ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))
        imported = [
            node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        ]
        assert not [each for each in imported if each.split(".")[-1] in SEARCHES], name
    q = mm.Stiefel().random((2, 80, 80), dtype=torch.float64)
    net = mm.Linear(80, 80, manifold=mm.Euclidean()).double()
    exact = torch.linspace(0.9, 1.0, 80, dtype=torch.float64)
    net.weight.data.copy_(q[0] * exact @ q[1])
    v = torch.randn(80, dtype=torch.float64)
    for _ in range(10):
        v = net.weight.detach().T @ (net.weight.detach() @ v)
        v = v / v.norm()
    assert float((net.weight.detach() @ v).norm()) < 0.998
    assert 1 - 1e-14 <= mm.lipschitz(net).certified <= 1 + 1e-12


def test_a_bound_of_one_is_exceeded_by_rounding_alone() -> None:
    """A float32 weight on Stiefel may stretch by 1 + 1e-7: the certified bound says so, and is not cut to 1."""
    above = 0
    for _ in range(20):
        net = mm.Linear(48, 32)
        exact = float(torch.linalg.matrix_norm(net.weight.detach().double(), 2))
        report = mm.lipschitz(net, iterations=1, starts=1)
        assert report.declared == 1.0
        assert exact <= report.certified <= exact * (1 + 1e-12)
        above += report.certified > 1.0
    assert above >= 10


def modules() -> list[tuple[str, ast.Module]]:
    return [
        (str(path.relative_to(SOURCE)), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(SOURCE.rglob("*.py"))
    ]


def test_a_call_that_needs_a_gpu() -> None:
    """No `.cuda()`, and no device by its name but where the kernels' door and a run say what they lack."""
    found = []
    for name, tree in modules():
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr="cuda") | ast.Constant(value="cuda" | "cuda:0"):
                    if name not in ("linalg/backend.py", "training/device.py"):
                        found.append(f"{name}:{node.lineno}")
                case _:
                    pass
    assert not found


def test_a_method_is_set_on_an_instance_where_calls_never_look() -> None:
    """`self.__call__ = …` and its like: Python looks a dunder method up on the class."""
    found = []
    for name, tree in modules():
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr="__call__" | "forward", ctx=ast.Store()):
                    found.append(f"{name}:{node.lineno}")
                case _:
                    pass
    assert not found


def test_geometry_and_mass_are_lost_by_saving(tmp_path: Path) -> None:
    """A network and its optimiser through torch.save: the same budget, the same next step."""
    net = mm.Linear(6, 5, mass=3.0) >> mm.ReLU() >> 0.5 * mm.Linear(5, 4, manifold=mm.Stiefel(2.0))
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9)

    def step(module: mm.Module, optimizer: mm.SteepestDescent) -> None:
        optimizer.zero_grad()
        module(torch.ones(2, 6)).square().sum().backward()
        optimizer.step()

    step(net, opt)
    torch.save((net, opt), tmp_path / "both.pt")
    twin, other = torch.load(tmp_path / "both.pt", weights_only=False)
    assert mm.budget(twin) == mm.budget(net)
    assert mm.lipschitz(twin).declared == mm.lipschitz(net).declared == 1.0
    step(net, opt)
    step(twin, other)
    for a, b in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


DTYPES = [torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=cases.name)
@pytest.mark.parametrize("case", list(cases.solver_cases()), ids=cases.name)
def test_a_conversion_that_shares_its_storage_is_written_into(
    case: cases.SolverCase, dtype: torch.dtype
) -> None:
    """`x.to(dtype)` is x itself where the dtype is the same: nothing may work in place on it."""
    shape = (5, 3)
    w = case.manifold.random(shape, dtype=dtype)
    g = 3 * torch.randn(shape).to(dtype)
    kept = w.clone(), g.clone()
    found = mm.steepest(case.manifold, case.norm, w, g, solver=case.solver)
    direction = found.direction.clone()
    case.norm.steepest(g).zero_()
    case.manifold.retract(w, 0.1 * found.direction).zero_()
    case.manifold.tangent(w, g).zero_()
    found.direction.zero_()
    assert torch.equal(w, kept[0])
    assert torch.equal(g, kept[1])
    again = mm.steepest(case.manifold, case.norm, w, g, solver=case.solver, dual=found.dual)
    assert again.direction.shape == direction.shape
    assert torch.equal(g, kept[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=cases.name)
def test_the_momentum_is_what_the_solver_divided(dtype: torch.dtype) -> None:
    """After a step the buffer is the mean of the gradients, at their own size, and no gradient's memory."""
    net = mm.Linear(4, 6).to(dtype)
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.75)
    expected: Tensor = torch.zeros(6, 4, dtype=torch.promote_types(dtype, torch.float32))
    for size in (1e3, 1e-3):
        gradient = (size * torch.randn(6, 4)).to(dtype)
        net.weight.grad = gradient.clone()
        opt.step()
        largest = max(float(expected.abs().max()), float(gradient.abs().max()))
        expected = expected.lerp(gradient.to(expected.dtype), 0.25)
        buffer = opt.state[net.weight]["momentum"]
        # Two products and a sum, here and in lerp, each rounded by at most eps/2 of the largest number; two steps.
        rounding = 2 * 3 * torch.finfo(expected.dtype).eps * largest
        torch.testing.assert_close(buffer, expected, atol=rounding, rtol=0)
        assert buffer.dtype == expected.dtype
        assert torch.equal(net.weight.grad, gradient)
        assert buffer.data_ptr() != net.weight.grad.data_ptr()


def test_an_argument_was_renamed_and_a_checkpoint_no_longer_resumes() -> None:
    """These names stand in files on users' disks: whoever changes one reads the old name too."""
    net = mm.Linear(4, 3).bfloat16()
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9, solver="lyapunov")
    net.weight.grad = torch.ones_like(net.weight)
    opt.step()
    state = opt.state_dict()
    (group,) = state["param_groups"]
    assert set(group) == {
        "lr", "share", "name", "shape", "momentum", "nesterov", "tangent_momentum", "weight_decay",
        "params",
    }  # fmt: skip
    assert set(state) == {"param_groups", "state"}
    assert set(state["state"][0]) == {"momentum", "dual", "master"}


LISTED = [(manifold, norm, each) for (manifold, norm), row in TABLE.items() for each in row]


@pytest.mark.parametrize(
    ("manifold", "norm", "solver"),
    LISTED,
    ids=[f"{m.__name__}-{n.__name__}-{solver.name}" for m, n, solver in LISTED],
)
def test_another_algorithm_runs_where_the_matrix_is_not_square(
    manifold: type[mm.Manifold],
    norm: type[mm.Norm],
    solver: Solver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The solver that was named is the one that runs, for tall, square and wide: no other is called."""
    called: list[str] = []

    def spy(kind: type[Solver]) -> None:
        solve = kind.solve

        def solve_and_tell(
            self: Solver,
            manifold: mm.Manifold,
            norm: mm.Norm,
            point: Tensor,
            gradient: Tensor,
            dual: Tensor | None,
        ) -> Solution:
            called.append(self.name)
            return solve(self, manifold, norm, point, gradient, dual)

        monkeypatch.setattr(kind, "solve", solve_and_tell)

    for kind in {type(each) for row in TABLE.values() for each in row}:
        spy(kind)
    for shape in ((6, 3), (4, 4), (3, 6)):
        called.clear()
        point = manifold().random(shape)
        mm.steepest(manifold(), norm(), point, torch.randn(shape), solver=solver.name)
        assert called == [solver.name]
        net = mm.Linear(shape[1], shape[0], manifold=manifold(), norm=norm())
        opt = mm.SteepestDescent(net, lr=0.1, solver=solver.name)
        net.weight.grad = torch.randn_like(net.weight)
        opt.step()
        assert called == [solver.name] * 2
