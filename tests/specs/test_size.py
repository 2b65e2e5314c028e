"""Specifications that ask for more than a machine has are refused before anything is made of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cases
import pytest
import torch
from large import nested, network

import modular_manifolds as mm
from modular_manifolds.cli.main import main
from modular_manifolds.errors import ArgumentError, CheckpointError, SpecError
from modular_manifolds.specs import NetworkSpec, extent, memory
from modular_manifolds.specs.data import SIZES, Sizes
from modular_manifolds.specs.extent import MAX_NESTING_LEVELS, check_extent
from modular_manifolds.specs.models import COUNTS, MODELS, SPECS
from modular_manifolds.specs.size import modules_of, size_of, weights_of
from modular_manifolds.training.sweep.plan import Arm, Plan, Size, parse_sizes

LINEAR = "{type: linear, in_features: 64, out_features: 64}"
WIDE = "{type: linear, in_features: 64, out_features: 300000000000}"
SOON: float = 5.0
"""Seconds in which a refusal comes on a machine that does much besides; alone it takes a tenth of one."""

LAUGHS = "\n".join(
    ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40))]
)
TOO_LARGE = {
    "a weight": (network("{type: linear, in_features: 100000000, out_features: 100000000}"), "entries in its weights"),
    "a weight beyond torch": (network(f"{{type: linear, in_features: {10**18}, out_features: 64}}"), "fewer than 2^59"),
    "a number beyond any word": (network(f"{{type: linear, in_features: {10**40}, out_features: 64}}"), "below 2^64"),
    "a number of 400 digits": (f"batch_size: 1{'0' * 400}", "batch_size must be a number below 2^64"),
    "an embedding": (network(f"{{type: embedding, vocabulary: 64, features: {10**13}}}"), "entries in its weights"),
    "a convolution": (network(f"{{type: conv2d, in_channels: 1, out_channels: 10, kernel_size: {10**9}, size: {10**9}}}"), "fewer than 2^59"),
    "a power": (network(f"{{type: power, times: 1000000, module: {LINEAR}}}"), "at most 10,000 modules, got 1,000,001"),
    "a power of powers": (network("{type: power, times: 1000, module: {type: power, times: 1000, module: relu}}"), "at most 10,000 modules"),
    "a power in parts": (network("{type: sum, modules: {a: relu, b: {type: scale, factor: 2, module: {type: power, times: 20000, module: relu}}}}"), "at most 10,000 modules, got 20,004"),
    "repeated weights": (network(f"{{type: power, times: 100, module: {WIDE}}}"), "entries in its weights"),
    "a width": ("model: {name: residual-mlp, width: 100000000}", "model must have at most"),
    "a depth": ("model: {name: residual-mlp, depth: 1000000000}", "at most 10,000 modules"),
    "stages": ("model: {name: convnet, depth: 1000000000}", "at most 10,000 modules"),
    "a language model": (f"data: {{name: text, characters: abc}}\nmodel: {{name: gpt, depth: {10**6}}}", "at most 10,000 modules"),
    "hidden layers": (f"model: {{name: mlp, hidden: [{'1,' * 1_000_000}1]}}", "at most 400,000 lines and commas"),
    "aliases": (LAUGHS, "aliases written out"),
    "depth": (network("{type: scale, factor: 2, module: " * 200 + LINEAR + "}" * 200), "lists and mappings deep"),
    "bytes": ("x: " + "a" * 2**24, "at most 16 MiB"),
    "threads": ("threads: 1000000000", "threads must be at most 1024"),
}  # fmt: skip


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_file_that_asks_for_too_much_is_one_line_and_code_two(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, message = TOO_LARGE[name]
    file = tmp_path / "run.yaml"
    file.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    begun = time.monotonic()
    assert main(["budget", "run.yaml"]) == 2
    assert time.monotonic() - begun < SOON
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert len(captured.err) < 400
    assert [each.name for each in tmp_path.iterdir()] == ["run.yaml"]


@pytest.mark.parametrize("command", ["train", "lipschitz", "sweep"])
def test_what_needs_memory_is_held_to_this_machines(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The budget needs none: it is printed for a network that no machine here could hold."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "machine_memory", lambda: 2**20)
    wide = ["--set", "model.name=mlp", "--set", "model.hidden=[100000]"]
    assert main(["budget", *wide]) == 0
    assert "2.weight" in capsys.readouterr().out
    (tmp_path / "run.yaml").write_text("model: {name: mlp, hidden: [100000]}", encoding="utf-8")
    assert main([command, "run.yaml"]) == 2
    assert (
        "must fit into the 1 MiB of memory here, got 7,400,000 entries" in capsys.readouterr().err
    )
    assert [each.name for each in tmp_path.iterdir()] == ["run.yaml"]


def test_the_limits_are_the_callers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = NetworkSpec.from_yaml(f"{{type: power, times: 30, module: {LINEAR}}}")
    with pytest.raises(SpecError, match=r"^the network must have at most 30 modules, got 31\. "):
        spec.build(max_modules=30)
    with pytest.raises(SpecError, match=r"at most 122,879 entries in its weights, got 122,880\. "):
        spec.build(max_weights=30 * 64 * 64 - 1)
    mm.save(spec.build(max_modules=31, max_weights=30 * 64 * 64), tmp_path / "net")
    with pytest.raises(CheckpointError, match=r"net: the network must have at most 30 modules"):
        mm.load(tmp_path / "net", max_modules=30)
    run = mm.RunSpec().override(["model.name=residual-mlp", "model.depth=2500"])
    with pytest.raises(SpecError, match=r"^model must have at most 10,000 modules, got 10,004\. "):
        run.resolved()
    few = mm.RunSpec().override(["max_modules=5"])
    with pytest.raises(SpecError, match="at most 5 modules, got 6"):
        few.resolved()
    assert few.override(["max_modules=6"]).resolved().network is not None
    # Whoever says a number of weights may try them, whatever the machine says.
    monkeypatch.setattr(memory, "machine_memory", lambda: 1)
    with pytest.raises(SpecError, match="must fit into the 1 bytes of memory here"):
        spec.build()
    assert spec.build(max_weights=10**6).mass == 30


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("more", [{}, {"depth": 3}])
def test_the_modules_of_a_model_are_bounded_before_it_is_built(
    name: str, more: dict[str, Any]
) -> None:
    model = SPECS[name](name=name, **({"hidden": (5, 4, 3)} if more and name == "mlp" else more))
    net = model.build(SIZES["digits"] if name == "convnet" else Sizes(7, 7))
    assert net.tree() is not None
    modules = sum(1 for _ in net.modules())
    assert modules <= COUNTS[name](model) <= 2 * modules
    spec = NetworkSpec.from_module(net)
    assert size_of(spec.root) == weights_of(net)
    assert modules_of(spec.root) == modules


@pytest.mark.parametrize("case", cases.MODULES, ids=cases.name)
def test_a_network_without_values_has_the_same_budget_and_specification(
    case: cases.ModuleCase,
) -> None:
    net = case.build()
    spec = NetworkSpec.from_module(net)
    shapes = spec.build_without_weights()
    assert all(each.is_meta for each in shapes.parameters())
    assert str(mm.budget(shapes)) == str(mm.budget(net))
    assert NetworkSpec.from_module(shapes) == spec
    assert size_of(spec.root) == weights_of(net)


def test_counting_draws_nothing() -> None:
    state = torch.random.get_rng_state()
    run = mm.RunSpec().resolved()
    assert run.network is not None
    run.network.check_size(run.limits)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_extent_of_data_is_that_of_what_is_written_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extent, "MAX_VALUES", 1000)
    check_extent(nested(MAX_NESTING_LEVELS))
    with pytest.raises(
        SpecError, match=rf"must be at most {MAX_NESTING_LEVELS} lists and mappings deep"
    ):
        check_extent(nested(MAX_NESTING_LEVELS + 1))
    # An alias is as deep as its deepest place.
    shared = nested(60)
    check_extent([shared, nested(30, around=shared)])
    with pytest.raises(SpecError, match="lists and mappings deep"):
        check_extent([shared, nested(60, around=shared)])
    check_extent([0] * 998)
    with pytest.raises(SpecError, match="at most 1,000 values"):
        check_extent([0] * 1001)
    half = [0] * 400
    with pytest.raises(SpecError, match="at most 1,000 values"):
        check_extent([half, half, half])
    with pytest.raises(
        SpecError, match=r"^a\.b\.1 must be a number below 2\^64, got one of 65 bits"
    ):
        check_extent({"a": {"b": [0, -(2**64)]}})
    check_extent(2**64 - 1)
    check_extent({"a": 2**64 - 1, "b": True, "c": "x" * 10**6, "d": None})


class TestSweeps:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["--lr", "2^-1000000..2^1000000"],
            ["--lr", f"2^-{'9' * 5000}..2^1"],
            ["--seeds", "1000000000"],
            ["--seeds", "700"],
            ["--jobs", "1000000"],
            [each for _ in range(12) for each in ("--over", "model.width=" + ",".join("123456789"))],
        ],
    )  # fmt: skip
    def test_too_many_runs_are_refused(
        self, arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["sweep", *arguments, "-o", str(tmp_path / "s")]) == 2
        assert not (tmp_path / "s").exists()
        assert "Traceback" not in capsys.readouterr().err

    def test_the_limit_is_the_callers(self) -> None:
        run, ranges = mm.RunSpec(), {Arm("adamw"): (0, 9)}
        Plan(run, (Size(),), ranges, seeds=1000)
        with pytest.raises(ArgumentError, match=r"at most 10,000 runs, got 10,010\. "):
            Plan(run, (Size(),), ranges, seeds=1001)
        Plan(run, (Size(),), ranges, seeds=1001, max_runs=10_010)
        with pytest.raises(ArgumentError, match="at most 3 runs, got 4"):
            parse_sizes(["a=1,2", "b=1,2"], most=3)

    def test_a_size_that_is_too_large_leaves_no_folder(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sizes = ["--over", "model.width=4,100000000", "--set", "model.name=residual-mlp"]
        assert main(["sweep", *sizes, "-o", str(tmp_path / "s")]) == 2
        assert "entries in its weights" in capsys.readouterr().err
        assert not (tmp_path / "s").exists()


def test_the_memory_of_this_machine_is_known() -> None:
    known = memory.machine_memory()
    assert known is None or known > 2**28
    assert memory.in_words(10**400).endswith(" TiB")
    assert memory.in_words(3 * 2**29) == "1.5 GiB"
