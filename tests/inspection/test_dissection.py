"""Dissection: planted filters, slow oracles, the control, and switching off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import networks
from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.errors import LayerError, MethodError
from neuroxai.core.layers.units import find_units
from neuroxai.inspection.ablation import switched_off
from neuroxai.inspection.control import randomized
from neuroxai.inspection.dissection import (
    _BIN_OF_KEY,
    BAU,
    Dissection,
    Match,
    Quantile,
    _edge,
    _keys,
)
from neuroxai.models.deepseg import DeepSeg
from neuroxai.models.resnet import ResNet50


class Planted(nn.Module):
    """Filter 2 of the second layer answers to bright voxels of the second modality, exactly."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv: Any = networks.CONV[dims]
        norm: Any = networks.NORM[dims]
        self.first = conv(2, 3, 3, padding=1)
        self.first_norm = norm(3)
        self.first_act = nn.ReLU()
        self.second = conv(2, 4, 1)
        # A negative weight turns the sign of the raw convolution.
        self.second_norm = norm(4)
        self.second_act = nn.ReLU()
        self.output = conv(4, 2, 1)
        with torch.no_grad():
            # Nothing else looks at the second modality.
            self.first.weight[:, 1] = 0
            self.second.weight[:, 1] = 0
            self.second.weight[2] = 0
            self.second.weight[2, 1] = -1.0
            self.second.bias[2] = 0.5
            self.second_norm.weight[2] = -1.0
            self.output.weight.zero_()
            self.output.bias.zero_()
            self.output.weight[1, 2] = 1.0
            self.output.bias[0] = 0.01

    def forward(self, x: Tensor) -> Tensor:
        self.first_act(self.first_norm(self.first(x)))
        out: Tensor = self.output(self.second_act(self.second_norm(self.second(x))))
        return out


