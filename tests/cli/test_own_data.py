"""Data of one's own on the command line, as a new user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from modular_manifolds.cli.main import main
from modular_manifolds.training.run_directory import RunDirectory

SMALL = ["--set", "model.name=mlp", "--set", "model.hidden=[4]"]
TINY_GPT = ["--set", "model.width=8", "--set", "model.depth=1", "--set", "model.heads=2"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs are written below the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two classes of grey images, dark and light."""
    image = pytest.importorskip("PIL.Image", reason="the extra 'datasets' is not installed")
    generator = np.random.default_rng(0)
    for name, least in (("dark", 0), ("light", 120)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(least, least + 130, (8, 8), dtype=np.uint8)
            image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.usefixtures("blank_pictures")
def test_a_folder_of_images_trains_and_its_run_file_repeats_it(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = ["train", "--data", "images", "--data-path", "pictures", "--epochs", "3", *SMALL]
    changing = [*named, "--set", "data.flip=true", "--set", "data.crop=1"]
    assert main([*changing, "--out", "whole"]) == 0
    out = capsys.readouterr().out
    for text in (
        "2 classes (dark, light); 32 images to train and 8 to test of 8×8 pixels, grey; 20% of",
        "learning rate  0.1, the default of steepest-descent for mlp; another one: --set optim",
        "batch          8 of 32 examples a step",
        "accuracy                  100.0% on test",
        "time                      ",
    ):
        assert text in out
    run = RunDirectory(Path("whole")).read_run()
    assert run.data.path == str(pictures)
    assert '"light"' in run.to_json()
    assert "dark" in Path("whole/run.yaml").read_text()
    assert "pixels in [0, 1]" in Path("whole/report.html").read_text()
    assert main(["train", "whole/run.yaml", "--out", "again"]) == 0
    assert Path("again/metrics.jsonl").read_bytes() == Path("whole/metrics.jsonl").read_bytes()
    assert main(["lipschitz", "whole", "--points", "8", "--no-attack"]) == 0
    assert "8 points; radii in pixels in [0, 1]" in capsys.readouterr().out


def test_nothing_half_read_is_trained_on(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = pictures / "light" / "7.png"
    file.write_bytes(file.read_bytes()[:40])
    assert main(["train", "--data", "images", "--data-path", "pictures"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: pictures/light/7.png must be an image that can be read, got ")
    assert not Path("runs").exists()


@pytest.mark.long
@pytest.mark.usefixtures("blank_pictures")
def test_a_text_has_a_rate_that_fits_its_network(capsys: pytest.CaptureFixture[str]) -> None:
    Path("words.txt").write_text("the sea is wide and the boat is small. " * 60)
    named = ["train", "--data", "text", "--data-path", "words.txt", "--steps", "6", *TINY_GPT]
    named += ["--set", "data.context=8", "--set", "data.tokenizer=byte"]
    assert main([*named, "--set", "evaluate_every=4", "--out", "run"]) == 0
    out = capsys.readouterr().out
    for text in (
        "data           words.txt: 2,340 bytes, a vocabulary of 256; 2,106 to train",
        "learning rate  1, the default of steepest-descent for gpt, whose outputs are scaled by 8;",
        "batch          16 of 264 examples a step",
        "\nstep 4/6  lr ",
        "\nepoch 1/1  lr ",
    ):
        assert text in out
    directory = RunDirectory(Path("run"))
    run = directory.read_run()
    assert (run.optimizer.lr, run.batch_size) == (1.0, 16)
    rows = directory.read_metrics()
    assert [row["step"] for row in rows if "test_loss" in row] == [4, 6]
    assert "nats per byte" in directory.report.read_text()


def test_the_budget_and_the_schema_know_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.yaml").write_text("data: {name: images, path: pictures}\n")
    assert main(["budget", "run.yaml"]) == 2
    assert "data.shape must be known for the sizes of the network" in capsys.readouterr().err
    Path("run.yaml").write_text("data: {name: images, classes: [a, b], shape: [3, 32, 32]}\n")
    assert main(["budget", "run.yaml"]) == 0
    assert "lr=1: " in capsys.readouterr().out
    assert main(["schema", "run"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"OwnImagesSpec", "TextSpec"} <= set(schema["$defs"])
