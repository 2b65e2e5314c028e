"""Laws of the computation of scale: terms add up, links and rates help, one rank sends nothing, the page is up to date."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from modular_manifolds_scale import MACHINES, WAYS, Machine, Model, build_model
from modular_manifolds_scale.command import app
from modular_manifolds_scale.loads import placed
from modular_manifolds_scale.products import Product
from modular_manifolds_scale.tables import MARKED, TABLES, amount, refreshed
from modular_manifolds_scale.ways import agreement_bytes
from typer.testing import CliRunner

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
H100 = MACHINES["h100"]
RATES = ("bfloat16", "float32", "achieved", "memory_rate", "inside", "between")
DELAYS = ("launch", "call", "hop_inside", "hop_between")
EACH_WAY = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def model() -> Model:
    return build_model("gpt2")


def total(model: Model, way: str, machine: Machine, ranks: int) -> float:
    return WAYS[way](model, machine, ranks).seconds.total


@EACH_WAY
def test_terms_add_up(model: Model, way: str) -> None:
    for ranks in (1, 8, 64):
        step = WAYS[way](model, H100, ranks)
        assert step.way == way
        assert step.seconds.total == pytest.approx(sum(asdict(step.seconds).values()), rel=1e-12)
        assert min(asdict(step.seconds).values()) >= 0


@EACH_WAY
def test_no_rate_hurts_and_no_delay_helps(model: Model, way: str) -> None:
    for ranks in (4, 8, 64):
        before = total(model, way, H100, ranks)
        for name in (*RATES, *DELAYS):
            doubled = total(model, way, replace(H100, **{name: 2 * getattr(H100, name)}), ranks)
            assert (doubled <= before) if name in RATES else (doubled >= before), (name, ranks)
        assert total(model, way, replace(H100, memory_rate=2 * H100.memory_rate), ranks) < before


@EACH_WAY
def test_one_rank_sends_nothing(model: Model, way: str) -> None:
    step = WAYS[way](model, H100, 1)
    assert step.received == step.seconds.wire == 0
    slow = replace(H100, call=1.0, hop_inside=1.0, hop_between=1.0, inside=1.0, between=1.0)
    assert WAYS[way](model, slow, 1) == step


def test_all_ways_to_the_same_solves_take_as_long_on_one_rank(model: Model) -> None:
    ways = ("DDP, replicate", "DDP, owner", "FSDP2, owner", "FSDP2, mixed")
    assert len({total(model, way, H100, 1) for way in ways}) == 1
    assert total(model, "FSDP2, Muon", H100, 1) == total(model, "DDP, Muon", H100, 1)
    # Cut by rows a square matrix needs Γ of twice its side.
    assert total(model, "FSDP2, rows", H100, 1) > total(model, "FSDP2, owner", H100, 1)


def test_ddp_receives_the_counted_bytes(model: Model) -> None:
    """`tests/distributed/test_ddp.py` counts both collectives in a running step, and holds them to these numbers."""
    for ranks in (2, 8, 64):
        flags = agreement_bytes(len(model.weights))
        points = placed(model.weights, ranks).buffer_bytes
        received = WAYS["DDP, owner"](model, H100, ranks).received
        assert received == pytest.approx((ranks - 1) * (2 * flags / ranks + points))


def test_sharded_owners_send_three_numbers_for_each_of_a_matrix(model: Model) -> None:
    """If loads are even, each rank receives `3 m n / ranks` float32 numbers of all matrices, but those it has."""
    ranks = 2
    matrices = sum(math.prod(each.shape) for each in model.weights if "wte" not in each.name)
    even = (ranks - 1) / ranks * 3 * 4 * matrices / ranks
    received = WAYS["FSDP2, owner"](model, H100, ranks).received
    assert even * 0.95 <= received <= even * 1.1


def test_collectives_follow_their_formulas() -> None:
    machine = Machine(
        "a test", 1e12, 1e12, 1e12, 1e9, inside=100.0, between=20.0, ranks_per_node=4,
        call=0.0, hop_inside=1.0, hop_between=10.0,
    )  # fmt: skip
    gathered = machine.all_gather(50.0, 4)
    assert (gathered.wire, gathered.latency) == (3 * 50 / 100, 3)
    gathered = machine.all_gather(50.0, 8)
    # Four links of 20 carry a node's ring.
    assert (gathered.wire, gathered.latency) == (7 * 50 / 80, 6 + 10)
    quick, heavy = machine.all_reduce(0.0, 8), machine.all_reduce(8e6, 8)
    assert (quick.wire, quick.latency) == (0, 2 * (3 + 10))
    assert (heavy.wire, heavy.latency) == (2 * 7 / 8 * 8e6 / 80, 2 * 16)
    sent = machine.all_to_all(80.0, 8)
    assert (sent.wire, sent.latency) == (10 * max(3 / 100, 4 / 20), 16)


def test_a_product_takes_its_multiplications_or_its_memory() -> None:
    large = Product((4096, 4096, 4096), "bfloat16", 2).seconds(H100)
    assert large.flops == 2 * 2 * 4096**3 / (989e12 / 2)
    thin = Product((4096, 8, 8), "bfloat16", 1).seconds(H100)
    assert (thin.flops, thin.memory) == (0, 2 * (2 * 4096 * 8 + 64) / 3.35e12)
    assert Product((2, 8, 2), "float32", 1, long=1).cut(4).sides == (2, 2, 2)


def test_the_page_has_the_tables_of_the_computation() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert {each["name"] for each in MARKED.finditer(text)} == set(TABLES)
    assert refreshed(text) == text, "run `python benchmarks/scale.py --page docs/scale.md`"


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    path = tmp_path / "scale.json"
    said = ["--ranks", "1,8", "--between", "25", "--whole-heads", "--json", str(path)]
    ran = CliRunner().invoke(app, said)
    assert ran.exit_code == 0, ran.output
    assert "computed, not measured" in ran.output
    found = json.loads(path.read_text())
    assert found["machine"]["between"] == 25e9
    assert [(each["way"], each["ranks"]) for each in found["steps"]] == [
        (way, ranks) for way in WAYS for ranks in (1, 8)
    ]


@pytest.mark.parametrize(
    "said", [["--model", "gpt5"], ["--device", "abacus"], ["--ranks", "8,x"], ["--ranks", "0"]]
)
def test_unknown_names_are_refused(said: list[str]) -> None:
    assert CliRunner().invoke(app, said).exit_code == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1e-4, "<0.01"), (0.5, "0.5"), (12.34, "12.3"), (1234.5, "1,234")],
)
def test_amounts_have_three_digits(value: float, text: str) -> None:
    assert amount(value) == text
