"""The table, the door, and machines without Triton or without a GPU."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import modular_manifolds_kernels as kernels
import pytest
import torch
from kernel_cases import msign, stiefel_retract
from modular_manifolds_kernels import (
    POLAR_EXPRESS,
    Bound,
    certificate,
    descent,
    launches,
    matrix_sign,
    retraction,
)
from modular_manifolds_kernels import machine as machines
from modular_manifolds_kernels.machine import Machine
from modular_manifolds_kernels.shipped import (
    KERNELS,
    SHIPPED,
    TARGETS,
    Configuration,
    Precision,
    choose,
)
from torch import Tensor
from torch._subclasses import FakeTensorMode
from watched import Watched

import modular_manifolds as mm
from modular_manifolds.errors import BackendError
from modular_manifolds.linalg import backend, coefficients
from modular_manifolds.linalg.backend import Backend


def test_both_tables_of_coefficients_are_one() -> None:
    """The kernels may not import the library, so they hold a copy."""
    assert kernels.POLAR_EXPRESS == coefficients.POLAR_EXPRESS


def test_every_row_fits_its_kernel() -> None:
    """No two rows could be chosen for the same launch."""
    keys = set()
    for row in SHIPPED:
        assert row.target in TARGETS
        flags = tuple(
            (k, v)
            for k, v in row.constexprs.items()
            if k in ("SCALED", "MOMENTUM", "NESTEROV", "SPLIT", "FACTORED", "MASTERS", "BLOCK")
        )
        key = (row.kernel, row.dtype, row.target, row.layout, flags)
        assert key not in keys
        keys.add(key)


def test_the_smallest_block_that_holds_a_matrix_is_chosen() -> None:
    for target in TARGETS:
        row = choose("stiefel_retract", "fp32", target, side=17)
        assert row is not None
        assert row.constexprs["BLOCK"] == 32
        row = choose("narrow_msign", "bf16", target, side=65)
        assert row is not None
        assert row.constexprs["BLOCK"] == 128
        assert choose("narrow_msign", "bf16", target, side=129) is None


def test_a_short_side_up_to_128_is_one_launch_in_either_precision() -> None:
    """Unless the long side is worth many programs."""
    wanted: list[tuple[int, int, Precision, str]] = [
        (64, 65, "fp32", "narrow_msign"),
        (65, 65, "fp32", "tiled_msign"),
        (128, 4096, "fp32", "tiled_msign"),
        (128, 4096, "bf16", "narrow_msign"),
    ]
    for target in TARGETS:
        for n, k, precision, kernel in wanted:
            row = matrix_sign.one_launch_row(n, k, precision, target)
            assert row is not None
            assert row.kernel == kernel
        for n, k, kernel in ((64, 9000, "stiefel_retract"), (65, 4096, "tiled_retract")):
            row = retraction.one_launch_row(n, k, target)
            assert row is not None
            assert row.kernel == kernel
        for n, k in ((129, 129), (128, 4097)):
            assert matrix_sign.one_launch_row(n, k, "fp32", target) is None
            assert retraction.one_launch_row(n, k, target) is None


def test_why_not_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    assert "is on cpu" in str(backend.why_not(torch.ones(2, 2)))
    with FakeTensorMode():
        x = torch.empty(2, 2, device="cuda")
        assert "torch.float64" in str(backend.why_not(x.double()))
        assert backend.why_not(x) is None
        monkeypatch.setattr(machines, "TRITON", False)
        assert "Triton is not installed" in str(backend.why_not(x))


def test_old_and_unknown_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told from the architecture alone; the rows of an older one of the family serve newer ones."""

    pytest.importorskip("triton")

    class Properties:
        def __init__(self, major: int, name: str = "") -> None:
            self.major, self.gcnArchName = major, name

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    known = {8: "sm_80", 9: "sm_90", 10: "sm_100", 12: "sm_80"}
    for major in (7, 8, 9, 10, 11, 12, 13):
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, m=major: Properties(m))
        machines.machine_of.cache_clear()
        with FakeTensorMode():
            reason = backend.why_not(torch.empty(2, 2, device="cuda:0"))
        if major in known:
            assert reason is None
            assert machines.machine_of(0).target == known[major]
        else:
            assert "no column for Some GPU" in str(reason)
            with pytest.raises(RuntimeError, match="no column for Some GPU"):
                machines.machine_of(0)
    machines.machine_of.cache_clear()


