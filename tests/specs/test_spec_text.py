"""YAML and JSON are read as they are written, and bad text is refused with its position."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modular_manifolds.errors import SpecError
from modular_manifolds.specs import NetworkSpec, RunSpec
from modular_manifolds.specs.text import dump_yaml, parse_json, parse_yaml


class TestText:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-3", 1e-3),
            ("-2E+4", -2e4),
            (".5", 0.5),
            ("3.", 3.0),
            ("10", 10),
            ("+7", 7),
            ("010", "010"),
            ("1:30", "1:30"),
            ("1_000", "1_000"),
            ("no", "no"),
            ("on", "on"),
            ("2020-01-01", "2020-01-01"),
            ("TRUE", True),
            ("~", None),
            ("", None),
            ("{1: 2, no: 3}", {"1": 2, "no": 3}),
            ("{<<: {a: 1}}", {"<<": {"a": 1}}),
        ],
    )
    def test_scalars(self, text: str, value: object) -> None:
        parsed = parse_yaml(text)
        assert parsed == value
        assert type(parsed) is type(value)

    @given(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False)
            | st.text(
                st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029"), max_size=8
            )
            | st.from_regex(r"[-+]?[0-9._:eE]{1,6}", fullmatch=True)
            | st.sampled_from(["yes", "no", "null", "~", "1e3", "0x1f", "<<", "=", ".inf", "1_0"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text("abcno1e~.-<", max_size=4), inner, max_size=3)
            ),
            max_leaves=8,
        )
    )
    def test_what_is_written_is_read(self, data: object) -> None:
        assert parse_yaml(dump_yaml(data)) == data
        assert yaml.safe_load(dump_yaml(data)) == data
        assert parse_json(json.dumps(data)) == data

    @pytest.mark.parametrize(
        ("text", "position"),
        [
            (
                "epochs: 3\nseed: 1\nepochs: 4",
                "got the key 'epochs' a second time at line 3, column 1",
            ),
            ("data: {name: digits, name: cifar10}", "at line 1, column 22"),
            ("epochs: [", "at line 1, column 10"),
            ("epochs: 1\n  seed: 2", "at line 2, column 7"),
            ("? [a]\n: 1", "got a key that is not text at line 1, column 3"),
            ("seed: !!python/object/apply:os.getcwd []", "at line 1, column 7"),
            ("seed: *other", "at line 1, column 7"),
            ("seed: 1\x00", "unacceptable character"),
            ("seed: " + "1" * 5000, "integer string conversion"),
            ("[" * 5000, "recursion"),
        ],
    )
    def test_bad_yaml(self, text: str, position: str) -> None:
        with pytest.raises(SpecError) as caught:
            RunSpec.from_yaml(text)
        message = str(caught.value)
        assert message.startswith("the YAML text must be valid YAML, got ")
        assert position in message
        assert message.endswith(". Mend the YAML there.")
        assert "\n" not in message

    @pytest.mark.parametrize(
        ("text", "position"),
        [
            ('{"seed": 1, "seed": 2}', "the key 'seed' a second time"),
            ('{"seed": }', "at line 1, column 10"),
            ('{"seed": 1,\n"epochs"}', "at line 2, column 9"),
            ("[" * 100_000, "recursion"),
        ],
    )
    def test_bad_json(self, text: str, position: str) -> None:
        with pytest.raises(SpecError) as caught:
            RunSpec.model_validate_json(text)
        assert str(caught.value).startswith("the JSON text must be valid JSON, got ")
        assert position in str(caught.value)

    def test_a_network_that_holds_itself(self) -> None:
        with pytest.raises(SpecError, match=r"module must not contain itself, got .*\. Write"):
            NetworkSpec.from_yaml("&x {type: scale, factor: 2, module: *x}")

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        missing = tmp_path / "missing.yaml"
        with pytest.raises(SpecError) as caught:
            RunSpec.from_file(missing)
        assert str(caught.value) == (
            f"{missing} must be a readable file, got No such file or directory. Check the path."
        )
        with pytest.raises(SpecError, match="must be a readable file, got Is a directory"):
            RunSpec.from_file(tmp_path)
        binary = tmp_path / "binary.yaml"
        binary.write_bytes(b"seed: \xff")
        with pytest.raises(SpecError, match="must be text in UTF-8, got byte 6 that is not"):
            RunSpec.from_file(binary)
        with pytest.raises(SpecError, match="the JSON text must be text in UTF-8"):
            RunSpec.model_validate_json(b"\xff")

    @pytest.mark.parametrize("name", ["run.yaml", "run.json"])
    def test_a_byte_order_mark_is_no_text(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_bytes(b'\xef\xbb\xbf{"seed": 5}')
        assert RunSpec.from_file(path).seed == 5
