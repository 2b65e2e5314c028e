"""Runs on text: losses, margins, interruptions and the command."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from prose import bigram, prose

import modular_manifolds as mm
from modular_manifolds.cli.main import main
from modular_manifolds.errors import SpecError
from modular_manifolds.specs.data import TextSpec
from modular_manifolds.training.checkpoint import load_trained
from modular_manifolds.training.data import read_data, resolve_with_data
from modular_manifolds.training.loop import resume, start
from modular_manifolds.training.metrics import EpochMetrics, StepMetrics
from modular_manifolds.training.run_directory import RunDirectory, begin
from modular_manifolds.training.sampling import write
from modular_manifolds.training.session import Session
from modular_manifolds.training.text import Text

BIGRAM = """
data: {{name: text, path: {path}, context: 16}}
network:
  type: series
  modules:
  - {{type: embedding, vocabulary: {size}, features: {size}}}
  - type: scale
    module: {{type: linear, in_features: {size}, out_features: {size}, norm: rms_operator}}
    factor: 2.0
optimizer: {{name: steepest-descent, lr: 2.0}}
batch_size: 8
steps: 30
"""


class TestSession:
    def test_the_test_loss_is_that_of_a_loop_over_characters(self, text: Text) -> None:
        generator = torch.Generator().manual_seed(0)
        outputs = torch.randn(text.in_features, text.in_features, generator=generator).double()
        session = Session(mm.RunSpec(data=text.spec), text, net=bigram(outputs))
        tokens = text.test.tokens.tolist()
        logs = outputs.log_softmax(dim=-1)
        pairs = list(pairwise(tokens))
        found = session.measure(text.test)
        assert found.loss == pytest.approx(-sum(float(logs[a, b]) for a, b in pairs) / len(pairs))
        likeliest = outputs.argmax(dim=-1).tolist()
        assert found.accuracy == pytest.approx(
            sum(likeliest[a] == b for a, b in pairs) / len(pairs)
        )

    def test_it_learns_the_pairs_of_characters(self, text: Text) -> None:
        """A bigram model cannot do better than the text's own pairs, and comes near them."""
        run = mm.RunSpec(data=text.spec).override(
            ["steps=150", "batch_size=32", "optimizer.name=adamw", "optimizer.lr=0.3"]
        )
        start = bigram(torch.zeros(text.in_features, text.in_features).double())
        session = Session(run, text, net=start)
        assert session.measure(text.train).loss == pytest.approx(math.log(text.in_features))
        session.advance(session.steps)
        tokens = text.train.tokens.tolist()
        pairs = Counter(pairwise(tokens))
        firsts = Counter(tokens[:-1])
        floor = -sum(count * math.log(count / firsts[a]) for (a, _), count in pairs.items()) / len(
            tokens[1:]
        )
        assert floor < session.measure(text.train).loss < floor + 0.05

    def test_a_margin_is_refused_in_words(self, text: Text) -> None:
        run = mm.RunSpec(data=text.spec).override(["loss.name=margin"])
        with pytest.raises(SpecError, match=r"loss\.name must be cross-entropy for text"):
            Session(run, text, net=bigram(torch.zeros(len(text.classes), len(text.classes))))


class Silent:
    def on_step(self, metrics: StepMetrics) -> None: ...

    def on_epoch(self, metrics: EpochMetrics) -> None: ...


def test_an_interrupted_run_on_text_goes_on_bit_for_bit(
    file: Path, text: Text, tmp_path: Path
) -> None:
    size = text.in_features
    run = resolve_with_data(mm.RunSpec.from_yaml(BIGRAM.format(path=file, size=size)), text)
    weights = []
    for place, stops in (("whole", []), ("part", [5, 22, 25])):
        directory = begin(run, tmp_path / place)
        trainer = start(run, text, directory)
        for stop in stops:
            session = trainer.session
            trainer.stop = lambda session=session, stop=stop: session.finished >= stop
            assert not trainer.run(Silent())
            assert trainer.session.finished == stop
            torch.manual_seed(999)
            spec = directory.read_run()
            trainer = resume(spec, read_data(spec.data), directory)
        assert trainer.run(Silent())
        weights.append((directory.checkpoint.read_bytes(), directory.metrics.read_bytes()))
    assert weights[0] == weights[1]


class TestCommand:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @pytest.mark.usefixtures("blank_pictures")
    def test_a_run_on_text_from_beginning_to_end(
        self, file: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        size = len(set(prose()))
        Path("run.yaml").write_text(BIGRAM.format(path=file, size=size))
        assert main(["train", "run.yaml", "--out", "run"]) == 0
        out = capsys.readouterr().out
        directory = RunDirectory(Path("run"))
        written = directory.sample.read_text()
        for expected in ("epoch 2/2", "What the network writes:", "on training examples"):
            assert expected in out
        assert written in out
        assert "<h2>Sample</h2>" in directory.report.read_text()
        assert "Certified predictions" not in directory.report.read_text()
        # 169 windows a pass, 22 steps an epoch: measured after it and at the end.
        rows = [row for row in directory.read_metrics() if "test_loss" in row]
        assert [(row["step"], row["epoch"]) for row in rows] == [(22, 1), (30, 2)]
        assert rows[1]["test_loss"] < rows[0]["test_loss"] < math.log(size)
        # A finished run is all it takes to write more.
        assert main(["lipschitz", "run"]) == 0
        assert "from l1 to rms: declared 2, certified 2" in capsys.readouterr().out
        spec = directory.read_run().data
        assert isinstance(spec, TextSpec)
        assert write(load_trained(directory), spec, seed=42) == written

    def test_mistakes_are_one_line(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["--data", "text", "--data-path", str(file), "--set", "data.context=16"]
        for more, message in (
            (["train", "--data", "text"], "data path must be given for text"),
            (["train", "--data", "text", "--data-path", "none.txt"], "No such file"),
            (["train", *arguments, "--set", "loss.name=margin"], "must be cross-entropy for text"),
            (["budget", "--set", "data.name=text"], "data.characters must be known"),
            (["lipschitz", "--data", "text", "--points", "5"], "Robustness on text is not defined"),
        ):
            assert main(more) == 2
            captured = capsys.readouterr()
            assert message in captured.err
            assert captured.err.count("\n") == 1