def test_a_stack_may_be_deeper_than_a_grid_is_high(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's second and third axes end at 65,535: grids have the first one alone, whose end is told in words."""
    grids: dict[str, tuple[int, ...]] = {}

    def launch(self: Machine, row: Configuration, grid: tuple[int, ...], *rest: object) -> None:
        del self, rest
        assert len(grid) == 1
        grids[row.kernel] = min(grid, grids.get(row.kernel, grid))

    deep = 70_000
    machine = Machine("sm_90", {})
    with monkeypatch.context() as patch:
        patch.setattr(Machine, "launch", launch)
        for n, k in ((9, 9), (9, 100), (65, 66), (129, 130), (129, 300)):
            msign(machine, torch.empty(deep, n, k, device="meta"), POLAR_EXPRESS, "fp32")
        for n in (9, 65, 129):
            w = torch.empty(deep, n, 200, device="meta")
            stiefel_retract(machine, w, w, 0.1, 1)
        x, ok = torch.empty(deep, 9, 8, device="meta"), torch.empty(1, device="meta")
        descent.descend_(machine, [x], [], ok, 0.0, nesterov=False, turned=[False])
        descent.land_(machine, [x], [], x, x, x[..., 0], turned=[False])
        for rows in (False, True):
            launches.unit_length(machine, x, x, rows=rows)
        bound = Bound(*[0.0] * 7)
        certificate.certify_(machine, x, x, x[:, :8], None, x[:, 0, 0], None, bound)
    # The gate has one program.
    assert set(grids) == set(KERNELS) - {"gate"}
    assert all(grid >= (deep,) for grid in grids.values())
    with pytest.raises(
        ValueError, match=r"at most 2,147,483,647 programs .* got 2,147,483,648\. Pass"
    ):
        machine.launch(SHIPPED[0], (1 << 31,))


def test_the_door_sends_cuda_tensors_to_the_kernels() -> None:
    """`auto` and `triton` take the operator, `torch` does not; an operation without kernel says so."""
    pytest.importorskip("triton")
    with FakeTensorMode():
        x = torch.empty(3, 7, 5, device="cuda")
        for name in ("auto", "triton"):
            called = calls(lambda x=x, name=name: mm.msign(x, backend=name))
            assert "modular_manifolds_kernels.msign.default" in called
        assert "modular_manifolds_kernels.msign.default" not in calls(
            lambda: mm.msign(x, backend="torch")
        )
        assert mm.msign(torch.empty(7, device="cuda")).shape == (7,)
        with pytest.raises(
            BackendError, match="accuracy='exact' is a decomposition, which has no kernel"
        ):
            mm.msign(x, accuracy="exact", backend="triton")
        with pytest.raises(BackendError, match=r"torch\.float64"):
            mm.msign(x.double(), backend="triton")


def test_the_door_is_compiled_without_a_graph_break() -> None:
    """A graph traced for cuda holds the kernels' operator, or torch's own products where these were asked for."""
    pytest.importorskip("triton")

    class Chosen(torch.nn.Module):
        def __init__(self, name: Backend) -> None:
            super().__init__()
            self.name: Backend = name

        def forward(self, x: Tensor) -> Tensor:
            return mm.msign(x, backend=self.name)

    with FakeTensorMode():
        x = torch.empty(6, 4, device="cuda")
        for name in get_args(Backend):
            graph = torch.export.export(Chosen(name), (x,), strict=True).graph
            targets = [str(node.target) for node in graph.nodes if node.op == "call_function"]
            assert ("modular_manifolds_kernels.msign.default" in targets) == (name != "torch")


def calls(run: Callable[[], object]) -> list[str]:
    """The names of the operators that a function calls."""

    class Watch(Watched):
        def see(self, func: Any, args: tuple[Any, ...]) -> None:
            del args
            names.append(str(func))

    names: list[str] = []
    with Watch():
        run()
    return names


ALONE_WITHOUT_TRITON = """
import sys

sys.modules["triton"] = None
sys.path[:] = [each for each in sys.path if each not in SOURCES]
sys.path.insert(0, FOLDER)
import torch
import modular_manifolds_kernels as kernels
x = torch.eye(4, 3)
assert torch.allclose(kernels.msign(x), x, atol=1e-3)
w, residual = kernels.stiefel_retract(kernels.msign(x), x, eta=0.0)
assert float(residual) < 1e-3
assert "modular_manifolds" not in sys.modules
sys.path[:0] = SOURCES
import modular_manifolds as mm
assert torch.allclose(mm.msign(x), x, atol=1e-3)
assert sys.modules["triton"] is None
fake = torch._subclasses.FakeTensorMode()
with fake:
    assert "Triton is not installed" in kernels.why_not(torch.empty(2, 2, device="cuda"))
print("works")
"""


@pytest.mark.long
def test_the_kernels_stand_alone_and_need_no_triton() -> None:
    """The package runs from its folder without the library in reach; then the library runs with it."""
    folder = Path(kernels.__file__).parents[1]
    sources = [str(folder), str(Path(mm.__file__).parents[1])]
    script = f"FOLDER, SOURCES = {str(folder)!r}, {sources!r}\n{ALONE_WITHOUT_TRITON}"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["works"]
