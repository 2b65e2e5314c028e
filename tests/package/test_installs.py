"""The requirements for every system, and the package without Triton, as on macOS and Windows."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

SYSTEMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    "macOS": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
    "Windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
}

NEEDED = {
    *("torch", "pydantic", "numpy", "safetensors", "typer", "rich", "pyyaml", "matplotlib"),
    "jinja2",
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_only_linux_needs_triton(system: str) -> None:
    """torch's wheels for the other systems come without Triton, which has none for them."""
    needed = {
        requirement.name.lower()
        for requirement in map(Requirement, PROJECT["dependencies"])
        if requirement.marker is None
        or requirement.marker.evaluate({**SYSTEMS[system], "python_version": "3.11"})
    }
    assert needed == NEEDED | ({"triton"} if system == "linux" else set())


WITHOUT_TRITON = """
import sys
from importlib.machinery import PathFinder

class WithoutTriton(PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname.partition(".")[0] == "triton":
            return None
        return super().find_spec(fullname, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTriton
import torch
import modular_manifolds as mm
import modular_manifolds_kernels as kernels

torch.manual_seed(0)
net = mm.Linear(6, 4, manifold=mm.Stiefel(), norm=mm.Spectral())
before = net.weight.detach().clone()
opt = mm.SteepestDescent(net, lr=0.1)
net(torch.randn(3, 6)).square().sum().backward()
opt.step()
assert not torch.equal(net.weight, before)
assert float(mm.Stiefel().residual(net.weight.detach())) < 1e-5
assert "triton" not in sys.modules
x = torch.randn(4, 3)
torch.testing.assert_close(kernels.msign(x), mm.msign(x), atol=0.05, rtol=0)
print(kernels.why_not_on("cuda", torch.float32))
try:
    mm.msign(x, backend="triton")
except mm.errors.BackendError as error:
    print(error)
"""


@pytest.mark.long
def test_without_triton_the_package_steps_and_says_why_there_are_no_kernels() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TRITON],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    on_a_gpu, read_run_spec = run.stdout.splitlines()
    assert "Triton" in on_a_gpu
    assert read_run_spec.startswith("backend must be usable if it is named, got 'triton'.")
    assert "Use 'auto'" in read_run_spec
