"""Texts of one's own: folders, tables, and the three kinds of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import modular_manifolds as mm
from modular_manifolds.errors import DataError, SpecError
from modular_manifolds.specs.data import TextSpec
from modular_manifolds.training.data import read_data, resolve_with_data
from modular_manifolds.training.sampling import write
from modular_manifolds.training.session import Session
from modular_manifolds.training.text import Text, read_text
from modular_manifolds.training.tokens import Bytes, Vocabulary

WORDS = "the sea is wide and the boat is small. "


def read(path: Path | str, **settings: Any) -> Text:
    return read_text(TextSpec(name="text", path=str(path), context=4, **settings))


def whole(text: Text) -> str:
    return text.tokens.decode(torch.cat((text.train.tokens, text.test.tokens)))


class TestFolders:
    def test_all_texts_are_read_in_order_each_ending_its_line(self, tmp_path: Path) -> None:
        for name, content in (
            ("b.txt", WORDS),
            ("a/z.md", WORDS + "\n"),
            ("a/c.TXT", WORDS),
            ("a/picture.png", "no text"),
            (".hidden/d.txt", "hidden"),
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(content)
        text = read(tmp_path)
        assert whole(text) == f"{WORDS}\n{WORDS}\n{WORDS}"
        assert text.summary.startswith("3 files: 119 characters, ")
        assert torch.equal(read(tmp_path, tokenizer="byte").train.tokens[:3], ord_row("the"))

    def test_a_folder_without_texts_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "picture.png").touch()
        with pytest.raises(DataError, match=r"a folder with text files \(\.txt, .* with none"):
            read(tmp_path)

    def test_an_empty_text_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text(WORDS * 9)
        (tmp_path / "b.txt").touch()
        with pytest.raises(DataError, match=r"b\.txt must hold a text, got an empty file"):
            read(tmp_path)

    def test_texts_that_are_too_short_together_are_refused(self, tmp_path: Path) -> None:
        for name in ("a.txt", "b.txt"):
            (tmp_path / name).write_text("short")
        message = "the 2 texts together must hold at least 50 characters for a context of 4, got 11"
        with pytest.raises(DataError, match=message):
            read(tmp_path)


def ord_row(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode()))


class TestBytes:
    @given(st.text())
    def test_any_text_comes_back(self, text: str) -> None:
        assert Bytes().decode(Bytes().encode(text)) == text

    def test_any_file_is_a_text_of_bytes(self, tmp_path: Path) -> None:
        file = tmp_path / "latin.txt"
        file.write_bytes("grün ".encode("latin-1") * 30)
        message = (
            r"latin.txt must be text in UTF-8, got byte 2 that is not\. .* data.tokenizer=byte"
        )
        with pytest.raises(SpecError, match=message):
            read(file)
        text = read(file, tokenizer="byte")
        assert (text.in_features, len(text.classes)) == (256, 256)
        assert text.train.tokens[:5].tolist() == [103, 114, 252, 110, 32]
        assert text.spec.sizes == (256, 256, None)

    def test_a_network_writes_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text(WORDS * 9)
        net = mm.Embedding(256, 8) >> mm.Linear(8, 256, norm=mm.RMSOperator())
        text = read(tmp_path, tokenizer="byte")
        assert write(net, text.spec, length=5)


class TestTokenizerFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        """A file of three words and an unknown one, which cuts and fills texts up to two tokens."""
        tokenizers = pytest.importorskip("tokenizers", reason="no extra 'tokenizers'")
        words = {"the": 0, "sea": 1, "boat": 2, "?": 3}
        model = tokenizers.models.WordLevel(words, unk_token="?")
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        tokenizer.enable_truncation(2)
        tokenizer.enable_padding(length=2)
        path = tmp_path / "tokenizer.json"
        tokenizer.save(str(path))
        (tmp_path / "sea.txt").write_text("the sea the boat and " * 20)
        return path

    def test_the_whole_text_becomes_its_tokens(self, file: Path) -> None:
        text = read(file.parent, tokenizer=str(file))
        tokens = torch.cat((text.train.tokens, text.test.tokens)).tolist()
        assert tokens == [0, 1, 0, 2, 3] * 20
        assert text.classes == ("the", "sea", "boat", "?")
        assert text.spec.vocabulary == 4
        assert text.summary.split(": ", 1)[1].startswith("100 tokens, a vocabulary of 4")
        assert write(OneHot(4), text.spec, "sea", length=3, temperature=0) == "sea sea sea"

    def test_it_stays_the_runs_own(self, file: Path) -> None:
        text = read(file.parent, tokenizer=str(file))
        assert read_text(text.spec).spec == text.spec
        file.write_text(file.read_text().replace("sea", "see"))
        with pytest.raises(DataError, match="must be the tokenizer that the run was started with"):
            read_text(text.spec)

    def test_what_is_no_tokenizer_is_refused(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(DataError, match=r"data.tokenizer must be a file that can be read"):
            read(file.parent, tokenizer="no.json")
        file.write_text("{}")
        with pytest.raises(DataError, match=r"must be a tokenizer.json of the library tokenizers"):
            read(file.parent, tokenizer=str(file))
        monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
        with pytest.raises(DataError, match=r"pip install 'modular-manifolds\[tokenizers\]'"):
            read(file.parent, tokenizer=str(file))
        message = "data.tokenizer must be char, byte or a file whose name ends in .json, got 'bpe'"
        with pytest.raises(SpecError, match=message):
            mm.RunSpec.model_validate({"data": {"name": "text", "tokenizer": "bpe"}})

    def test_its_path_holds_from_any_folder(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(file.parent)
        spec = TextSpec(name="text", path="sea.txt", tokenizer="tokenizer.json")
        assert spec.with_absolute_path().tokenizer == str(file)
        hub = TextSpec(name="text", path="hf:a/b").with_absolute_path()
        assert (hub.path, hub.tokenizer) == ("hf:a/b", "char")


class OneHot(mm.Bond):
    """Outputs that are largest at the token itself."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__(sensitivity=1.0)
        self.vocabulary = vocabulary

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(x, self.vocabulary).float()


def test_a_table_of_the_hub_is_a_text_a_row_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    table = datasets.Dataset.from_dict({"text": [WORDS, WORDS], "number": [1, 2]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: {"train": table})
    assert whole(read("hf:sea")) == f"{WORDS}\n{WORDS}"
    with pytest.raises(DataError, match="hf:sea must have the column words, got text, number"):
        read("hf:sea", text_column="words")
    with pytest.raises(DataError, match="hf:sea, row 0 must hold text in the column number"):
        read("hf:sea", text_column="number")


def test_every_kind_of_token_trains(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(WORDS * 9)
    for kind in ("char", "byte"):
        run = mm.RunSpec.model_validate(
            {
                "data": {"name": "text", "path": str(tmp_path), "context": 4, "tokenizer": kind},
                "model": {"name": "gpt", "width": 8, "depth": 1, "heads": 2},
                "steps": 2,
            }
        )
        data = read_data(run.data)
        assert Session(resolve_with_data(run, data), data).advance(2)[-1].loss > 0
    assert isinstance(read(tmp_path).tokens, Vocabulary)
