"""Mistakes that were seen in code of this kind: each is a test whose name says the mistake.

Most such mistakes are found by laws that stand elsewhere. Those below had no test of their own.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

import cases
import pytest
import torch
from long_tests import mostly_long
from modular_manifolds_bench.baselines import Lyapunov
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.nn.bonds import GELU_SLOPE
from modular_manifolds.solvers import Solver, pairs

SOURCE = Path(__file__).parents[2] / "modular_manifolds"
MANIFOLD_MUON = mm.solvers.find_pair(mm.Stiefel(), mm.Spectral())


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


@pytest.mark.parametrize("solver", cases.solvers(MANIFOLD_MUON), ids=lambda solver: solver.name)
def test_a_rough_msign_leaves_the_weight_off_its_manifold(solver: Solver) -> None:
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
    """For a network as steep as it may be, the bound is the slope: not more than once divided."""
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
    "certificates/bounds", "certificates/forward_error", "certificates/linear_map", "certificates/margins",
    "certificates/propagation", "certificates/relu_chain", "certificates/semidefinite",
    "composition/leaf", "composition/sizes", "linalg/convolution", "linalg/rounding", "nn/leaf",
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
    assert 1 - 1e-12 <= mm.lipschitz(net).certified <= 1 + 1e-12


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


def modules_with(*words: str) -> list[tuple[str, ast.Module]]:
    """The files in which one of the words stands."""
    texts = [(path, path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))]
    return [
        (str(path.relative_to(SOURCE)), ast.parse(text))
        for path, text in texts
        if any(word in text for word in words)
    ]


@pytest.mark.long
def test_a_call_that_needs_a_gpu() -> None:
    """No `.cuda()`, and no device by its name but where the kernels' door, a run and a captured graph say what they lack.

    Of several processes each takes the GPU with its own number.
    """
    doors = {
        "linalg/backend.py",
        "optim/capture.py",
        "training/device.py",
        "training/processes.py",
    }
    found = []
    for name, tree in modules_with("cuda"):
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr="cuda") | ast.Constant(value="cuda" | "cuda:0"):
                    if name not in doors:
                        found.append(f"{name}:{node.lineno}")
                case _:
                    pass
    assert not found


def test_a_method_is_set_on_an_instance_where_calls_never_look() -> None:
    """`self.__call__ = …` and its like: Python looks a dunder method up on the class."""
    found = []
    for name, tree in modules_with(".__call__", ".forward"):
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


@pytest.mark.parametrize(
    "case", mostly_long(cases.solver_cases(), usual=cases.is_usual), ids=cases.name
)
def test_a_conversion_that_shares_its_storage_is_written_into(case: cases.SolverCase) -> None:
    """`x.to(dtype)` is x itself where the dtype is the same: nothing may work in place on it."""
    shape = (5, 3)
    for dtype in DTYPES:
        w = case.manifold.random(shape, dtype=dtype)
        g = 3 * torch.randn(shape).to(dtype)
        kept = w.clone(), g.clone()
        found = mm.steepest(case.manifold, case.norm, w, g, solver=case.solver)
        case.norm.steepest(g).zero_()
        case.manifold.retract(w, 0.1 * found.direction).zero_()
        case.manifold.tangent(w, g).zero_()
        found.direction.zero_()
        with cases.Trying(dtype):
            assert torch.equal(w, kept[0])
            assert torch.equal(g, kept[1])
        if found.dual is not None:
            again = mm.steepest(case.manifold, case.norm, w, g, solver=case.solver, dual=found.dual)
            assert again.direction.shape == shape
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
    opt = mm.SteepestDescent(net, lr=0.1, momentum=0.9, solver=Lyapunov())
    net.weight.grad = torch.ones_like(net.weight)
    opt.step()
    state = opt.state_dict()
    (group,) = state["param_groups"]
    assert set(group) == {
        "lr", "shares", "param_names", "shapes", "manifold", "norm", "momentum", "nesterov",
        "tangent_momentum", "noise_damping", "weight_decay", "params",
    }  # fmt: skip
    assert set(state) == {"param_groups", "state"}
    assert set(state["state"][0]) == {"momentum", "dual", "master"}


LISTED = [(pair.manifold, pair.norm, each) for pair in pairs() for each in cases.solvers(pair)]


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
    called: set[str] = set()

    def spy(kind: type[Solver], door: str) -> None:
        answer = getattr(kind, door)

        def answer_and_tell(self: Solver, *arguments: Any) -> Any:
            called.add(self.name)
            return answer(self, *arguments)

        monkeypatch.setattr(kind, door, answer_and_tell)

    for kind in {type(each) for *_, each in LISTED}:
        spy(kind, "plan")
        spy(kind, "solve")
    for shape in ((6, 3), (4, 4), (3, 6)):
        called.clear()
        point = manifold().random(shape)
        mm.steepest(manifold(), norm(), point, torch.randn(shape), solver=solver)
        assert called == {solver.name}
        called.clear()
        net = mm.Linear(shape[1], shape[0], manifold=manifold(), norm=norm())
        opt = mm.SteepestDescent(net, lr=0.1, solver=solver)
        net.weight.grad = torch.randn_like(net.weight)
        opt.step()
        assert called == {solver.name}
