"""Reading and writing YAML and JSON with texts, numbers, lists and mappings only.

YAML follows the core schema of YAML 1.2: `1e-3` is a number, `no` is a text, every key is a text, and duplicate keys are
refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

import yaml

from modular_manifolds.errors import SpecError
from modular_manifolds.specs.extent import MAX_FILE_BYTES, MAX_LINES

FLOAT: Final = re.compile(
    r"^(?:[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?"
    r"|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))$"
)
RESOLVERS: Final[tuple[tuple[str, re.Pattern[str], list[str]], ...]] = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")),
    ("float", FLOAT, list("-+0123456789.")),
)
"""Plain scalars that are not texts: tag, pattern, possible first characters."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key that is not text", key.start_mark
                )
            if key.value in mapping:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' a second time", key.start_mark
                )
            mapping[key.value] = self.construct_object(value, deep=deep)
        return mapping


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in RESOLVERS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _pattern, _first)
# Quote texts that are numbers in YAML 1.2 but not in PyYAML's 1.1.
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def parse_yaml(text: str, *, name: str = "the YAML text") -> Any:
    """The data that `text` writes.

    Raises:
        SpecError: it is not YAML; the message has line and column. Or it is too long.
    """
    # Check the length first: PyYAML reads about 20,000 values a second.
    amount = text.count("\n") + text.count(",")
    if amount > MAX_LINES:
        raise SpecError(
            name,
            f"must have at most {MAX_LINES:,} lines and commas",
            f"{amount:,}",
            "Write a repeated module as a power, or the specification as JSON.",
        )
    try:
        # A loader that constructs only text, numbers, lists and mappings.
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _not_readable(
            name, "YAML", error.problem or "no YAML", mark and (mark.line, mark.column)
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _not_readable(name, "YAML", str(error).splitlines()[0], None) from None


def parse_json(text: str, *, name: str = "the JSON text") -> Any:
    """The data that `text` writes.

    Raises:
        SpecError: it is not JSON, or has duplicate keys; the message has line and column if known.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise _not_readable(name, "JSON", error.msg, (error.lineno - 1, error.colno - 1)) from None
    except (ValueError, RecursionError) as error:
        raise _not_readable(name, "JSON", str(error), None) from None


def read(path: str | Path) -> Any:
    """The data in a file: JSON if its name ends in `.json`, YAML otherwise.

    Raises:
        SpecError: the file cannot be read, or is not what its name says.
    """
    try:
        with Path(path).open("rb") as file:
            # A limited read, because some files, such as /dev/zero, are endless.
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        # A path with a zero byte is a ValueError.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SpecError(str(path), "must be a readable file", reason, "Check the path.") from None
    if len(raw) > MAX_FILE_BYTES:
        raise SpecError(
            str(path),
            f"must be a specification of at most {MAX_FILE_BYTES // 2**20} MiB",
            "a larger file",
            "Write a repeated module as a power, or check the path.",
        )
    parse = parse_json if Path(path).suffix == ".json" else parse_yaml
    return parse(decoded(raw, str(path)), name=str(path))


def decoded(raw: bytes | bytearray, name: str) -> str:
    """The text that `raw` encodes.

    Raises:
        SpecError: it is not UTF-8.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = f"byte {error.start} that is not"
        raise SpecError(name, "must be text in UTF-8", at, "Save it as UTF-8.") from None


def dump_yaml(data: Any) -> str:
    """YAML that `parse_yaml` and other YAML readers convert back to `data`."""
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
    )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"the key '{key}' a second time")
        mapping[key] = value
    return mapping


def _not_readable(
    name: str, language: str, problem: str, position: tuple[int, int] | None
) -> SpecError:
    line, column = position or (0, 0)
    at = f" at line {line + 1}, column {column + 1}" if position else ""
    return SpecError(
        name, f"must be valid {language}", f"{problem}{at}", f"Mend the {language} there."
    )
