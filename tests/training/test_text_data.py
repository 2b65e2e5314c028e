"""Text is cut into windows, and strange files are refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prose import prose

from modular_manifolds.errors import DataError, SpecError
from modular_manifolds.specs.data import TextSpec
from modular_manifolds.training.part import order
from modular_manifolds.training.text import Text, Vocabulary, Windows, read_text


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
        assert (len(found.test), len(found.train_sample)) == (1, 1)

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
