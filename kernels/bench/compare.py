"""Compare every kernel with float64, and on a GPU its time with torch's and others'; print a table, optionally JSON.

    python kernels/bench/compare.py --json measured.json

Without a GPU the public functions are checked, which then compute by torch; nothing is timed. A few minutes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
from dataclasses import asdict
from pathlib import Path

import modular_manifolds_kernels as kernels
import torch
from checks import checks
from timings import Timed, timings


def environment(device: torch.device) -> dict[str, str | None]:
    """The device and the versions that the numbers depend on."""
    cuda = device.type == "cuda"
    triton = importlib.util.find_spec("triton") is not None
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu",
        "capability": ".".join(map(str, torch.cuda.get_device_capability(device)))
        if cuda
        else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "triton": importlib.metadata.version("triton") if triton else None,
        "python": platform.python_version(),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, and the timings on a GPU; print and write the results; return 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="write the results here too")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds of each timing, at most")
    given = parser.parse_args(arguments)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    here = environment(device)
    print("  ".join(f"{name} {value}" for name, value in here.items() if value))
    reason = kernels.why_not(torch.empty(1, 1, device=device))
    print(f"computed by {'kernels' if reason is None else f'torch: {reason}'}\n")
    checked = list(checks(device))
    for each in checked:
        print(
            f"{'ok ' if each.passed else 'BAD'} {each.what:<48} {each.error:9.2e}  ≤ {each.allowed:g}"
        )
    timed: list[Timed] = []
    if cuda and reason is None:
        print(f"\n{'':<38}{'ours ms':>9}{'other ms':>10}{'ratio':>7}")
        for each in timings(given.budget):
            timed.append(each)
            print(
                f"{each.what:<38}{each.ours:9.3f}{each.others:10.3f}{each.ratio:7.2f}  {each.other}"
            )
    else:
        print("\nnothing was timed: there is no GPU that the kernels run on")
    if given.json is not None:
        result = {
            "environment": here,
            "checks": [*map(asdict, checked)],
            "timings": [*map(asdict, timed)],
        }
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(each.passed for each in checked) else 1


if __name__ == "__main__":
    raise SystemExit(main())
