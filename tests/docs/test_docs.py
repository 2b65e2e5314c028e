"""The documentation is a tested surface: its code runs, its output is what it prints, its commands exist."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest
import torch
import typer.main
from modular_manifolds_bench.command import app as bench_app
from pages import DOCS, FENCE, PAGES, name_of
from typer.core import TyperGroup

from modular_manifolds.cli.main import app, main

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
NO_RUN = re.compile(r"<!-- no-run: .+ -->\s*$")
"""Before a block that is not run, with the reason. (A second word after ``` would break the site.)"""
VARIES = "<!-- varies -->"
"""Before an output: its numbers depend on the machine, so only the words around them are compared."""


@dataclass(frozen=True)
class Example:
    """A Python block and the output printed below it, if any."""

    line: int
    code: str
    output: str | None
    varies: bool


def examples(text: str) -> Iterator[Example]:
    """The Python blocks that run; an output is a `text` block with nothing between but the mark."""
    blocks = list(FENCE.finditer(text))
    for block, after in zip_longest(blocks, blocks[1:]):
        if block["info"].strip() != "python" or NO_RUN.search(text[: block.start()]):
            continue
        output, varies = None, False
        if after is not None and after["info"].strip() == "text":
            between = text[block.end() : after.start()].strip()
            if between in ("", VARIES):
                output, varies = after["body"], between == VARIES
        line = text.count("\n", 0, block.start()) + 1
        yield Example(line, block["body"], output, varies)


def words(output: str) -> list[str]:
    """Words that must agree if the numbers may differ: columns and rules change with their width."""
    return re.sub(r"-+", "-", NUMBER.sub("0", output)).split()


def commands(page: Path) -> list[tuple[list[str], str]]:
    """The commands of the `console` blocks, each as its words and the output shown below it.

    In a block without a prompt every line is a command. A backslash continues a line.
    """
    found: list[tuple[list[str], str]] = []
    for block in FENCE.finditer(page.read_text()):
        if block["info"].strip() != "console":
            continue
        body = re.sub(r" \\\n +", " ", block["body"])
        prompt = r"^\$ " if body.startswith("$ ") else "^"
        for shown in re.split(prompt, body, flags=re.MULTILINE):
            for line in shown.split("\n", 1)[0].split(" && "):
                said = shlex.split(line.split(">")[0])
                if said[:1] == ["modular-manifolds"]:
                    found.append((said[1:], shown.partition("\n")[2]))
    return found


def options_of(subcommand: str) -> set[str]:
    """Every option that may be written after a subcommand; a switch has a second name, such as --no-attack."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.commands[subcommand]
    known = (typer.main.get_command(bench_app) if subcommand == "bench" else command).params
    return {"--debug", *(name for each in known for name in (*each.opts, *each.secondary_opts))}


def cells(output: str) -> list[str]:
    """The words of a table on the terminal without its rules."""
    return re.findall(r"[^\s┃━╇│]+", output)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The matrices are small: several threads in each of several processes wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def with_examples() -> list[Path]:
    return [page for page in PAGES if any(examples(page.read_text()))]


@pytest.mark.seeds_as_written
@pytest.mark.parametrize("page", with_examples(), ids=name_of)
@pytest.mark.usefixtures("table_kept", "one_thread")
def test_the_examples_of_a_page_run_in_order_and_print_what_it_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace: dict[str, object] = {"__name__": "page"}
    for example in examples(page.read_text()):
        where = f"{name_of(page)}:{example.line}"
        printed = io.StringIO()
        # Leading empty lines give a traceback the page's own line numbers.
        code = compile("\n" * example.line + example.code, name_of(page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if example.output is None:
            continue
        if example.varies:
            assert words(printed.getvalue()) == words(example.output), where
        else:
            assert printed.getvalue().strip() == example.output.strip(), where


def test_pages_with_examples_are_found() -> None:
    found = {name_of(page) for page in with_examples()}
    assert {"README.md", "docs/index.md", "docs/composition.md", "docs/extending.md"} <= found


def test_an_output_block_belongs_to_the_code_right_above_it() -> None:
    page = (
        "```python\n1\n```\n\n```text\none\n```\n\nwords\n\n```text\ntwo\n```\n\n"
        f"```python\n2\n```\n{VARIES}\n```text\nthree\n```\n\n<!-- no-run: a reason -->\n```python\n3\n```\n"
        "```python no-run\n4\n```\n"
    )
    assert [(e.code, e.output, e.varies) for e in examples(page)] == [
        ("1\n", "one\n", False),
        ("2\n", "three\n", True),
    ]


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name_of)
def test_a_block_of_code_says_its_language_in_one_word(page: Path) -> None:
    for block in FENCE.finditer(page.read_text()):
        assert re.fullmatch(r"\w+", block["info"]), f"{name_of(page)}: {block['info']!r}"


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=name_of)
def test_commands_name_subcommands_and_options_that_exist(page: Path) -> None:
    for said, _ in commands(page):
        assert {word for word in said if word.startswith("--")} <= options_of(said[0]), said


def test_the_second_name_of_a_switch_is_an_option_too() -> None:
    assert {"--attack", "--no-attack", "--debug"} <= options_of("lipschitz")
    assert "--no-figure" not in options_of("lipschitz")


def test_the_budget_that_a_page_shows_is_the_one_that_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = [each for each in commands(DOCS / "command_line.md") if each[0][0] == "budget"]
    assert len(shown) == 2
    for said, output in shown:
        code = main(said)
        printed = capsys.readouterr()
        assert code == (2 if output.startswith("error:") else 0)
        assert cells(printed.out + printed.err) == cells(output)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_no_path_of_the_machine_they_were_written_on(page: Path) -> None:
    text = page.read_text()
    for path in ("/tmp", "/home/", "/root", "/Users/"):
        assert path not in text
