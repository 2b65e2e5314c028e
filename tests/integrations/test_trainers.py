"""Each trainer trains a small model on real digits, and a run that was interrupted has the bits of one that was not."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from scripts import check_same_bits, example

# Every trainer has warnings of its own, about workers, tiny logs and this machine.
pytestmark = pytest.mark.filterwarnings("ignore")

WELL = 0.85
"""The accuracy that each example reaches within seconds; chance is 0.1."""


@pytest.fixture(autouse=True)
def room_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    # Lightning and Accelerate seed and configure the process.
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("PL_SEED_WORKERS", "0")


def test_a_plain_loop(tmp_path: Path) -> None:
    plain = example("plain_loop")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    assert plain.run(whole, epochs=2) > WELL
    plain.run(broken, epochs=2, stop_after=1)
    plain.run(broken, epochs=2)
    saved = [torch.load(each / "last.pt", weights_only=True) for each in (whole, broken)]
    assert saved[0]["model"].keys() == saved[1]["model"].keys()
    for name, value in saved[0]["model"].items():
        assert torch.equal(value, saved[1]["model"][name]), name


def test_lightning(tmp_path: Path) -> None:
    lightning = example("lightning_module")
    module, accuracy = lightning.run(tmp_path / "whole", epochs=2)
    assert accuracy > WELL
    lightning.run(tmp_path / "broken", epochs=2, stop_after=1)
    (checkpoint,) = (tmp_path / "broken").glob("*.ckpt")
    again, _ = lightning.run(tmp_path / "again", epochs=2, resume=checkpoint)
    check_same_bits(module, again)
    logged = next((tmp_path / "whole").rglob("metrics.csv")).read_text()
    assert "geometry/off_manifold" in logged.splitlines()[0]


def test_hugging_face(tmp_path: Path) -> None:
    trainers = example("hf_trainer")
    more = {"steps": 40, "gradient_accumulation_steps": 2, "max_grad_norm": 1.0}
    whole, accuracy = trainers.run(tmp_path / "whole", **more)
    assert accuracy > WELL
    trainers.run(tmp_path / "broken", stop_after=20, **more)
    again, _ = trainers.run(tmp_path / "broken", **more)
    assert again.state.global_step == 40
    check_same_bits(whole.model, again.model)
    rows = [each for each in whole.state.log_history if "geometry/off_manifold" in each]
    assert [each["step"] for each in rows] == [20, 40]
    assert max(each["geometry/off_manifold"] for each in rows) <= 1e-5


def test_accelerate(tmp_path: Path) -> None:
    accelerated = example("accelerate_loop")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    model, accuracy = accelerated.run(whole, epochs=2)
    assert accuracy > WELL
    first, _ = accelerated.run(broken, epochs=2, stop_after=1)
    first = copy.deepcopy(first)
    again, _ = accelerated.run(broken, epochs=2)
    check_same_bits(model, again)
    assert not torch.equal(first[0].weight, again[0].weight)
