"""Precision: single by default, lower on request with its deviation measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import cases
from networks import (
    CLASSES,
    Pooled,
    image,
    make,
    plain_gradient,
    quick,
    quick_methods,
    relative,
    snapshot,
)
from neuroxai.cli import app
from neuroxai.core.engine.norm_gradients import NormGradients
from neuroxai.core.engine.precision import autocast_for, tf32_allowed
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.engine.untouched import untouched
from neuroxai.core.errors import ModelError
from neuroxai.core.probe.checkpointing import checkpointed
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class
from neuroxai.inspection.dissection import Dissection
from neuroxai.inspection.filters import filters
from neuroxai.inspection.information_flow import information_flow
from neuroxai.models.deepseg import DeepSeg
from neuroxai.workflows.explain import explain

CUDA = [torch.device("cuda", 0)]
"""The switches exist without the device."""


def test_gradient_of_a_linear_network_is_its_rounded_weight() -> None:
    last, x = nn.Linear(24, 3), torch.rand(1, 1, 2, 3, 4)
    network = nn.Sequential(nn.Flatten(), last)
    weight = last.weight[2].detach().reshape(x.shape)
    full = explain(network, x, "vanilla_gradient", 2)
    assert torch.equal(full["vanilla_gradient"].values, weight)
    assert (full.deviation, full.warnings) == (None, ())
    found = explain(network, x, "vanilla_gradient", 2, precision="bf16")
    rounded = weight.bfloat16().float()
    assert torch.equal(found["vanilla_gradient"].values, rounded)
    assert not torch.equal(rounded, weight)
    away = float((rounded - weight).norm() / weight.norm())
    assert found.deviation is not None
    assert found.deviation.gradient_relative_l2 == pytest.approx(away, rel=1e-5)
    assert found.deviation.gradient_cosine == pytest.approx(1, abs=1e-4)
    assert f"gradient difference {away:.1%}" in found.warnings[0]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("task", ["classifier", "segmenter"])
def test_deviation_of_every_method_is_that_of_autocast(task: str, dims: int) -> None:
    network, x = make(task, dims), image(dims)
    found = explain(network, x, quick_methods(), 2, precision="bf16")
    full = explain(network, x, quick_methods(), 2)
    assert not found.refused
    for name in found:
        assert found[name].values.dtype == torch.float32
        away = relative(found[name].values, full[name].values)
        follows = name == "guided_integrated_gradients"
        assert 0 < away < (2 if follows else 0.3), (name, away)
        assert follows == any("the path itself differs" in note for note in found[name].notes)
        assert not any("the path itself differs" in note for note in full[name].notes)
        assert found[name].provenance["precision"] == "bf16"
        assert found.deviation is not None
        assert found[name].provenance["deviation_from_fp32"] == found.deviation.describe()
        assert full[name].provenance["precision"] == "fp32"
        assert "deviation_from_fp32" not in full[name].provenance
    network.eval()
    plain = plain_gradient(network, x, 2).double()
    by_hand = _autocast_gradient(network, x, 2).double()
    away = float((by_hand - plain).norm() / plain.norm())
    assert found.deviation is not None
    assert found.deviation.gradient_relative_l2 == pytest.approx(away, rel=0.05)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = network(x).float()
    changed = (low.argmax(1) != network(x).argmax(1)).double().mean()
    assert found.deviation.changed == pytest.approx(float(changed))


def _autocast_gradient(network: nn.Module, x: Tensor, channel: int) -> Tensor:
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(leaf)
    pooled = Pooled(nn.Identity())(output.float())
    return torch.autograd.grad(pooled[:, channel].sum(), leaf)[0]


def test_checkpointed_blocks_round_alike_in_both_runs() -> None:
    torch.manual_seed(0)
    network, x = DeepSeg(2, 3, filters=4, depth=2).eval(), torch.rand(1, 2, 16, 24, 12)
    outputs = Outputs()

    def gradient(twice: bool) -> Tensor:
        leaf = x.clone().requires_grad_()
        with checkpointed(network) if twice else nullcontext():
            total = outputs.run(network, leaf, "bf16")[:, 1].sum()
        # Outside of autocast, which the second run has to restore.
        return torch.autograd.grad(total, leaf)[0]

    assert torch.equal(gradient(twice=True), gradient(twice=False))


def test_windows_use_the_lower_precision() -> None:
    torch.manual_seed(0)
    network, x = DeepSeg(2, 3, filters=4, depth=2), torch.rand(1, 2, 64, 48, 32)
    found = explain(network, x, "grad_cam", 1, memory="1MB", precision="bf16")
    assert found.memory.strategy == "windows"
    assert found.deviation is not None
    assert 0 < found.deviation.gradient_relative_l2 < 1
    assert any("bf16 compared with fp32" in warning for warning in found.warnings)


def _fail_where(expected: bool) -> None:
    assert expected
    raise ZeroDivisionError


def test_autocast_is_off_afterwards() -> None:
    explain(make("classifier"), image(), quick("vanilla_gradient"), 2, precision="bf16")
    assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(ZeroDivisionError), autocast_for("bf16", torch.device("cpu")):
        _fail_where(torch.is_autocast_enabled("cpu"))
    assert not torch.is_autocast_enabled("cpu")


def test_settings_refuse_unknown_precisions_and_cannot_change() -> None:
    with pytest.raises(ModelError, match="did you mean 'fp32'"):
        PassSettings("fp-32")
    with pytest.raises(FrozenInstanceError):
        PassSettings().precision = "bf16"  # type: ignore[misc]


def test_outputs_have_at_least_single_precision() -> None:
    outputs, x = Outputs(), torch.rand(1, 2, 4, 6)
    assert outputs.run(nn.Conv2d(2, CLASSES, 1), x, "bf16").dtype == torch.float32
    double = nn.Conv2d(2, CLASSES, 1).double()
    assert outputs.run(double, x.double()).dtype == torch.float64
    assert outputs.run(nn.Conv2d(2, 1, 1).bfloat16(), x.bfloat16()).dtype == torch.float32


def _switches() -> list[str]:
    cudnn: Any = torch.backends.cudnn
    return [cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision]


def test_tf32_is_torchs_default_and_switched_off() -> None:
    before = _switches()
    assert before[0] == "tf32", "torch's default has changed: is the guard still needed?"
    with pytest.raises(ZeroDivisionError), tf32_allowed(CUDA, allowed=False):
        _fail_where(_switches() == ["ieee", "ieee"])
    assert _switches() == before
    with tf32_allowed(CUDA, allowed=True):
        assert _switches() == ["tf32", "tf32"]
    assert _switches() == before
    with untouched(nn.Linear(2, 2)):
        assert _switches() == before  # the network is on the CPU


@pytest.mark.parametrize(
    ("precision", "message"),
    [("tf32", "requires an NVIDIA GPU, the device is cpu"), ("bf-16", "did you mean 'bf16'")],
)
def test_unsupported_precisions_are_refused(precision: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        explain(make("classifier"), image(), "vanilla_gradient", 2, precision=precision)


def test_single_precision_needs_no_autocast() -> None:
    with autocast_for("fp32", torch.device("cpu")) as context:
        assert context is None


def test_the_command_prints_the_deviation(tmp_path: Path) -> None:
    folder, out = cases.write_study(tmp_path), tmp_path / "out"
    done = CliRunner().invoke(
        app,
        ["explain", str(folder), "--method", "vanilla_gradient", "--target", "WT", "--precision",
         "bf16", "-o", str(out)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "bf16 compared with fp32" in " ".join(done.output.split())
    summary = json.loads((out / "summary.json").read_text())
    assert any("compared with fp32" in each for each in summary["warnings"])
    (sidecar,) = out.glob("*_desc-vanillaGradient_statmap.json")
    found = json.loads(sidecar.read_text())
    assert "deviation_from_fp32" in json.dumps(found)


def test_autocast_of_the_caller_is_disabled() -> None:
    network, x = make("segmenter").eval(), image()
    expected = explain(network, x, "vanilla_gradient", 2)["vanilla_gradient"]
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(network, x, "vanilla_gradient", 2)["vanilla_gradient"]
        assert torch.is_autocast_enabled("cpu")
    assert found.provenance["precision"] == "fp32"
    assert torch.equal(found.values, expected.values)


HALVES = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("task", ["classifier", "segmenter"])
def test_16_bit_networks_are_explained_in_single_precision(task: str, dtype: torch.dtype) -> None:
    halved, x = make(task, 3).to(dtype), image(3).to(dtype)
    upcast_network = make(task, 3)
    upcast_network.load_state_dict(halved.state_dict())
    before = snapshot(halved)
    found = explain(halved, x, quick_methods(), 2)
    for given in (x, x.float()):
        alone = method_on(halved, given)
        assert torch.equal(alone, found["guided_integrated_gradients"].values)
    assert snapshot(halved) == before
    expected = explain(upcast_network, x.float(), quick_methods(), 2)
    assert list(found) == list(expected)
    for name in found:
        assert found[name].values.dtype == torch.float32
        assert torch.equal(found[name].values, expected[name].values)


def method_on(network: nn.Module, x: Tensor) -> Tensor:
    return quick("guided_integrated_gradients").explain(WholeVolume(network, Class(2)), x).values


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_small_gradients_of_16_bit_networks_do_not_underflow(dtype: torch.dtype) -> None:
    """A mean over 40,000 voxels has gradients below the smallest number of float16."""
    network, x = nn.Conv2d(1, 2, 1, bias=False).to(dtype), torch.rand(1, 1, 160, 250)
    with torch.no_grad():
        network.weight.fill_(2**-10)
    found = explain(network, x.to(dtype), "vanilla_gradient", 1)["vanilla_gradient"].values
    torch.testing.assert_close(found, torch.full_like(found, 2**-10 / 40_000))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_inspection_of_16_bit_networks(dtype: torch.dtype) -> None:
    halved, x = make("segmenter", 3).to(dtype), image(3).to(dtype)
    upcast_network = make("segmenter", 3)
    upcast_network.load_state_dict(halved.state_dict())
    before = snapshot(halved)
    flow = information_flow(halved, x, [Class(1)])
    (layer,) = filters(halved, x, [Class(1)], ["L2"])
    concept = {"bright": x[0, 0] > 0.5}
    counted = Dissection(halved, list(concept))
    counted.add(x[:1], concept)
    assert snapshot(halved) == before
    same = information_flow(upcast_network, x.float(), [Class(1)])
    for name, found in flow.targets[0].maps.items():
        assert torch.equal(found, same.targets[0].maps[name])
    (expected,) = filters(upcast_network, x.float(), [Class(1)], ["L2"])
    assert torch.equal(layer.activations, expected.activations)
    counted_too = Dissection(upcast_network, list(concept))
    counted_too.add(x[:1].float(), concept)
    assert list(counted.matches()) == list(counted_too.matches())


class Casts(nn.Module):
    """A network that casts its input to 16 bits."""

    CASTS: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {
        "half": lambda x: x.half(),
        "to": lambda x: x.to(torch.float16),
        "to by name": lambda x: x.to(device="cpu", dtype=torch.float16),
        "type": lambda x: x.type("torch.HalfTensor"),
        "type_as": lambda x: x.type_as(torch.zeros(1, dtype=torch.float16).to(torch.float16)),
    }

    def __init__(self, cast: str, body: nn.Module) -> None:
        super().__init__()
        self.cast, self.body = cast, body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(self.CASTS[self.cast](x)).float()
        return out


@pytest.mark.parametrize("cast", Casts.CASTS)
def test_networks_that_cast_their_input_are_upcast(cast: str) -> None:
    network, x = Casts(cast, make("segmenter", 3).half()), image(3)
    found = explain(network, x, ["vanilla_gradient", "grad_cam"], 2)
    upcast_network = explain(network.body.float(), x, ["vanilla_gradient", "grad_cam"], 2)
    for name in found:
        assert torch.equal(found[name].values, upcast_network[name].values)


def test_networks_of_mixed_precision_run_unchanged() -> None:
    class Parted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(1, 4, 3).bfloat16()
            self.head = nn.Conv2d(4, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.body(x.bfloat16()).float())
            return out

    network, x = Parted(), torch.rand(1, 1, 6, 9)
    found = explain(network, x, "vanilla_gradient", 2, within="image")["vanilla_gradient"]
    assert relative(found.values, plain_gradient(network, x, 2)) <= 0.01


@pytest.mark.parametrize("part", [torch.float16, torch.float32])
def test_other_networks_run_without_the_mode_for_casts(part: torch.dtype) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3).to(part), nn.Conv2d(4, 3, 1))
    with untouched(network):
        (mode,) = torch.overrides._get_current_function_mode_stack()
        assert isinstance(mode, NormGradients)
        assert network[0].weight.dtype == part


def test_16_bit_weights_are_restored_after_an_exception() -> None:
    network = make("segmenter").half()
    before = snapshot(network)

    def interrupted() -> None:
        with untouched(network):
            assert {p.dtype for p in network.parameters()} == {torch.float32}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert snapshot(network) == before
