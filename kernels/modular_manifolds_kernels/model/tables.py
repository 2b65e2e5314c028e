"""The counts as tables: what a matrix sign and an optimiser step do, beside torch's own sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modular_manifolds_kernels.coefficients import FOUR_STEPS, POLAR_EXPRESS
from modular_manifolds_kernels.model import accuracy, ours, torch_muon
from modular_manifolds_kernels.model.launch import Launch, Total, least_seconds, total
from modular_manifolds_kernels.model.shapes import MODELS
from modular_manifolds_kernels.static.targets import TARGETS

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]

FLOORS: Final = {FOUR_STEPS: 1 / 400, POLAR_EXPRESS[:5]: 1 / 1000}
"""The smallest singular value, as a share of the normalised size, that each run of polynomials is made for."""
LARGE: Final = ((4096, 4096), (4096, 16384))


def steps() -> int:
    """How many of our steps are as accurate as the five of `torch.optim.Muon`, from a four-hundredth on."""
    return len(FOUR_STEPS)


@dataclass(frozen=True)
class Bar:
    """A promise, what was counted, and the most that it may be."""

    what: str
    counted: float
    bar: float

    @property
    def met(self) -> bool:
        """Whether the promise is kept."""
        return self.counted <= self.bar


def bars() -> list[Bar]:
    """The promises about counts, each against `torch.optim.Muon` with its default settings."""
    found = []
    for (n, k), bar in zip(LARGE, (0.70, 0.50), strict=True):
        our, their = _msign(n, k)
        found.append(
            Bar(f"operations of a {n}×{k} matrix sign / torch's", our.flops / their.flops, bar)
        )
    for name, shapes in MODELS.items():
        pairs = [(*_msign(*shape), count) for shape, count in shapes.items()]
        our = sum(o.bytes * count for o, _, count in pairs)
        their = sum(t.bytes * count for _, t, count in pairs)
        found.append(Bar(f"bytes of the matrix signs of {name} / torch's", our / their, 0.55))
    small = total(ours.msign_launches(96, 64, 64, steps=8))
    found.append(Bar("launches of the matrix signs of 96 heads of 64×64", small.launches, 1))
    narrow = total(ours.msign_launches(12, 64, 768, steps=8))
    found.append(Bar("launches of the matrix signs of 12 heads of 64×768", narrow.launches, 1))
    tiled = total(ours.msign_launches(12, 128, 128, steps=8, precision="fp32"))
    found.append(Bar("launches of the same of 12 of 128×128 in float32", tiled.launches, 1))
    landed = total(ours.retraction_launches(12, 64, 768))
    found.append(Bar("launches of a retraction, corrected, with residual", landed.launches, 1))
    large = total(ours.retraction_launches(3072, 128))
    found.append(Bar("launches of the same of 3072×128", large.launches, 1))
    before = [each for each in ours.step_launches(768, 768, steps=1) if each.name == "pre_step"]
    found.append(Bar("launches of a pre-step", len(before), 1))
    return found


def _msign(n: int, k: int) -> tuple[Total, Total]:
    """Ours and torch's, of an orthogonalisation whose input a step has made: after the momentum."""
    our = ours.step_launches(n, k, steps=steps())[1:]
    their = torch_muon.msign_part(torch_muon.muon_step(n, k))
    return total(our), total(their)


def tables() -> list[Table]:
    """Title, header and rows of each table."""
    signs = [_signs(polynomials) for polynomials in FLOORS]
    return [*signs, _steps(), _least(), _launches(), _bars()]


def _giga(value: float) -> str:
    return _short(value / 1e9)


