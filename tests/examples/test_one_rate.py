"""One rate for many models: every task is learnt, results are kept, and the table says what a rate costs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from long_tests import mostly_long
from scripts_of_examples import ROOT, example


@pytest.fixture(scope="module")
def one_rate() -> Iterator[ModuleType]:
    """The example, which imports its neighbours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "examples")
        yield example("one_rate")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "sea.txt"
    path.write_text("The sea is wide and the boat is small\n" * 60)
    return path


@pytest.mark.parametrize("name", mostly_long(["plain_gpt", "bert"], usual=2))
def test_results_are_kept_and_gone_on_from(
    name: str,
    one_rate: ModuleType,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = ["--text", str(text), "--only", name, "--steps", "2", "--out", str(tmp_path / "out")]
    first = one_rate.main([*said, "--lr", "1"])
    assert f"{name} at 1:" in capsys.readouterr().out
    both = one_rate.main([*said, "--lr", "1", "0"])
    assert both[name][1.0] == first[name][1.0] != both[name][0.0]
    out = capsys.readouterr().out
    assert f"{name} at 1:" not in out
    assert f"{name} at 0:" in out


@pytest.mark.usefixtures("one_rate")
def test_a_continuation_predicts_the_second_half() -> None:
    draws = importlib.import_module("small_tasks.draws")
    tokens = torch.arange(200)
    batch = draws.continuation(tokens, "source", "target")(torch.Generator().manual_seed(0))
    assert torch.equal(batch["source"][:, -1] + 1, batch["labels"][:, 0])
    assert torch.equal(batch["target"] + 1, batch["labels"])


def test_the_table_compares_with_the_best_rate(one_rate: ModuleType) -> None:
    lines = one_rate.table({"gpt2": {0.5: 2.2, 1.0: 2.0}}, [0.5, 1.0]).splitlines()
    assert lines[1].split() == ["gpt2", "2.000", "10.0%", "0.0%"]


def test_unknown_models_are_refused(one_rate: ModuleType, text: Path) -> None:
    with pytest.raises(SystemExit):
        one_rate.main(["--text", str(text), "--only", "gpt7"])
