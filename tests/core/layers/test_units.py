"""Units of convolutions: where they end, and whether zero means inactive."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuroxai.core.layers.units import find_units
from neuroxai.models.deepseg import DeepSeg
from neuroxai.models.resnet import ResNet50


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
def test_zero_means_inactive_after_rectifiers_only(act: nn.Module, zero: bool) -> None:
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
