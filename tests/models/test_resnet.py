"""ResNet-50 against its known size, MONAI's network, and Table 1 of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from neuroxai.core.errors import ModelError
from neuroxai.models import ResNet50


def test_the_backbone_has_the_known_number_of_parameters() -> None:
    network = ResNet50(in_channels=3)
    backbone = [p for name, p in network.named_parameters() if not name.startswith("dense")]
    assert sum(p.numel() for p in backbone) == 23_508_032
    assert len([m for m in network.modules() if isinstance(m, nn.Conv2d)]) == 53


def test_parameter_names_equal_torchvisions() -> None:
    names = set(ResNet50().state_dict())
    for name in (
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.bias",
        "layer3.5.conv2.weight",
        "layer4.2.bn3.num_batches_tracked",
    ):
        assert name in names
    assert "layer1.1.downsample.0.weight" not in names


def test_the_backbone_equals_monais() -> None:
    monai = pytest.importorskip("monai.networks.nets")
    torch.manual_seed(0)
    oracle = monai.resnet50(
        spatial_dims=2,
        n_input_channels=2,
        conv1_t_size=7,
        conv1_t_stride=2,
        feed_forward=False,
        bias_downsample=False,
    ).eval()
    for module in oracle.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.normal_(0, 0.1)
            nn.init.uniform_(module.weight, 0.5, 1)
    network = ResNet50(in_channels=2).eval()
    missing, unexpected = network.load_state_dict(oracle.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"dense1", "dense2"}
    pooled: list[torch.Tensor] = []
    network.pool.register_forward_hook(lambda _module, args, _output: pooled.append(args[0]))
    x = torch.randn(3, 2, 70, 96)
    with torch.no_grad():
        network(x)
        expected = oracle(x)
    torch.testing.assert_close(pooled[0].mean((2, 3)), expected.flatten(1), rtol=1e-4, atol=1e-5)


def test_the_head_is_table_1() -> None:
    network = ResNet50(in_channels=1, out_channels=5, dropout=0.3)
    assert network.pool.output_size == 2
    assert (network.dense1.in_features, network.dense1.out_features) == (8192, 256)
    assert isinstance(network.dense1_relu, nn.ReLU)
    assert network.dropout.p == 0.3
    assert (network.dense2.in_features, network.dense2.out_features) == (256, 5)
    assert network.eval()(torch.zeros(2, 1, 112, 96)).shape == (2, 5)


def test_blocks_are_initialized_to_the_identity() -> None:
    block = ResNet50().layer1[1].eval()
    x = torch.rand(2, 256, 4, 5)
    torch.testing.assert_close(block(x), x)


def test_invalid_arguments_and_inputs() -> None:
    with pytest.raises(ModelError, match="out_channels"):
        ResNet50(out_channels=0)
    with pytest.raises(ModelError, match=r"expected \(B, 3, X, Y\)"):
        ResNet50()(torch.zeros(1, 1, 64, 64))
