"""The architecture, executable: import contracts hold, and the public surface is what the design promises."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter import cli
from importlinter.api import read_configuration

import modular_manifolds as mm
from modular_manifolds import testing

ROOT = Path(__file__).parents[2]


def test_import_contracts_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All contracts of pyproject.toml, with the report in the failure's message."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    status = cli.lint_imports(
        config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True
    )
    assert status == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_the_contracts_say_what_the_design_says() -> None:
    """A contract that was deleted or emptied holds trivially."""
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    assert [layer.replace("modular_manifolds.", "") for layer in layers] == [
        "cli | integrations",
        "training",
        "specs",
        "models | adaptation | optim | certificates",
        "testing",
        "nn",
        "solvers | composition",
        "manifolds | norms",
        "linalg",
        "arguments | wrappers | values | tables",
        "errors",
    ]
    circles = next(each for each in contracts if each["type"] == "acyclic_siblings")
    assert circles["ancestors"] == ["modular_manifolds"]
    forbidden = {
        (s, f)
        for each in contracts
        for s in each.get("source_modules", [])
        for f in each["forbidden_modules"]
    }
    for pair in (
        ("modular_manifolds.composition", "torch"),
        ("modular_manifolds", "lightning"),
        ("modular_manifolds", "transformers"),
        ("modular_manifolds", "accelerate"),
        ("modular_manifolds", "modular_manifolds_kernels"),
        ("modular_manifolds", "pytest"),
        ("modular_manifolds", "hypothesis"),
        ("modular_manifolds.solvers", "rich"),
    ):
        assert pair in forbidden
    folders = {
        path.name
        for path in (ROOT / "modular_manifolds").iterdir()
        if (path / "__init__.py").exists()
    }
    layered = {
        name for layer in layers for name in layer.replace("modular_manifolds.", "").split(" | ")
    }
    assert folders <= layered, "a folder without a layer is not held to the import order"


FOREIGN = (
    "matplotlib",
    "typer",
    "rich",
    "datasets",
    "jinja2",
    "pytest",
    "hypothesis",
    "cvxpy",
    "triton",
    "foolbox",
    "tensorboard",
    "transformers",
    "peft",
    "accelerate",
    "lightning",
)


def test_importing_the_library_is_light() -> None:
    """Libraries that only the command line, the figures or the tests need are not imported with the package.

    torch may bring some of them along by itself: what counts is what the library adds.
    """
    script = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import modular_manifolds, modular_manifolds.testing, modular_manifolds.specs\n"
        f"print(*[m for m in {FOREIGN!r} if m in sys.modules and m not in before])\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_composition_runs_without_torch() -> None:
    """The budget is arithmetic: its modules, loaded alone, bring no torch with them."""
    folder = ROOT / "modular_manifolds"
    script = (
        "import sys, types\n"
        "package = types.ModuleType('modular_manifolds')\n"
        f"package.__path__ = [{str(folder)!r}]\n"
        "sys.modules['modular_manifolds'] = package\n"
        "from modular_manifolds.composition import allocate, Space, Signature\n"
        "from modular_manifolds.composition.tree import Leaf\n"
        "leaf = Leaf('', 'f', Signature(1.0, 1.0, Space(1), Space(1)), 1.0, weight='w')\n"
        "assert allocate(leaf, 0.1).shares == {'w': 1.0}\n"
        "print('torch' in sys.modules, 'numpy' in sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["False", "False"]


PUBLIC = [
    "Linear", "Embedding", "Conv2d", "Bias", "Gain",
    "ReLU", "Abs", "MaxMin", "GELU", "SiLU", "RMSNorm", "MeanPool", "MaxPool", "Dropout", "Identity", "Flatten",
    "Series", "Parallel", "Sum", "Scale", "Residual",
    "Euclidean", "Sphere", "Oblique", "Stiefel", "Product",
    "Frobenius", "Max", "Spectral", "RMSOperator", "RowRMS", "ModularNorm",
    "Module", "Atom", "Bond", "Manifold", "Norm", "Geometry", "Space", "ProductSpace",
    "budget", "Budget", "lipschitz", "LipschitzReport", "local_lipschitz", "LocalLipschitzReport", "LocalStatus", "conditioning", "activations", "ActivationReport",
    "robustness", "RobustnessReport", "ProjectedGradient", "InputScale", "SteepestDescent",
    "msign", "steepest", "Solution", "Status",
    "solvers.select", "solvers.TABLE", "solvers.Pair", "solvers.pairs", "solvers.find_pair", "solvers.register", "solvers.Solver",
    "linalg.backend.why_not", "errors.ArgumentError",
]  # fmt: skip


def resolve(name: str) -> object:
    found: object = mm
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_exist_and_say_what_they_are(name: str) -> None:
    found = resolve(name)
    if inspect.isclass(found) or inspect.isroutine(found):
        assert inspect.getdoc(found), f"mm.{name} has no docstring"


def test_every_public_method_has_a_docstring() -> None:
    """Methods of the classes that users subclass or call have docstrings; dunder methods and forward speak for themselves."""
    missing = []
    for name in PUBLIC:
        found = resolve(name)
        if not inspect.isclass(found) or not found.__module__.startswith("modular_manifolds"):
            continue
        for method, value in vars(found).items():
            plain = inspect.isfunction(value) or isinstance(value, property | classmethod)
            if plain and not method.startswith("_") and not inspect.getdoc(getattr(found, method)):
                missing.append(f"{name}.{method}")
    assert not missing, f"no docstring: {missing}"


def test_the_laws_are_public() -> None:
    for name in ("check_manifold", "check_norm", "check_solver", "check_module", "Sample"):
        assert getattr(testing, name).__doc__
    for laws in (
        testing.MANIFOLD_LAWS,
        testing.NORM_LAWS,
        testing.SOLVER_LAWS,
        testing.MODULE_LAWS,
    ):
        assert len(set(laws)) == len(laws)
        assert all(law.__doc__ for law in laws)


def test_every_law_is_in_a_list() -> None:
    """A law that is written and not listed is never tried."""
    listed = {
        *testing.MANIFOLD_LAWS,
        *testing.NORM_LAWS,
        *testing.SOLVER_LAWS,
        *testing.MODULE_LAWS,
    }
    written = set()
    for path in sorted((ROOT / "modular_manifolds" / "testing").glob("*_laws.py")):
        module = importlib.import_module(f"modular_manifolds.testing.{path.stem}")
        for name, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__ == module.__name__
            if own and not name.startswith(("_", "check_")):
                written.add(value)
    assert written == listed
