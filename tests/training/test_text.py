"""Text: how it is cut into examples, runs on it, and what a network writes."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import modular_manifolds as mm
from modular_manifolds.cli.main import main
from modular_manifolds.errors import ArgumentError, DataError, NonFiniteError, ShapeError, SpecError
from modular_manifolds.specs.data import TextSpec
from modular_manifolds.training.checkpoint import trained
from modular_manifolds.training.data import read_data, settled
from modular_manifolds.training.loop import resume, start
from modular_manifolds.training.part import order
from modular_manifolds.training.run_directory import RunDirectory, begin
from modular_manifolds.training.sampling import sample, write
from modular_manifolds.training.session import EpochMetrics, Session, StepMetrics
from modular_manifolds.training.text import Text, Vocabulary, Windows, read_text

WORDS = (
    "the",
    "sea,",
    "SEA;",
    "a",
    "boat",
    "lies",
    "at",
    "rest.\nWater",
    "falls",
    "&",
    "grün“",
    "tür\n",
)
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


def prose(characters: int = 3000) -> str:
    words = random.Random(0).choices(WORDS, k=characters)
    return " ".join(words)[:characters]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sea.txt"
    path.write_text(prose(), encoding="utf-8")
    return path


@pytest.fixture
def text(file: Path) -> Text:
    return read_text(TextSpec(name="text", path=str(file), context=16))


class OneHot(mm.Bond):
    """Tokens as coordinate vectors, in float64."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__(sensitivity=1.0)
        self.vocabulary = vocabulary

    def forward(self, x: Tensor) -> Tensor:
        return functional.one_hot(x, self.vocabulary).double()


def bigram(outputs: Tensor) -> mm.Module:
    """The network whose outputs after token i are `outputs[i]`."""
    size = len(outputs)
    linear = mm.Linear(size, size, manifold=mm.Euclidean(), norm=mm.Spectral()).double()
    with torch.no_grad():
        linear.weight.copy_(outputs.T)
    return OneHot(size) >> linear


class TestReading:
    def test_the_text_is_its_two_parts_in_order(self, text: Text) -> None:
        tokens = torch.cat((text.train.tokens, text.test.tokens))
        assert text.vocabulary.decode(tokens) == prose()
        assert len(text.test.tokens) == 300
        assert "".join(text.classes) == "".join(sorted(set(prose())))
        assert text.in_features == len(set(prose())) == int(tokens.max()) + 1

    def test_a_folder_with_one_text_stands_for_it(self, file: Path, text: Text) -> None:
        spec = TextSpec(name="text", path=str(file.parent), context=16)
        assert torch.equal(read_text(spec).test.tokens, text.test.tokens)
        (file.parent / "other.txt").touch()
        with pytest.raises(DataError, match=r"other.txt must hold a text, got an empty file"):
            read_text(spec)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "bad.txt must hold a text, got an empty file. Fill it, or take it away."),
            (b"a" * 169, "must hold at least 170 characters for a context of 16, got 169"),
            (b"good \xff bad" * 100, "must be text in UTF-8, got byte 5 that is not"),
            (None, "must be a readable text file, got .*: No such file"),
        ],
    )
    def test_what_is_no_text_is_refused(
        self, tmp_path: Path, content: bytes | None, message: str
    ) -> None:
        path = tmp_path / "bad.txt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises((DataError, SpecError), match=message):
            read_text(TextSpec(name="text", path=str(path), context=16))

    def test_the_shortest_text_has_a_window_in_each_part(self, tmp_path: Path) -> None:
        (tmp_path / "short.txt").write_text("ab" * 85)
        found = read_text(TextSpec(name="text", path=str(tmp_path), context=16))
        assert (len(found.test), len(found.seen)) == (1, 1)

    def test_no_path_and_an_empty_folder_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="data path must be given for text"):
            read_text(TextSpec(name="text"))
        with pytest.raises(DataError, match="with none"):
            read_text(TextSpec(name="text", path=str(tmp_path)))

    def test_another_text_than_the_runs_own_is_refused(self, file: Path, text: Text) -> None:
        assert read_text(text.spec).spec == text.spec
        file.write_text(prose() + "ß")
        with pytest.raises(DataError, match="must have the characters that the run was started"):
            read_text(text.spec)

    @given(st.text(min_size=1))
    def test_any_text_comes_back(self, written: str) -> None:
        vocabulary = Vocabulary("".join(sorted(set(written))))
        tokens = vocabulary.encode(written)
        assert vocabulary.decode(tokens) == written
        assert [vocabulary.characters[token] for token in tokens] == list(written)

    @pytest.mark.parametrize("strange", ["z", "A", "é", "\U0001f30a"])
    def test_a_strange_character_is_refused(self, strange: str) -> None:
        with pytest.raises(
            DataError, match=f"2 characters that the network knows, got '{strange}'"
        ):
            Vocabulary("ab").encode(f"ab{strange}a")


