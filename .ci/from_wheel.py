"""Use an installed wheel as a stranger would, from a folder that holds examples/ and benchmarks/ and nothing else of ours.

python from_wheel.py examples     every example, shortened
python from_wheel.py commands     the command line, README's first command among it
python from_wheel.py bare         the imports and a step without any extra, and without Triton
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

HERE: Final = Path.cwd()
EXTRAS: Final = (
    *("triton", "datasets", "geoopt", "foolbox", "cvxpy", "tensorboard"),
    *("transformers", "peft", "accelerate", "lightning", "pytest", "hypothesis", "jsonschema"),
)
"""The packages that a bare installation does not have; Triton is there on Linux only."""


def check_installed() -> None:
    """The package comes from the environment and not from a checkout."""
    import modular_manifolds_kernels

    import modular_manifolds

    for package in (modular_manifolds, modular_manifolds_kernels):
        assert package.__file__ is not None
        assert Path(package.__file__).is_relative_to(sys.prefix), package.__file__
    strays = [path for path in sys.path if (Path(path) / "pyproject.toml").exists()]
    assert not strays, strays


def data(count: int, features: int) -> tuple[Any, Any]:
    import torch

    return torch.randn(count, features), torch.randint(0, 10, (count,))


def plain_loop(example: ModuleType, folder: Path) -> None:
    assert 0 <= example.run(folder, epochs=1) <= 1


def accelerate_loop(example: ModuleType, folder: Path) -> None:
    example.run(folder, epochs=1)


def lightning_module(example: ModuleType, folder: Path) -> None:
    example.run(folder, epochs=1)


def hf_trainer(example: ModuleType, folder: Path) -> None:
    example.run(folder, steps=3)


def char_gpt(example: ModuleType, folder: Path) -> None:
    found = example.run(text(folder), width=16, depth=1, context=16, batch=8, steps=2, quiet=True)
    assert len(found.losses) == 2


def nanogpt(example: ModuleType, folder: Path) -> None:
    small = ["--width", "16", "--depth", "1", "--context", "16", "--batch", "8", "--steps", "2"]
    for name in example.RATES:
        example.main(["--data", str(text(folder)), "--optimizer", name, *small])


def one_rate(example: ModuleType, folder: Path) -> None:
    given = ["--text", str(text(folder)), "--only", "plain_gpt", "--steps", "1", "--lr", "1"]
    assert example.main(given)["plain_gpt"].keys() == {1.0}


def seed_experiment(example: ModuleType, folder: Path) -> None:
    images = example.Data(*data(40, 3072), *data(20, 3072))
    grids = {"manifold Muon": (0.1,), "AdamW": (2e-3,)}
    runs = example.run_all(images, folder, seeds=(1,), epochs=1, batch=20, grids=grids)
    example.draw(runs).savefig(folder / "figure.png")


def solver_race(example: ModuleType, folder: Path) -> None:
    split = example.Split(*data(40, 12))
    problems = example.record(split, sizes=(12, 6, 10), steps=2, keep=1, batch=10)
    example.write(example.run(problems, data="noise", budgets=(2,), repeats=1), folder)


def track3(example: ModuleType, folder: Path) -> None:
    del folder
    assert len(example.main(["--tiny", "--steps", "2"]).losses) > 0


def word_embedding(example: ModuleType, folder: Path) -> None:
    words = example.read_words(text(folder), vocabulary=8, context=8)
    net = example.network(8, width=16, depth=1)
    example.measured(net, words)


EXAMPLES: Final[Sequence[Callable[[ModuleType, Path], None]]] = (
    *(plain_loop, char_gpt, nanogpt, one_rate, seed_experiment, solver_race, word_embedding),
    *(accelerate_loop, lightning_module, hf_trainer, track3),
)
PARTS: Final = {"track3_model", "track3_tokens"}
"""Files that an example imports."""


def text(folder: Path) -> Path:
    """A short text as a file."""
    path = folder / "sea.txt"
    path.write_text("the sea is wide and the boat is small\n" * 60, encoding="utf-8")
    return path


def run_examples() -> None:
    """Each example runs, and no example is left out."""
    import torch

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    sys.path[:0] = [str(HERE / "examples"), str(HERE / "benchmarks")]
    wanted = {path.stem for path in (HERE / "examples").glob("*.py")}
    assert wanted == {each.__name__ for each in EXAMPLES} | PARTS, wanted
    for use in EXAMPLES:
        begun = time.perf_counter()
        folder = HERE / use.__name__
        folder.mkdir()
        use(importlib.import_module(use.__name__), folder)
        print(f"{use.__name__}: {time.perf_counter() - begun:.1f} s")
    check_installed()
    notebook = json.loads((HERE / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)


def run_commands() -> None:
    """The command of README's start, a budget of a run file, and the version."""
    small = ["--steps", "2", "--set", "model.width=16", "--set", "model.depth=1"]
    command = Path(sys.prefix) / "bin" / "modular-manifolds"
    for arguments in (
        ["train", "--steps", "3", "--out", "run"],
        ["lipschitz", "run"],
        ["train", "examples/char_gpt.yaml", "--data-path", str(text(HERE)), "--out", "gpt", *small],
        ["--version"],
    ):
        done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    assert (HERE / "run" / "report.html").is_file()
    print(done.stdout.strip())


class WithoutExtras(PathFinder):
    """The usual search for modules, but it does not find the extras."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in EXTRAS:
            return None
        return super().find_spec(fullname, path, target)


def run_bare() -> None:
    """The library, its figures and its command line need no extra."""
    sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras
    import torch

    import modular_manifolds as mm
    import modular_manifolds.cli.main
    import modular_manifolds.integrations.geometry

    check_installed()
    net = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    opt = mm.SteepestDescent(mm.adapt(net), lr=0.1)
    net(torch.randn(3, 6)).square().sum().backward()
    opt.step()
    mm.plot(mm.budget(mm.adapt(net)))
    try:
        mm.msign(torch.randn(4, 3), backend="triton")
    except mm.errors.BackendError as error:
        print(error)
    else:
        raise AssertionError("the kernels ran without Triton")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    {"examples": run_examples, "commands": run_commands, "bare": run_bare}[sys.argv[1]]()
