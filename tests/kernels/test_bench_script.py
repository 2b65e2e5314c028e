"""The script that compares on a GPU: without one it checks, times nothing, and says so."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from modular_manifolds.linalg.backend import resolve_on

ROOT = Path(__file__).parents[2]


Modules = Callable[[str], Any]


@pytest.fixture(scope="module")
def script() -> Iterator[Modules]:
    """The script and the files beside it, by name: Python finds them where the script lies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "kernels/bench")
        yield importlib.import_module


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="this machine has a GPU, which would be timed"
)
def test_without_a_gpu_it_checks_and_times_nothing(
    script: Modules,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "measured.json"
    assert script("compare").main(["--json", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "nothing was timed" in printed
    assert "computed by torch: the tensor is on cpu" in printed
    written = json.loads(file.read_text())
    assert written["timings"] == []
    assert written["environment"]["torch"] == torch.__version__
    assert len(written["checks"]) == printed.count("ok ") > 20


def test_a_check_that_fails_is_the_exit_code(
    script: Modules, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    compare, checked = script("compare"), script("checks").Checked
    wrong = [checked("a", 1.0, 0.5), checked("b", float("nan"), 0.5)]
    monkeypatch.setattr(compare, "checks", lambda _: wrong)
    assert compare.main([]) == 1
    assert capsys.readouterr().out.count("BAD") == 2


def test_the_routine_of_torchs_muon_is_where_it_is_looked_for(script: Modules) -> None:
    x = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    (plain, *_) = script("timings").others().values()
    sigma = torch.linalg.svdvals(plain(x).double())
    assert 0.3 < float(sigma.min()) <= float(sigma.max()) < 1.3


WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@WITHOUT_GPU
def test_whole_steps_want_a_gpu(
    script: Modules, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script("step").main(["--out", str(tmp_path / "measured")]) == 2
    assert "torch sees no GPU here" in capsys.readouterr().out


def test_whole_steps_of_smaller_weights_in_the_hosts_memory(script: Modules) -> None:
    found = script("step_sections").steps_without_waiting("cpu", width=24)
    assert found["largest gap"] <= 1e-2
    assert found["largest residual"] <= 1e-5


def test_the_table_of_whole_steps_shows_what_is_known(script: Modules) -> None:
    step = script("step")
    known = {
        "times": {"ms": {step.OURS: 2.0, step.TORCHS: 8.0}, "gap": {step.OURS: 0.004}},
        "launches": {"failed": "no profiler here"},
    }
    _, ours, products, _, torchs = (line.split() for line in step.table(known).splitlines())
    assert ours[-4:] == ["2.000", "0.25", "–", "4.0e-03"]
    assert products[-4:] == ["–"] * 4
    assert torchs[-4:] == ["8.000", "1.00", "–", "–"]


@WITHOUT_GPU
def test_torchs_path_is_timed_without_the_kernels(script: Modules) -> None:
    pytest.importorskip("triton")
    sections = script("step_sections")
    place: tuple[Any, ...] = ("auto", "cuda", torch.float32)
    with sections.by_torch():
        assert resolve_on(*place) == "torch"
    assert resolve_on(*place) == "triton"


@WITHOUT_GPU
@pytest.mark.long
def test_a_section_that_fails_is_told_in_words(script: Modules, tmp_path: Path) -> None:
    """Its process ends with another code; what it printed is kept."""
    found = script("step").run_apart("times", 60.0, tmp_path)
    assert "torch sees no GPU here" in found["failed"]
    assert (tmp_path / "times.log").exists()