class TestWindows:
    @given(st.integers(2, 200), st.integers(1, 40), st.integers(1, 5))
    def test_a_pass_has_every_label_once(self, count: int, context: int, size: int) -> None:
        windows = Windows(torch.arange(count), context)
        labels = []
        for inputs, following in windows.batches(size):
            assert torch.equal(inputs + 1, following)
            assert inputs.shape[0] <= size
            assert inputs.shape[1] <= context
            labels += following.flatten().tolist()
        assert labels == list(range(1, count))
        assert len(windows) == math.ceil((count - 1) / context)

    def test_every_start_is_drawn_and_none_beyond_the_end(self) -> None:
        windows = Windows(torch.arange(23), context=20)
        drawn = [torch.cat(order(windows, 2, seed=0, epoch=epoch)) for epoch in range(60)]
        assert {len(each) for each in drawn} == {len(windows)}
        starts = torch.cat(drawn)
        assert set(starts.tolist()) == {0, 1, 2}
        inputs, labels = windows.take(starts)
        assert inputs.shape == labels.shape == (len(starts), 20)
        assert torch.equal(inputs[:, 0], starts)
        assert torch.equal(inputs + 1, labels)


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
    run = settled(mm.RunSpec.from_yaml(BIGRAM.format(path=file, size=size)), text)
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


class TestSampling:
    def test_at_temperature_zero_it_is_the_likeliest(self) -> None:
        net = bigram(4 * torch.eye(5).roll(1, dims=1).double())  # after i comes i + 1
        prompts = torch.tensor([[3], [0]])
        drawn = sample(net, prompts, length=6, context=2, temperature=0)
        assert drawn.tolist() == [[3, 4, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 0, 1]]
        assert prompts.tolist() == [[3], [0]]

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
    def test_tokens_are_drawn_by_their_probability(self, temperature: float) -> None:
        row = torch.tensor([0.0, 1.0, 2.0, -1.0], dtype=torch.float64)
        prompts = torch.zeros(4000, 1, dtype=torch.int64)
        drawn = sample(
            bigram(row.expand(4, 4)), prompts, length=2, context=1, temperature=temperature
        )
        for column in drawn[:, 1:].T:
            seen = torch.bincount(column, minlength=4).double() / len(column)
            # Four standard deviations of a frequency over 4,000 draws are at most 0.032.
            torch.testing.assert_close(seen, (row / temperature).softmax(dim=0), atol=0.032, rtol=0)

    def test_the_network_sees_the_context_and_no_more(self) -> None:
        seen = []

        class Watching(OneHot):
            def forward(self, x: Tensor) -> Tensor:
                seen.append(x.tolist())
                return super().forward(x)

        sample(Watching(3), torch.tensor([[0, 1]]), length=3, context=3, temperature=0)
        assert seen == [[[0, 1]], [[0, 1, 1]], [[1, 1, 1]]]

    def test_a_seed_decides(self, text: Text) -> None:
        net = bigram(torch.zeros(text.in_features, text.in_features).double())
        torch.manual_seed(1)
        first = write(net, text.spec, "the ", length=40, seed=3)
        torch.manual_seed(2)
        assert write(net, text.spec, "the ", length=40, seed=3) == first
        assert write(net, text.spec, "the ", length=40, seed=4) != first
        assert len(first) == 40

    def test_mistakes_are_refused(self, text: Text) -> None:
        net = bigram(torch.zeros(text.in_features, text.in_features).double())
        with pytest.raises(DataError, match="characters that the network knows, got '€'"):
            write(net, text.spec, "a €")
        with pytest.raises(ArgumentError, match=r"write\(prompt\) must hold a character"):
            write(net, text.spec, "")
        with pytest.raises(ArgumentError, match="must hold the characters of the text"):
            write(net, TextSpec(name="text"))
        prompt = torch.zeros(1, 1, dtype=torch.int64)
        for temperature in (-1.0, math.nan, math.inf):
            with pytest.raises(ArgumentError, match=r"sample\(temperature\) must be finite"):
                sample(net, prompt, length=1, context=1, temperature=temperature)
        with pytest.raises(ArgumentError, match=r"sample\(length\) must be at least 0, got -1"):
            sample(net, prompt, length=-1, context=1)
        with pytest.raises(ShapeError, match=r"sample\(prompts\)"):
            sample(net, prompt[:, :0], length=1, context=1)

    def test_an_output_that_is_not_finite_is_refused(self) -> None:
        net = bigram(torch.full((3, 3), torch.nan).double())
        with pytest.raises(NonFiniteError, match="the network's outputs must be finite"):
            sample(net, torch.zeros(1, 1, dtype=torch.int64), length=2, context=1)


class TestCommand:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

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
        assert "What it writes" in directory.report.read_text()
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
        assert write(trained(directory), spec, seed=42) == written

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