def planted(dims: int, seed: int = 0) -> tuple[nn.Module, list[tuple[Tensor, dict[str, Tensor]]]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Planted(dims).eval()
        shape = networks.SHAPES[dims]
        cases = []
        for number in range(3):
            x = 0.4 * torch.rand(1, 2, *shape)
            bright = torch.rand(shape) < 0.1 + 0.05 * number
            x[0, 1][bright] += 0.5
            cases.append((x, {"bright": bright, "chance": torch.rand(shape) < 0.2}))
    return network, cases


def best_of(matches: list[Match], concept: str) -> Match:
    return max((m for m in matches if m.concept == concept), key=lambda match: match.iou)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_planted_filter_is_found(dims: int) -> None:
    network, cases = planted(dims)
    dissection = Dissection(network, ["bright", "chance"])
    for x, masks in cases:
        dissection.add(x, masks)
    found = [match for match in dissection.matches() if match.layer != "output"]
    best = best_of(found, "bright")
    assert (best.layer, best.filter) == ("second", 2)
    assert best.iou == 1.0
    others = [m.iou for m in found if m.concept == "bright" and m != best]
    assert max(others) < 0.5
    chance = [m.iou for m in found if m.concept == "chance"]
    assert max(chance) < 0.5
    # At Bau's quantile the filter's active voxels all lie in the concept, and are few.
    (strict,) = [
        match
        for match in dissection.matches(BAU)
        if (match.layer, match.filter, match.concept) == ("second", 2, "bright")
    ]
    assert strict.active >= BAU
    assert strict.iou == pytest.approx(strict.active / dissection.share("bright"))


def test_an_indicator_scores_one_at_every_quantile_below_its_share() -> None:
    """Ties at the threshold all count as active."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Conv2d(1, 2, 1))
    with torch.no_grad():
        next(network.parameters()).fill_(1.0)
    mask = torch.zeros(8, 12, dtype=torch.bool)
    mask[2:5, 3:9] = True
    for quantile in (0.005, 0.1, 18 / 96):
        dissection = Dissection(network, ["square"])
        dissection.add(mask.float()[None, None], {"square": mask})
        (first, *_) = dissection.matches(quantile)
        assert first.iou == 1.0
        assert first.active == pytest.approx(18 / 96)


def one_filter(*after: nn.Module, weight: float = 1.0, bias: float = 0.0) -> nn.Module:
    """A filter that gives the image times a weight, plus a bias, to what follows."""
    network = nn.Sequential(nn.Conv2d(1, 1, 1), *after).eval()
    with torch.no_grad():
        network[0].get_parameter("weight").fill_(weight)
        network[0].get_parameter("bias").fill_(bias)
    return network


def square(rows: int, columns: int) -> Tensor:
    mask = torch.zeros(40, 36, dtype=torch.bool)
    mask[5 : 5 + rows, 6 : 6 + columns] = True
    return mask


def shifted() -> nn.Module:
    """A norm that lays zero, where a rectifier is off, on minus seven."""
    norm = nn.BatchNorm2d(1)
    assert norm.running_mean is not None
    norm.running_mean.fill_(7.0)
    return norm


@pytest.mark.parametrize("after", [[], [shifted()]], ids=["rectified", "then normed"])
@pytest.mark.parametrize("quantile", ["matched", BAU, 0.3])
def test_a_filter_that_fires_too_seldom_is_active_where_it_fires(
    after: list[nn.Module], quantile: Quantile
) -> None:
    """Never everywhere: its IoU would be the concept's share, whatever it sees."""
    mask = square(9, 11)
    fires = mask.clone()
    fires[5, 6] = False
    dissection = Dissection(one_filter(nn.ReLU(), *after), ["square"])
    dissection.add(fires.float()[None, None] * (1 + torch.rand(40, 36)), {"square": mask})
    (found,) = dissection.matches(quantile)
    if quantile == BAU:  # fewer than fire: the strongest of them
        assert found.iou == pytest.approx(found.active * 40 * 36 / 99)
        assert 0.005 <= found.active <= 98 / (40 * 36)
    else:
        assert found.iou == pytest.approx(98 / 99)
        assert found.active == pytest.approx(98 / (40 * 36))
    with torch.no_grad():
        values = dissection._network(fires.float()[None, None])[0, 0]
    assert torch.equal(values >= found.threshold, fires) or quantile == BAU


def test_a_small_square_is_found_at_the_quantile_of_bau() -> None:
    mask = square(2, 2)
    dissection = Dissection(one_filter(nn.ReLU()), ["square"])
    dissection.add(mask.float()[None, None], {"square": mask})
    (found,) = dissection.matches(BAU)
    assert (found.iou, found.active) == (1.0, 4 / (40 * 36))


@pytest.mark.parametrize("after", [[], [nn.ReLU()], [nn.ReLU(), shifted()], [nn.Sigmoid()]])
def test_a_filter_that_never_fires_answers_to_nothing(after: list[nn.Module]) -> None:
    mask = square(9, 11)
    dissection = Dissection(one_filter(*after, weight=0.0, bias=-1.0), ["square"])
    dissection.add(mask.float()[None, None], {"square": mask})
    dissection.add(torch.rand(1, 1, 40, 36), {"square": mask})
    (found,) = dissection.matches()
    assert (found.iou, found.active) == (0.0, 0.0)


CHANGED = [(1e-4, 0.0), (1e-3, 0.0), (3.0, 0.0), (1e4, 0.0), (1e5, 0.0), (1.0, 100.0), (-1.0, 3.0)]


@pytest.mark.parametrize(("weight", "bias"), CHANGED)
@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_scale_and_offset_of_a_filter_say_nothing(weight: float, bias: float, gap: float) -> None:
    mask = square(10, 9)
    images = [0.5 * torch.rand(40, 36) + (0.5 + gap) * mask for _ in range(2)]

    def dissected(weight: float, bias: float) -> Match:
        dissection = Dissection(one_filter(weight=weight, bias=bias), ["square"])
        for image in images:
            seen = image if weight > 0 else 3 - image
            dissection.add(seen[None, None], {"square": mask})
        return next(dissection.matches())

    plain, found = dissected(1.0, 0.0), dissected(weight, bias)
    assert found.iou == pytest.approx(plain.iou, abs=0.02)
    assert found.active == pytest.approx(plain.active, abs=0.002)
    if weight > 0:
        assert found.threshold == pytest.approx(weight * plain.threshold + bias, abs=0.005 * weight)
    if gap:
        assert found.iou == 1.0
    # Without a gap the bins decide, 6 % of the way from the filter's middle.
    assert found.iou > 0.7


@pytest.mark.parametrize("rectified", [True, False])
@pytest.mark.parametrize("first", [0.0, 0.01, 20.0])
def test_a_first_case_unlike_the_others_sets_no_limit(first: float, rectified: bool) -> None:
    """One in which a filter is silent, quiet, or louder than ever again."""
    mask = square(10, 9)
    image = 0.5 * torch.rand(40, 36) + 0.7 * mask
    network = one_filter(nn.ReLU()) if rectified else one_filter(bias=2.0)
    dissection = Dissection(network, ["square"])
    dissection.add(first * image[None, None], {"square": mask & (first > 1)})
    for _ in range(3):
        dissection.add(image[None, None], {"square": mask & (first < 1)})
    (found,) = dissection.matches()
    assert found.iou == 1.0


def test_a_rectified_filter_that_is_always_on_is_resolved() -> None:
    mask = square(10, 9)
    image = 0.3 * torch.rand(40, 36) + 0.5 * mask
    dissection = Dissection(one_filter(nn.ReLU(), bias=100.0), ["square"])
    dissection.add(image[None, None], {"square": mask})
    (found,) = dissection.matches()
    assert found.iou == 1.0


def test_rounding_of_a_level_is_no_answer() -> None:
    """Where nothing fires, up-sampling scatters a norm's level by rounding, to both sides."""
    mask = torch.zeros(45, 39, dtype=torch.bool)
    mask[9:18, 12:24] = True
    network = nn.Sequential(
        nn.Conv2d(1, 1, 3, stride=3, bias=False), nn.ReLU(), shifted(), nn.Conv2d(1, 1, 1)
    ).eval()
    with torch.no_grad():
        network[0].get_parameter("weight").fill_(1.0)
    x = mask.float()[None, None]
    dissection = Dissection(network, ["square"])
    dissection.add(x, {"square": mask})
    found = next(dissection.matches(0.5))
    with torch.no_grad():
        fires = functional.interpolate(network[1](network[0](x)), (45, 39), mode="bilinear")[0, 0]
    fires = fires > 1e-2
    assert found.active == pytest.approx(float(fires.double().mean()))
    assert found.iou == pytest.approx(float((fires & mask).sum() / (fires | mask).sum()))


def activations(network: nn.Module, end: str, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = network.get_submodule(end).register_forward_hook(lambda m, i, o: kept.append(o))
    with torch.no_grad():
        network(x)
    handle.remove()
    return kept[0]


def test_against_a_slow_implementation() -> None:
    """Thresholds and intersections counted voxel by voxel, with nothing binned."""
    network = networks.seeded(8, lambda: DeepSeg(2, 3, filters=2, depth=2)).eval()
    generator = torch.Generator().manual_seed(4)
    cases = []
    for start in (0, 2):
        x = torch.randn(1, 2, 8, 12, 20, generator=generator)
        masks = {
            "a": torch.rand(8, 12, 20, generator=generator) < 0.3,
            "b": x[0, 0] > 1.0,
        }
        within = (slice(start, 7), slice(3, 12), slice(1, 17 - start))
        cases.append((x, masks, within))
    dissection = Dissection(network, ["a", "b"])
    for x, masks, within in cases:
        dissection.add(x, masks, within)
    ends = {unit.layer: unit.end for unit in dissection.units}
    assert ends["encoder.1.conv2"] == "encoder.1.relu2"
    quantiles: list[Quantile] = ["matched", 0.05]
    for quantile in quantiles:
        for match in dissection.matches(quantile):
            if match.layer not in ("encoder.1.conv2", "decoder.0.up", "output"):
                continue
            on, concept = [], []
            for x, masks, within in cases:
                values = activations(network, ends[match.layer], x)
                whole = functional.interpolate(values, (8, 12, 20), mode="trilinear")
                on.append(whole[0, match.filter][within].flatten())
                concept.append(masks[match.concept][within].flatten())
            a, c = torch.cat(on), torch.cat(concept)
            active = a >= match.threshold
            both, either = int((active & c).sum()), int((active | c).sum())
            assert match.iou == pytest.approx(both / either, abs=1e-9)
            assert match.active == pytest.approx(float(active.double().mean()))
            share = float(c.double().mean()) if quantile == "matched" else 0.05
            # As many voxels as were asked for, or all that rise above the lowest value.
            assert match.active >= share - 1e-9 or torch.equal(active, a > a.min())
            # The next higher threshold would leave too few.
            higher = a >= match.threshold + 0.07 * abs(match.threshold) + 1e-3
            assert float(higher.double().mean()) <= match.active


def test_what_a_network_pads_does_not_count() -> None:
    """Without a box every voxel of the image counts, and none beyond it."""
    network = networks.seeded(8, lambda: DeepSeg(2, 3, filters=2, depth=2)).eval()
    x = torch.randn(1, 2, 6, 9, 7, generator=torch.Generator().manual_seed(4))
    masks = {"a": x[0, 0] > 1.0}
    everywhere, boxed = Dissection(network, ["a"]), Dissection(network, ["a"])
    everywhere.add(x, masks)
    boxed.add(x, masks, (slice(0, 6), slice(0, 9), slice(0, 7)))
    assert everywhere.voxels == x[0, 0].numel()
    assert list(everywhere.matches()) == list(boxed.matches())


@given(st.floats(-3000, 3000, width=32), st.floats(-3000, 3000, width=32))
@settings(max_examples=300, deadline=None)
def test_bins_keep_the_order_and_are_narrow(a: float, b: float) -> None:
    one, other = _BIN_OF_KEY[_keys(torch.tensor([a, b])).numpy()].tolist()
    if a < b:
        assert one <= other
    if one == other and min(abs(a), abs(b)) > 1e-3:
        assert abs(a - b) <= 0.0626 * max(abs(a), abs(b))
    if abs(a) > 1e-3:
        assert _edge(one) <= a


def test_units_end_after_norm_and_activation() -> None:
    deepseg = DeepSeg(1, 2, filters=1, depth=2).eval()
    found = {unit.layer: unit for unit in find_units(deepseg, torch.rand(1, 1, 8, 4, 12))}
    assert found["encoder.0.conv1"].end == "encoder.0.relu1"
    assert found["decoder.1.up"].end == "decoder.1.up_relu"
    assert found["output"].end == "output"
    assert not found["output"].rectified
    resnet = ResNet50(1, 2).eval()
    ends = {unit.layer: unit.end for unit in find_units(resnet, torch.rand(1, 1, 48, 32))}
    assert len(ends) == 53
    assert ends["layer1.0.conv1"] == "layer1.0.relu1"
    assert ends["layer1.0.conv3"] == "layer1.0.bn3"  # the sum with the skip comes before its ReLU


def test_units_of_a_reused_and_in_place_chain() -> None:
    conv, act = nn.Conv2d(2, 2, 3, padding=1), nn.LeakyReLU(inplace=True)
    network = nn.Sequential(conv, act, conv, act, nn.Conv2d(2, 3, 1))
    found = find_units(network, torch.rand(1, 2, 5, 6))
    assert [(unit.layer, unit.end) for unit in found] == [("0", "1"), ("0#2", "1#2"), ("4", "4")]


def test_the_control_has_learned_nothing() -> None:
    network, cases = planted(3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    control = randomized(network, [x for x, _ in cases], seed=3)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    for name, parameter in control.named_parameters():
        own = dict(network.named_parameters())[name]
        assert torch.equal(parameter.flatten().sort().values, own.flatten().sort().values)
    again = randomized(network, [x for x, _ in cases], seed=3)
    for one, other in zip(control.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    dissection = Dissection(control, ["bright", "chance"])
    for x, masks in cases:
        dissection.add(x, masks)
    chance = [m.iou for m in dissection.matches() if m.concept == "chance"]
    assert max(chance) < 0.5
    # No filter is dead for want of fresh statistics.
    for unit in dissection.units:
        if unit.rectified:
            assert float(activations(control, unit.end, cases[0][0]).amax()) > 0


def test_a_norm_that_sees_one_value_keeps_its_own_statistics() -> None:
    """Squeeze and excitation, and pooled branches: one value has no variance to measure."""

    class Excited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.see, self.norm = nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4)
            self.pool, self.gate = nn.AdaptiveAvgPool3d(1), nn.Conv3d(4, 4, 1)
            self.gate_norm, self.out = nn.BatchNorm3d(4), nn.Conv3d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            seen = self.norm(self.see(x))
            out: Tensor = self.out(seen * self.gate_norm(self.gate(self.pool(seen))).sigmoid())
            return out

    network = Excited().eval()
    with torch.no_grad():
        for norm in (network.norm, network.gate_norm):
            norm.get_buffer("running_mean").uniform_(-1, 1)
            norm.get_buffer("running_var").uniform_(0.5, 2)
    inputs = [torch.rand(1, 1, 6, 5, 7) for _ in range(3)]
    control = randomized(network, inputs)
    for name in ("running_mean", "running_var"):
        assert torch.equal(
            control.get_buffer(f"gate_norm.{name}"), network.get_buffer(f"gate_norm.{name}")
        )
    with torch.no_grad():
        seen = torch.stack([control.get_submodule("see")(x) for x in inputs]).flatten(3)
    torch.testing.assert_close(control.get_buffer("norm.running_mean"), seen.mean((0, 1, 3)))
    torch.testing.assert_close(control.get_buffer("norm.running_var"), seen.var(3).mean((0, 1)))
    assert not any(module._forward_pre_hooks for module in control.modules())
    assert not any(module.training for module in control.modules())


@pytest.mark.parametrize("dims", [2, 3])
def test_switching_the_planted_filter_off_destroys_the_prediction(dims: int) -> None:
    network, cases = planted(dims)
    x, masks = cases[0]
    dissection = Dissection(network, ["bright"])
    dissection.add(x, masks)
    best = best_of([m for m in dissection.matches() if m.layer != "output"], "bright")
    units = find_units(network, x)

    def dice(filters: Mapping[str, list[int]]) -> float:
        with torch.no_grad(), switched_off(network, units, filters):
            found = network(x)[0].argmax(0) == 1
        size = int(found.sum() + masks["bright"].sum())
        return 2 * int((found & masks["bright"]).sum()) / size

    assert dice({}) == 1.0
    assert dice({best.layer: [best.filter]}) == 0.0
    assert dice({"second": [0, 1, 3]}) == 1.0
    assert dice({"first": [0]}) == 1.0
    assert not any(module._forward_hooks for module in network.modules())


def test_a_filter_without_activation_falls_silent_about_places() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1))
    x = torch.rand(2, 1, 6, 7)
    units = find_units(network, x)
    with torch.no_grad(), switched_off(network, units, {"0": [1]}):
        changed = network(x)
    with torch.no_grad():
        plain = network[0](x)
        plain[:, 1] = plain[:, 1].mean(dim=(1, 2), keepdim=True)
        torch.testing.assert_close(changed, network[1](plain))


OFF_IS_ZERO: list[tuple[nn.Module, bool]] = [
    (nn.ReLU(), True), (nn.ReLU6(), True), (nn.LeakyReLU(), True), (nn.PReLU(), True),
    (nn.RReLU(), True), (nn.GELU(), True), (nn.SiLU(), True), (nn.Mish(), True),
    (nn.Hardswish(), True), (nn.Threshold(0.1, 0.0), True), (nn.Hardtanh(0.0, 2.0), True),
    (nn.Threshold(0.1, 20.0), False), (nn.Hardtanh(), False), (nn.Sigmoid(), False),
    (nn.Hardsigmoid(), False), (nn.Tanh(), False), (nn.ELU(), False), (nn.CELU(), False),
    (nn.SELU(), False), (nn.Softplus(), False), (nn.LogSigmoid(), False), (nn.Softsign(), False),
    (nn.Softmax(dim=1), False),
]  # fmt: skip


@pytest.mark.parametrize(("act", "zero"), OFF_IS_ZERO, ids=lambda value: str(value))
def test_zero_is_off_for_rectifiers_alone(act: nn.Module, zero: bool) -> None:
    x = torch.rand(1, 1, 5, 6)
    for tail, rectified in (
        ([act], zero),
        ([nn.BatchNorm2d(2), act], zero),
        ([act, nn.Dropout(0.5)], zero),
        ([act, nn.BatchNorm2d(2)], False),
        ([act, nn.InstanceNorm2d(2), nn.Dropout(0.5)], False),
        ([nn.ReLU(), act], zero),
    ):
        network = nn.Sequential(nn.Conv2d(1, 2, 1), *tail).eval()
        (unit,) = find_units(network, x)
        assert unit.rectified is rectified, tail


def test_a_dead_filter_can_be_switched_off_without_a_trace() -> None:
    """Behind a norm it answers the norm's level, not zero."""
    network = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.ReLU(), nn.BatchNorm2d(2, eps=0.0), nn.Conv2d(2, 1, 1, bias=False)
    ).eval()
    with torch.no_grad():
        network[0].get_parameter("weight").zero_()
        network[0].get_parameter("bias").fill_(-1.0)
        network[2].get_buffer("running_mean").fill_(5.0)
        network[3].get_parameter("weight").fill_(1.0)
    x = torch.rand(1, 1, 4, 3)
    with torch.no_grad(), switched_off(network, find_units(network, x), {"0": [0]}):
        assert torch.equal(network(x), torch.full((1, 1, 4, 3), -10.0))


