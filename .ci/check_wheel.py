"""Check the files of a wheel and of a source distribution: all that users need, and nothing that only tests use.

python .ci/check_wheel.py dist/*.whl dist/*.tar.gz
"""

from __future__ import annotations

import ast
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final
from zipfile import ZipFile

LARGEST_WHEEL: Final = 750_000
"""Bytes. Of these 39,000 are the digits, 70,000 the zip's own lists of 350 files, and the rest is code."""

DOORS: Final = (
    "modular_manifolds",
    "modular_manifolds.__main__",
    "modular_manifolds.cli.main",
    "modular_manifolds_kernels",
)
"""The modules that users import or run; everything else must be reachable from them by imports."""

CALLBACKS: Final = "modular_manifolds.integrations."
"""The callbacks for trainers, which their users import file by file."""

BESIDE_CODE: Final = {
    "modular_manifolds/py.typed",
    "modular_manifolds/training/assets/digits.npz",
    "modular_manifolds/training/assets/report.html.j2",
}

Modules = Mapping[str, ast.Module]


def modules(wheel: ZipFile) -> dict[str, ast.Module]:
    """The syntax tree of every module, by its dotted name."""
    found: dict[str, ast.Module] = {}
    for name in wheel.namelist():
        if name.endswith(".py"):
            parts = PurePosixPath(name).with_suffix("").parts
            dotted = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[dotted] = ast.parse(wheel.read(name))
    return found


def imports(tree: ast.Module) -> Iterator[str]:
    """The names that a module may import, also inside functions and by `import_module(f"folder.{name}")`."""
    prefixes: list[str] = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (each.name for each in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                yield from (f"{module}.{each.name}" for each in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module"),
                args=[ast.JoinedStr(values=[ast.Constant(value=str(prefix)), *_])],
            ):
                prefixes.append(prefix)
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    yield from (prefix + text for prefix in prefixes for text in texts)


def unreachable(found: Modules) -> set[str]:
    """The modules that no door leads to."""
    waiting = [*DOORS, *(name for name in found if name.startswith(CALLBACKS))]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found and name not in seen:
            seen.add(name)
            waiting.extend(imports(found[name]))
            waiting.append(name.rpartition(".")[0])
    return set(found) - seen


def faults_of_wheel(file: Path) -> Iterator[str]:
    """A sentence for each fault of the wheel."""
    size = file.stat().st_size
    print(f"{file.name}: {size:,} bytes")
    if size > LARGEST_WHEEL:
        yield f"the wheel has {size:,} bytes, more than {LARGEST_WHEEL:,}"
    with ZipFile(file) as wheel:
        names = set(wheel.namelist())
        info = next(name.split("/")[0] for name in names if ".dist-info/" in name)
        needed = {f"{info}/licenses/LICENSE", f"{info}/entry_points.txt", *BESIDE_CODE}
        yield from (f"{name} is missing" for name in sorted(needed - names))
        for name in sorted(names - BESIDE_CODE):
            folder = name.split("/")[0]
            code = folder in ("modular_manifolds", "modular_manifolds_kernels")
            if not (folder == info or (code and name.endswith(".py"))):
                yield f"{name} does not belong in the wheel"
        for name in sorted(unreachable(modules(wheel))):
            yield f"{name} is reached from no door: only tests or benchmarks can use it"


def faults_of_source(file: Path) -> Iterator[str]:
    """A sentence for each fault of the source distribution."""
    print(f"{file.name}: {file.stat().st_size:,} bytes")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("LICENSE", "README.md", "pyproject.toml", "mkdocs.yml", "PKG-INFO"):
        if name not in names:
            yield f"{name} is missing from the source distribution"
    folders = {name.split("/")[0] for name in names}
    for folder in ("modular_manifolds", "kernels", "tests", "docs", "examples", "benchmarks"):
        if folder not in folders:
            yield f"{folder}/ is missing from the source distribution"
    for name in sorted(names):
        if "__pycache__" in name or name.split("/")[0] in ("runs", "dist", "build"):
            yield f"{name} does not belong in the source distribution"


if __name__ == "__main__":
    wheel, source = map(Path, sys.argv[1:])
    faults = [*faults_of_wheel(wheel), *faults_of_source(source)]
    sys.exit("\n".join(faults) or 0)
