"""The script that compares on a GPU: without one it checks, times nothing, and says so."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compare() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location(
        "bench_compare", ROOT / "kernels/bench/compare.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # Its dataclasses look their module up.
        patch.setitem(sys.modules, "bench_compare", module)
        spec.loader.exec_module(module)
        yield module


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="this machine has a GPU, which would be timed"
)
def test_without_a_gpu_it_checks_and_times_nothing(
    compare: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "measured.json"
    assert compare.main(["--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "nothing was timed" in printed
    assert "computed by torch: the tensor is on cpu" in printed
    written = json.loads(file.read_text())
    assert written["timings"] == []
    assert written["environment"]["torch"] == torch.__version__
    assert len(written["checks"]) == printed.count("ok ") > 20


def test_a_check_that_fails_is_the_exit_code(
    compare: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    wrong = [compare.Checked("a", 1.0, 0.5), compare.Checked("b", float("nan"), 0.5)]
    monkeypatch.setattr(compare, "checks", lambda _: wrong)
    assert compare.main([]) == 1
    assert capsys.readouterr().out.count("BAD") == 2


def test_the_routine_of_torchs_muon_is_where_it_is_looked_for(compare: ModuleType) -> None:
    x = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    (plain, *_) = compare.others().values()
    sigma = torch.linalg.svdvals(plain(x).double())
    assert 0.3 < float(sigma.min()) <= float(sigma.max()) < 1.3