def _mega(value: float) -> str:
    return _short(value / 1e6)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _signs(polynomials: tuple[accuracy.Polynomial, ...]) -> Table:
    sheet = TARGETS["sm_90"]
    header = (
        "shape",
        "launches",
        "Gflop",
        "ratio",
        "MB",
        "ratio",
        "no copies",
        f"least µs, {sheet.name}",
    )
    rows = []
    for shape in (*dict.fromkeys(s for shapes in MODELS.values() for s in shapes), *LARGE):
        our = ours.step_launches(*shape, steps=len(polynomials))[1:]
        their = torch_muon.msign_part(torch_muon.muon_step(*shape))
        bare = torch_muon.msign_part(torch_muon.muon_step(*shape, copies=False))
        o, t, b = total(our), total(their), total(bare)
        least = (least_seconds(each, sheet, precision="bf16") * 1e6 for each in (our, their))
        rows.append(
            (
                f"{shape[0]}×{shape[1]}",
                f"{o.launches} / {t.launches}",
                f"{_giga(o.flops)} / {_giga(t.flops)}",
                f"{o.flops / t.flops:.3f}",
                f"{_mega(o.bytes)} / {_mega(t.bytes)}",
                f"{o.bytes / t.bytes:.3f}",
                f"{o.bytes / b.bytes:.3f}",
                " / ".join(f"{each:.1f}" for each in least),
            )
        )
    floor = FLOORS[polynomials]
    our, their = (accuracy.worst(each, floor) for each in (polynomials, accuracy.of_torch()))
    title = (
        f"Matrix sign in bfloat16, ours in {len(polynomials)} steps / torch.optim.Muon's 5;"
        f" worst error on [{floor:g}, 1]: {our:.3f} / {their:.3f}"
    )
    return title, header, rows


def whole_step(shape: tuple[int, int]) -> tuple[list[Launch], list[Launch]]:
    """All launches of a step of one weight, ours and torch's; the change of the weight is torch's in both."""
    their = torch_muon.muon_step(*shape)
    change = [each for each in their if f"aten::{each.name}" in torch_muon.UPDATE]
    return [*ours.step_launches(*shape, steps=steps()), *change], their


def _steps() -> Table:
    rows = []
    for name, shapes in MODELS.items():
        pairs = [(whole_step(shape), count) for shape, count in shapes.items()]
        our, their = (_sum([(total(pair[i]), count) for pair, count in pairs]) for i in (0, 1))
        rows.append(
            (
                name,
                f"{our.launches:,} / {their.launches:,}",
                f"{_giga(our.flops)} / {_giga(their.flops)}",
                f"{our.flops / their.flops:.3f}",
                f"{_mega(our.bytes)} / {_mega(their.bytes)}",
                f"{our.bytes / their.bytes:.3f}",
            )
        )
    header = ("model", "launches", "Gflop", "ratio", "MB", "ratio")
    return "One step of all hidden weights, one after another, ours / torch's", header, rows


def _sum(totals: Sequence[tuple[Total, int]]) -> Total:
    """The totals, each as often as it is done."""
    return Total(
        sum(each.launches * count for each, count in totals),
        sum(each.flops * count for each, count in totals),
        sum(each.bytes * count for each, count in totals),
    )


def _least() -> Table:
    rows = []
    for name, shapes in MODELS.items():
        pairs = [(whole_step(shape), count) for shape, count in shapes.items()]
        bounds = []
        for target in TARGETS.values():
            our, their = (
                1e3 * sum(least_seconds(pair[i], target, precision="bf16") * n for pair, n in pairs)
                for i in (0, 1)
            )
            bounds.append(f"{our:.3g} / {their:.3g}")
        rows.append((name, *bounds))
    return (
        "Lower bound on such a step by data sheets, ms, ours / torch's",
        ("model", *TARGETS),
        rows,
    )


def _launches() -> Table:
    sheet = TARGETS["sm_90"]
    rows = []
    for shape in ((1600, 1600), (1600, 6400)):
        launches = ours.step_launches(*shape, steps=steps())
        # Those that differ in a few scalars are one.
        alike = {(each.name, each.flops, round(each.bytes, -5)): each for each in launches}
        for key, each in alike.items():
            compute, memory = each.flops / sheet.flops["bf16"], each.bytes / sheet.bandwidth
            rows.append(
                (
                    f"{shape[0]}×{shape[1]} {each.name}",
                    str(sum((e.name, e.flops, round(e.bytes, -5)) == key for e in launches)),
                    str(each.blocks),
                    _giga(each.flops),
                    _mega(each.bytes),
                    f"{each.flops / each.bytes:.0f}",
                    f"{max(compute, memory) * 1e6:.2f}",
                    "products" if compute > memory else "memory",
                )
            )
    header = (
        "launch",
        "times",
        "blocks",
        "Gflop",
        "MB",
        "flop/byte",
        f"least µs, {sheet.name}",
        "by",
    )
    return "Launch by launch", header, rows


def _bars() -> Table:
    found: Sequence[Bar] = bars()
    rows = [
        (each.what, f"{each.counted:.3g}", f"{each.bar:g}", "yes" if each.met else "NO")
        for each in found
    ]
    return "Bars", ("what", "counted", "at most", "met"), rows
