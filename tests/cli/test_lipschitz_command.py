"""The command `lipschitz` certifies runs and declarations, and draws its figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from blank_pictures import leave_out_pictures
from command import QUICK
from torch import Tensor

import modular_manifolds as mm
from modular_manifolds.cli.main import main
from modular_manifolds.specs import NetworkSpec
from modular_manifolds.specs.network import NAMES


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a short run."""
    folder = tmp_path_factory.mktemp("short") / "run"
    with pytest.MonkeyPatch.context() as patch:
        leave_out_pictures(patch)
        assert main(["train", "--out", str(folder), *QUICK]) == 0
    return str(folder)


def test_lipschitz_of_a_run_and_of_a_declaration(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lipschitz", run, "--input-norm", "linf"]) == 0
    assert "from linf to l2: declared 8, certified 8" in capsys.readouterr().out
    assert main(["lipschitz"]) == 0
    assert "declared 1, certified 1" in capsys.readouterr().out


@pytest.mark.parametrize("attack", ["--attack", "--no-attack"])
def test_lipschitz_certifies_the_predictions_of_a_run(
    attack: str, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--points", "60", "--radius", "0.01", "--radius", "1/8", attack]
    assert main(["lipschitz", run, "--data", "digits", *options, "--json", "found.json"]) == 0
    out = capsys.readouterr().out
    rows = [line.split("│") for line in out.splitlines() if "/255 " in line or " 0.01 " in line]
    assert [row[0].strip() for row in rows] == ["0.01", "36/255", "72/255", "108/255"]
    assert len(rows[0]) == (3 if attack == "--attack" else 2)
    assert ("no certified point fell" in out) == (attack == "--attack")
    assert "60 points; radii in pixels in [0, 1]; a step of 1" in out
    assert "declared 1, certified 1" in out
    found = json.loads(Path("found.json").read_text())
    assert found["lipschitz"]["declared"] == pytest.approx(1.0)
    assert [row["radius"] for row in found["robustness"]["rows"]][:2] == [0.01, 1 / 8]
    assert len(found["robustness"]["radii"]) == 60
    assert found["robustness"]["clean"] >= found["robustness"]["rows"][0]["certified"]


def test_predictions_are_attacked_unless_told_otherwise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["lipschitz", "--points", "20"]) == 0
    assert "attack: projected gradient on the margin" in capsys.readouterr().out


def test_lipschitz_says_where_a_bound_is_missing_and_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("run.yaml").write_text(
        "network: {type: series, modules: [{type: linear, in_features: 64, out_features: 10, "
        "manifold: euclidean, norm: spectral}, relu]}"
    )
    assert main(["lipschitz", "run.yaml", "--no-attack", "--json", "found.json"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "weights of 0 are on an unbounded manifold" in out
    assert "put them on Stiefel" in out
    assert json.loads(Path("found.json").read_text())["lipschitz"]["declared"] is None


class Square(mm.Bond):
    """`x²/2`: the bound depends on the size of the input."""

    def lipschitz_within(self, radius: float) -> float:
        return radius

    def forward(self, x: Tensor) -> Tensor:
        return x.square() / 2


def test_lipschitz_takes_the_size_of_inputs_where_a_bound_depends_on_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it nothing is certified: the exit code is 0, and the output names the module and the option."""
    net = mm.Linear(64, 32, manifold=mm.Stiefel(radius=2.0)) >> Square() >> mm.Linear(32, 10)
    monkeypatch.setattr(NetworkSpec, "build_aside", lambda *_: net)
    monkeypatch.setitem(NAMES, Square, "identity")
    assert main(["lipschitz", "--json", "found.json"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "no bound holds at 1 (Square): its bound depends on the size of its input" in out
    assert "--input-radius" in out
    assert json.loads(Path("found.json").read_text())["lipschitz"]["certified"] is None
    assert main(["lipschitz", "--input-radius", "3", "--json", "found.json"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "declared 12, certified 12" in out
    assert "for inputs of norm at most 3" in out
    assert json.loads(Path("found.json").read_text())["lipschitz"]["radius"] == 3


def test_lipschitz_draws_a_figure(capsys: pytest.CaptureFixture[str]) -> None:
    radius = ["--input-norm", "linf", "--input-radius", "2"]
    assert main(["lipschitz", *radius, "--figure", "bounds.svg"]) == 0
    assert "figure bounds.svg" in " ".join(capsys.readouterr().out.split())
    picture = Path("bounds.svg").read_text()
    assert picture.startswith("<?xml")
    assert "</svg>" in picture
    assert main(["lipschitz", "--figure", "no/folder.svg"]) == 2
    assert "--figure must be a file that can be written" in capsys.readouterr().err


@pytest.mark.long
def test_a_figure_is_that_of_its_options() -> None:
    box = ["--input-norm", "linf", "--input-radius", "2"]
    for name, options in {"own": [], "box": box}.items():
        assert main(["lipschitz", *options, "--figure", f"{name}.svg"]) == 0
    assert Path("own.svg").read_text() != Path("box.svg").read_text()
