"""Every line and every branch of the Triton code is reached when the interpreter runs each variant."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import coverage
from kernel_cases import VARIANTS
from modular_manifolds_kernels import programs
from modular_manifolds_kernels.machine import Machine

FOLDER = Path(programs.__path__[0])


def bodies(path: Path) -> set[int]:
    """The lines inside functions: only these run when a kernel does."""
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {
        line
        for function in functions
        for line in range(function.body[0].lineno, (function.end_lineno or 0) + 1)
    }


def test_every_branch_of_the_kernels_is_reached(machine: Machine, tmp_path: Path) -> None:
    measured = coverage.Coverage(
        branch=True, data_file=None, config_file=False, include=[f"{FOLDER}/*.py"]
    )
    measured.start()
    try:
        for run in VARIANTS.values():
            run(machine)
    finally:
        measured.stop()
    report = tmp_path / "coverage.json"
    measured.json_report(outfile=str(report))
    files = json.loads(report.read_text())["files"]
    found = {Path(name).resolve(): figures for name, figures in files.items()}
    reached = 0
    for path in sorted(FOLDER.glob("*.py")):
        inside = bodies(path)
        if not inside:
            continue
        figures = found[path.resolve()]
        assert not inside & set(figures["missing_lines"]), path.name
        taken = measured.get_data().arcs(str(path.resolve())) or []
        # The interpreter compiles a function without its decorator, so it leaves towards another line.
        left = {start for start, end in taken if end < 0}
        missing = [
            (start, end)
            for start, end in figures["missing_branches"]
            if start in inside and not (end < 0 and start in left)
        ]
        assert not missing, f"{path.name}: branches never taken: {missing}"
        reached += len({arc for arc in taken if arc[0] in inside})
    assert reached > 0
    print(f"no line and no branch of the kernels was missed; {reached} arcs were taken")
