"""torch's own machinery around an adapted model: compilers, precision, accumulation, copies, devices, averages."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from long_tests import mostly_long
from small import MODELS, RULES, adapted, backward, batch, mlp, residual, same_bits, train
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import modular_manifolds as mm
from modular_manifolds.errors import ArgumentError, NonFiniteError

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> nn.Module:
    return MODELS[request.param]()


MOSTLY_ONE_MODEL = pytest.mark.parametrize(
    "model", mostly_long(MODELS, usual=lambda name: name == "attentive"), indirect=True
)


class TestCompilers:
    @pytest.fixture(autouse=True)
    def forget_compiled_code(self) -> Iterator[None]:
        torch.compiler.reset()
        yield
        torch.compiler.reset()

    @pytest.mark.parametrize("before", mostly_long([True, False], usual=bool))
    @MOSTLY_ONE_MODEL
    def test_a_model_may_be_compiled_before_or_after(self, model: nn.Module, before: bool) -> None:
        twin = copy.deepcopy(model)
        losses = train(twin, adapted(twin), range(4))
        if before:
            compiled: Any = torch.compile(model, backend="eager")
            opt = adapted(compiled)
        else:
            opt = adapted(model)
            compiled = torch.compile(model, backend="eager")
        assert opt.param_groups[0]["param_names"][0] in dict(model.named_parameters())
        assert train(compiled, opt, range(4)) == pytest.approx(losses, rel=1e-4)

    @pytest.mark.long
    def test_the_default_compiler_trains(self) -> None:
        model = mlp()
        twin = copy.deepcopy(model)
        losses = train(twin, adapted(twin), range(3))
        compiled: Any = torch.compile(model)
        assert train(compiled, adapted(compiled), range(3)) == pytest.approx(losses, rel=1e-4)

    @pytest.mark.long
    def test_a_step_may_be_compiled(self) -> None:
        model = MODELS["attentive"]()
        twin = copy.deepcopy(model)
        opt, other = adapted(model, lr=torch.tensor(0.1)), adapted(twin, lr=torch.tensor(0.1))
        step = torch.compile(opt.step, fullgraph=True, backend="eager")
        for number in range(2):
            for net, stepper, take in ((model, opt, step), (twin, other, other.step)):
                stepper.zero_grad()
                backward(net, number)
                take()
        # The bias of keys changes no output, so its gradient is rounding and its weights may differ.
        x, _ = batch(0)
        torch.testing.assert_close(model(x), twin(x), rtol=1e-3, atol=1e-4)


class TestPrecision:
    @MOSTLY_ONE_MODEL
    def test_autocast(self, model: nn.Module) -> None:
        opt = adapted(model)
        losses: list[float] = []
        for number in range(30):
            opt.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                losses.append(backward(model, number))
            opt.step()
        assert sum(losses[-5:]) < sum(losses[:5])
        assert all(p.dtype is torch.float32 for p in model.parameters())

    @pytest.mark.parametrize("clip", [False, True])
    def test_a_scaler_changes_nothing_of_the_step(self, clip: bool) -> None:
        """The scale is a power of two, so scaled gradients have the same digits."""
        model = mlp()
        twin = copy.deepcopy(model)
        opt, other = adapted(model), adapted(twin)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        for number in range(3):
            x, labels = batch(number)
            scaler.scale(nn.functional.cross_entropy(model(x), labels)).backward()
            backward(twin, number)
            if clip:
                scaler.unscale_(opt)
                for net in (model, twin):
                    nn.utils.clip_grad_norm_(net.parameters(), 0.1)
            scaler.step(opt)
            scaler.update()
            other.step()
            opt.zero_grad()
            other.zero_grad()
        assert same_bits(model, twin)

    def test_a_scaler_skips_a_step_that_overflowed(self) -> None:
        model = mlp()
        opt = adapted(model)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
        before = copy.deepcopy(model)
        for _ in range(2):
            x, labels = batch(0)
            opt.zero_grad()
            scaler.scale(1e6 * nn.functional.cross_entropy(model(x), labels)).backward()
            scaler.step(opt)
            scaler.update()
            assert same_bits(model, before)
        assert scaler.get_scale() == 2.0**125
        assert opt.skipped == 0

    def test_without_a_scaler_an_overflow_is_an_error(self) -> None:
        model = mlp()
        opt = adapted(model)
        backward(model)
        next(model.parameters()).grad = torch.full((8, 12), torch.inf)
        with pytest.raises(NonFiniteError, match=r"0\.weight"):
            opt.step()


def test_accumulated_gradients_step_as_those_of_the_whole_batch() -> None:
    model = mlp()
    twin = copy.deepcopy(model)
    x, labels = batch(0)
    opt, other = adapted(model), adapted(twin)
    for inputs, wanted in zip(x.chunk(4), labels.chunk(4), strict=True):
        (nn.functional.cross_entropy(model(inputs), wanted) / 4).backward()
    opt.step()
    nn.functional.cross_entropy(twin(x), labels).backward()
    other.step()
    for value, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_weights_without_a_gradient_stay_and_join_again(model: nn.Module) -> None:
    opt = adapted(model)
    names = list(dict(model.named_parameters()))
    for left_out in (names[::2], names[1::2], []):
        before = copy.deepcopy(model.state_dict())
        opt.zero_grad()
        backward(model)
        for name in left_out:
            model.get_parameter(name).grad = None
        opt.step()
        for name, value in model.named_parameters():
            assert torch.equal(value, before[name]) == (name in left_out), name


@pytest.mark.parametrize("how", ["copy", "pickle"])
def test_model_plan_and_optimiser_are_copied_together(model: nn.Module, how: str) -> None:
    plan = mm.adapt(model, RULES)
    opt = mm.SteepestDescent(plan, 0.1, momentum=0.9)
    train(model, opt, range(2))
    whole = (model, plan, opt)
    twin, planned, other = (
        copy.deepcopy(whole) if how == "copy" else pickle.loads(pickle.dumps(whole))
    )
    assert planned.model is twin
    assert twin is not model
    train(model, opt, range(2, 4))
    train(twin, other, range(2, 4))
    assert same_bits(model, twin)


class TestDevices:
    def test_the_meta_device_is_refused(self) -> None:
        with torch.device("meta"):
            model = mlp()
        for start in ("project", "keep"):
            with pytest.raises(ArgumentError, match=r"to_empty"):
                mm.adapt(model, start=start)

    def test_after_to_empty_a_model_is_adapted_as_any_other(self) -> None:
        with torch.device("meta"):
            model = mlp()
        model.to_empty(device="cpu")
        for each in model:
            if isinstance(each, nn.Linear | nn.LayerNorm):
                each.reset_parameters()
        plan = mm.adapt(model)
        losses = train(model, mm.SteepestDescent(plan, 0.1), [0] * 20)
        assert losses[-1] < losses[0]
        assert residual(plan) <= 1e-5

    def test_a_plan_of_weights_that_lost_their_values_is_refused(self) -> None:
        model = mlp()
        plan = mm.adapt(model)
        model.to("meta")
        with pytest.raises(ArgumentError, match=r"to_empty"):
            mm.SteepestDescent(plan, 0.1)


@pytest.mark.parametrize("how", ["orthogonal", "spectral_norm", "weight_norm", "own"])
def test_parametrisations_are_refused_in_words(how: str) -> None:
    model = mlp()
    if how == "own":
        parametrize.register_parametrization(model[3], "weight", nn.Identity())
    else:
        getattr(parametrizations, how)(model[3])
    with pytest.raises(ArgumentError, match=r"'3\.parametrizations\.weight.*parametrization"):
        mm.adapt(model)
    plan = mm.adapt(model, [mm.Fallback("3.*", lr=1e-3), mm.Rule("*")])
    losses = train(model, mm.SteepestDescent(plan, 0.1), [0] * 20)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_averages_are_put_back_onto_the_manifolds(model: nn.Module, average: str) -> None:
    plan = mm.adapt(model, RULES)
    opt = mm.SteepestDescent(plan, 0.3)
    averaged = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(0.5) if average == "ema" else None
    )
    for number in range(6):
        train(model, opt, [number])
        averaged.update_parameters(model)
    inner = averaged.module
    of_average = mm.ModelPlan.from_json(plan.to_json(), inner)
    assert residual(of_average) > 1e-4
    mm.project_(plan, averaged)
    assert residual(of_average) <= 1e-5
