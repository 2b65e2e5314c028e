"""The documentation is a tested surface: its code runs, its output is what it prints, its links lead somewhere."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path

import pytest
import torch
import typer.main
import yaml
from modular_manifolds_bench.baselines import BASELINES
from modular_manifolds_bench.command import app as bench_app
from typer.core import TyperGroup

import modular_manifolds as mm
from modular_manifolds.cli.main import app, main
from modular_manifolds.specs import table

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

tables_file = importlib.util.spec_from_file_location("tables", DOCS / "tables.py")
assert tables_file is not None
assert tables_file.loader is not None
tables = importlib.util.module_from_spec(tables_file)
tables_file.loader.exec_module(tables)

PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])

FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
NO_RUN = re.compile(r"<!-- no-run: .+ -->\s*$")
"""Before a block that is not run, with the reason. (A second word after ``` would break the site.)"""
VARIES = "<!-- varies -->"
"""Before an output: its numbers depend on the machine, so only the words around them are compared."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(text: str) -> str:
    """The page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


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
    """What must agree where the numbers may differ: columns and rules change with their width."""
    return re.sub(r"-+", "-", NUMBER.sub("0", output)).split()


def commands(page: Path) -> list[tuple[list[str], str]]:
    """The commands of the `console` blocks, each as its words and the output shown below it.

    In a block without a prompt every line is a command.
    """
    found: list[tuple[list[str], str]] = []
    for block in FENCE.finditer(page.read_text()):
        if block["info"].strip() != "console":
            continue
        prompt = r"^\$ " if block["body"].startswith("$ ") else "^"
        for shown in re.split(prompt, block["body"], flags=re.MULTILINE):
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
def table_kept() -> Iterator[None]:
    """A page may add a row to the table of solvers; the other tests must not see it."""
    before = set(mm.solvers.TABLE)
    yield
    for added in set(mm.solvers.TABLE) - before:
        del mm.solvers.TABLE[added]


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


def rows_below(page: Path, header: str) -> list[list[str]]:
    """The cells of the table whose header line starts with `header`, without its code marks."""
    lines = page.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    rows: list[list[str]] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    return rows


@pytest.mark.parametrize("name", tables.PAGES)
def test_generated_tables_are_those_of_the_rows(name: str) -> None:
    text = (ROOT / name).read_text()
    assert tables.refreshed(text) == text, "run `python docs/tables.py` to refresh the pages"


def test_every_generated_table_stands_on_a_page() -> None:
    text = "".join((ROOT / name).read_text() for name in tables.PAGES)
    assert {found["name"] for found in tables.PART.finditer(text)} == set(tables.TABLES)


@pytest.mark.usefixtures("table_kept")
def test_a_new_row_is_on_the_pages_when_they_are_refreshed() -> None:
    class Rotations(mm.Stiefel):
        pass

    solver = mm.solvers.TangentGradient()
    mm.solvers.register(Rotations, mm.Frobenius, solver, method="turning")
    for name, row in (
        ("docs/ideas/methods.md", "| `Rotations` | `Frobenius` | turning |"),
        ("docs/solvers.md", "| `Rotations` | `Frobenius` | `tangent-gradient` | turning |"),
    ):
        text = (ROOT / name).read_text()
        assert row not in text
        assert row in tables.refreshed(text).splitlines()


def test_baselines_are_on_their_page() -> None:
    rows = rows_below(DOCS / "baselines.md", "| name | class | method |")
    in_code = [[each.name, type(each).__name__] for each in BASELINES]
    assert [row[:2] for row in rows] == in_code


def test_the_table_of_types_names_every_type_that_specifications_know() -> None:
    lines = (DOCS / "specs.md").read_text().splitlines()
    listed = [line.split("|")[1] for line in lines if line.startswith("| `")]
    types = set(re.findall(r"`(\w+)`", " ".join(listed)))
    known = {*table.MANIFOLDS, *table.NORMS, *table.MODULES, *table.COMPOUNDS, "power"}
    assert known <= types


def test_the_tables_of_modules_name_every_atom_and_bond() -> None:
    for base, column in ((mm.Atom, "atom"), (mm.Bond, "bond")):
        rows = rows_below(DOCS / "modules.md", f"| {column} | computes |")
        written = {name for row in rows for name in row[0].split(", ")}
        assert written == {
            each.__name__ for each in table.MODULES.values() if issubclass(each, base)
        }


@pytest.mark.parametrize("kind", ["manifolds", "norms"])
def test_every_manifold_and_norm_has_a_page_that_the_index_links(kind: str) -> None:
    index = (DOCS / kind / "index.md").read_text()
    linked = set(re.findall(r"\((\w+)\.md\)", index))
    files = {each.stem for each in (ROOT / "modular_manifolds" / kind).glob("*.py")}
    shared = {"__init__", "base", "directions"}
    assert linked == files - shared
    assert linked == {each.stem for each in (DOCS / kind).glob("*.md")} - {"index"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page.read_text())):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in anchors(there), f"{name_of(page)}: {target}"


def anchors(page: Path) -> set[str]:
    """The headings of a page as mkdocs names them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def test_every_page_is_in_the_menu_and_every_entry_is_a_page() -> None:
    def entries(part: object) -> Iterator[str]:
        match part:
            case str():
                yield part
            case list():
                for each in part:
                    yield from entries(each)
            case dict():
                for each in part.values():
                    yield from entries(each)

    menu = set(entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert menu == pages


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_has_two_headings_alike(page: Path) -> None:
    headings = re.findall(r"^(#+ .+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    assert len(set(headings)) == len(headings)


def test_every_directive_of_the_reference_stands_apart() -> None:
    """A directive glued to the line above it is not read as one."""
    lines = (DOCS / "api.md").read_text().splitlines()
    assert all(not before.strip() for before, line in pairwise(lines) if line.startswith(":::"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_name_no_path_of_the_machine_they_were_written_on(page: Path) -> None:
    text = page.read_text()
    for path in ("/tmp", "/home/", "/root", "/Users/"):
        assert path not in text
