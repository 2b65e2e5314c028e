"""Whole optimiser steps on the weights of GPT-2 small, on a GPU: waits, captured graphs, times, launches, gaps.

    PYTHONPATH=.:kernels python kernels/bench/step.py --out measured

Every section runs in a process of its own, with a limit of time: one that fails is told in words, and the others still run.
A table is printed; `step.json` in the folder holds it, with card, driver and versions. Six minutes at most. Without a GPU
it says so, and the exit code is 2.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from compare import environment
from step_sections import FLAT, OURS, PRODUCTS, SECTIONS, TORCHS, Found


def table(results: Mapping[str, Found]) -> str:
    """The optimisers as rows: milliseconds a step, also as a multiple of torch's; launches; the largest gap."""
    times, launched = results.get("times", {}), results.get("launches", {})
    medians, gaps = times.get("ms", {}), times.get("gap", {})
    lines = [f"{'step':<28}{'ms':>9}{'of torch':>10}{'launches':>10}{'gap':>10}"]
    for name in (OURS, PRODUCTS, FLAT, TORCHS):
        ms = medians.get(name)
        ratio = ms / medians[TORCHS] if ms and TORCHS in medians else None
        cells = (
            _cell(ms, "9.3f"),
            _cell(ratio, "10.2f"),
            _cell(launched.get(name), "10d"),
            _cell(gaps.get(name), "10.1e"),
        )
        lines.append(f"{name:<28}{''.join(cells)}")
    return "\n".join(lines)


def _cell(number: Any, form: str) -> str:
    return (
        format("–", f">{form.split('.')[0].rstrip('d')}")
        if number is None
        else format(number, form)
    )


def in_words(found: Found) -> str:
    """The findings of a section, in one line."""
    numbers = ((name, f"{x:.3g}" if isinstance(x, float) else x) for name, x in found.items())
    return ", ".join(f"{name} {x}" for name, x in numbers)


def run_apart(name: str, seconds: float, out: Path) -> Found:
    """One section in a process of its own: what it found, or under `failed` what went wrong, in words."""
    file = out / f"{name.replace(' ', '-')}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--out", str(out), "--section", name]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"failed": f"it took more than {seconds:g} s"}
    if ran.returncode != 0 or not file.exists():
        (out / f"{file.stem}.log").write_text(ran.stdout + ran.stderr)
        last = ((ran.stderr or ran.stdout).strip().splitlines() or [f"exit code {ran.returncode}"])[
            -1
        ]
        return {"failed": f"{last} (more in {file.stem}.log)"}
    return json.loads(file.read_text())


def driver() -> str | None:
    """The version of NVIDIA's driver; None if there is no `nvidia-smi`."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return (ran.stdout.strip().splitlines() or [None])[0]


def main(arguments: list[str] | None = None) -> int:
    """Run all sections, print and write what they found: 0, or 1 if a section failed, or 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="the folder for the results")
    parser.add_argument(
        "--section", choices=list(SECTIONS), help="run this one here, and nothing else"
    )
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("nothing was run: torch sees no GPU here, and a step on one is what this measures")
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    if given.section:
        found = SECTIONS[given.section][0]()
        file = given.out / f"{given.section.replace(' ', '-')}.json"
        file.write_text(json.dumps(found))
        return 0
    here = {**environment(torch.device("cuda", 0)), "driver": driver()}
    print("  ".join(f"{name} {value}" for name, value in here.items() if value), flush=True)
    results: dict[str, Found] = {}
    for name, (_, seconds) in SECTIONS.items():
        results[name] = run_apart(name, seconds, given.out)
        print(f"{name}: {in_words(results[name])}", flush=True)
        # Written each time: what is known stays if this process is stopped.
        result = {"environment": here, "sections": results}
        (given.out / "step.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{table(results)}")
    return 1 if any("failed" in found for found in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
