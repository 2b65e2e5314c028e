"""Small GPTs, declared and in plain torch, learn to write."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from long_tests import mostly_long
from scripts_of_examples import ROOT, example

import modular_manifolds as mm


def test_a_small_gpt_learns_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "sea.txt"
    text.write_text("the sea is wide and the boat is small\n" * 20)
    gpt = example("char_gpt")
    settings = {"width": 16, "depth": 1, "context": 16, "batch": 8, "steps": 50, "lr": 0.5}
    found = gpt.run(text, **settings, quiet=True)
    assert capsys.readouterr().out == ""
    assert len(found.losses) == 50
    assert sum(found.losses[-5:]) < 0.8 * sum(found.losses[:5])
    assert set(found.sample) <= set(text.read_text())
    assert gpt.run(text, **settings).losses == found.losses
    out = capsys.readouterr().out
    assert "one step moves the output by at most" in out
    assert "step 50 of 50: loss" in out
    assert found.sample in out


def test_the_run_file_of_the_gpt_is_a_run() -> None:
    run = mm.RunSpec.from_file(ROOT / "examples" / "char_gpt.yaml")
    assert run.steps == 1000
    network = run.resolved(in_features=65, classes=65).network
    assert network is not None
    net = network.build_aside()
    assert net.source == mm.Space(65, "l1")


@pytest.fixture(scope="module")
def nanogpt() -> ModuleType:
    return example("nanogpt")


SMALL_GPT = ["--width", "16", "--depth", "1", "--context", "16", "--batch", "8", "--steps", "40"]


@pytest.mark.parametrize(
    ("name", "rates"),
    mostly_long(
        [("ours", ["1.0"]), ("adamw", ["0.03"]), ("muon", ["0.03"])], usual=3, several=True
    ),
)
def test_a_plain_gpt_learns_by_each_of_the_three_optimisers(
    nanogpt: ModuleType,
    name: str,
    rates: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = tmp_path / "sea.txt"
    text.write_text("the sea is wide and the boat is small\n" * 30)
    said = ["--data", str(text), "--optimizer", name, "--lr", *rates, *SMALL_GPT]
    found = nanogpt.main(said)
    (result,) = found.values()
    assert len(result.losses) == 40
    assert sum(result.losses[-5:]) < 0.8 * sum(result.losses[:5])
    assert result.valid < 0.8 * result.losses[0]
    assert f"validation loss {result.valid:.3f}" in capsys.readouterr().out
    assert next(iter(nanogpt.main(said).values())).losses == result.losses


def test_every_optimiser_of_the_plain_gpt_starts_from_the_same_weights_and_batches(
    nanogpt: ModuleType, tmp_path: Path
) -> None:
    """Ours projects the hidden matrices, so only the others see the very same first loss."""
    text = tmp_path / "sea.txt"
    text.write_text("the sea is wide and the boat is small\n" * 30)
    first = {
        name: next(
            iter(
                nanogpt.main(
                    ["--data", str(text), "--optimizer", name, *SMALL_GPT, "--steps", "2"]
                ).values()
            )
        ).losses[0]
        for name in nanogpt.RATES
    }
    assert first["adamw"] == first["muon"] != first["ours"]


def test_several_rates_are_a_grid_and_the_two_lines_are_marked(
    nanogpt: ModuleType, tmp_path: Path
) -> None:
    text = tmp_path / "sea.txt"
    text.write_text("the sea is wide and the boat is small\n" * 30)
    grid = ["--lr", "0.01", "0.02", "--adamw-lr", "0.01", "0.02", "--steps", "2"]
    found = nanogpt.main(["--data", str(text), "--optimizer", "muon", *SMALL_GPT, *grid])
    assert list(found) == [(0.01, 0.01), (0.01, 0.02), (0.02, 0.01), (0.02, 0.02)]
    lines = (ROOT / "examples" / "nanogpt.py").read_text().splitlines()
    marked = [line for line in lines if line.endswith("# modular_manifolds")]
    assert len(marked) == 2
    assert all("mm." in line for line in marked)
    assert sum("mm." in line for line in lines) == 2