def test_filters_are_off_in_every_pass_inside() -> None:
    network = nn.Sequential(one_filter(nn.ReLU()), nn.Conv2d(1, 1, 1, bias=False))
    x = torch.ones(1, 1, 4, 3)
    units = find_units(network, x)
    with torch.no_grad():
        plain = float(network(x).abs().mean())
        with switched_off(network, units, {"0.0": [0]}):
            assert [float(network(x).abs().mean()) for _ in range(3)] == [0.0] * 3
        assert float(network(x).abs().mean()) == plain > 0


def test_a_second_call_in_each_pass_keeps_its_label() -> None:
    conv = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.fill_(2.0)
    network = nn.Sequential(conv, conv)
    x = torch.rand(1, 1, 4, 3)
    expected = 4 * x.mean() + 6  # 2 (2 x + 2) + 2, level in place of the second answer
    with torch.no_grad(), switched_off(network, find_units(network, x), {"0#2": [0]}):
        for _ in range(2):
            torch.testing.assert_close(network(x), expected.expand(1, 1, 4, 3))


def test_filters_are_off_when_the_fast_way_is_tried_again() -> None:
    class FailsOnce(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.see, self.act, self.out = nn.Conv3d(1, 3, 3), nn.ReLU(), nn.Conv3d(3, 2, 1)
            self.failed = True

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.out(self.act(self.see(x)))
            if not self.failed:
                self.failed = True
                raise RuntimeError("view size is not compatible with input tensor's size")
            return out

    network = FailsOnce().eval()
    x = torch.randn(1, 1, 5, 6, 7)
    units = find_units(network, x)
    with torch.no_grad(), switched_off(network, units, {"see": [0, 1, 2]}):
        expected = network(x)
        network.failed = False
        found = run_fast(network, x, lambda laid: network(laid.clone()))
    bias = network.out.bias
    assert bias is not None
    torch.testing.assert_close(found, bias.detach().reshape(1, 2, 1, 1, 1).expand_as(found))
    torch.testing.assert_close(found, expected)


def test_refusals() -> None:
    network, cases = planted(2)
    x, masks = cases[0]
    with pytest.raises(MethodError, match="differ"):
        Dissection(network, ["a", "a"])
    with pytest.raises(MethodError, match="add at least one"):
        list(Dissection(network, ["bright"]).matches())
    dissection = Dissection(network, ["bright"])
    with pytest.raises(MethodError, match="one case at a time"):
        dissection.add(torch.cat([x, x]), masks)
    with pytest.raises(MethodError, match="concept bright has the mask none"):
        dissection.add(x, {})
    dissection.add(x, masks)
    with pytest.raises(MethodError, match="share in"):
        list(dissection.matches(1.5))
    with pytest.raises(MethodError, match="not finite"):
        dissection.add(x * torch.inf, masks)
    units = find_units(network, x)
    with (
        pytest.raises(LayerError, match="did you mean 'second'"),
        switched_off(network, units, {"secnd": [0]}),
    ):
        pass
    with (
        pytest.raises(LayerError, match="it has 4, from 0"),
        switched_off(network, units, {"second": [4]}),
    ):
        pass


def test_a_concept_that_never_occurs_is_left_out() -> None:
    network, cases = planted(2)
    x, masks = cases[0]
    dissection = Dissection(network, ["bright", "absent"])
    dissection.add(x, {**masks, "absent": torch.zeros_like(masks["bright"])})
    assert {match.concept for match in dissection.matches()} == {"bright"}
    assert dissection.share("absent") == 0
    assert np.isclose(dissection.share("bright"), float(masks["bright"].double().mean()))
