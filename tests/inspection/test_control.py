"""Control network: shuffled weights, running statistics measured again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuroxai.inspection.control import shuffle_weights
from neuroxai.inspection.dissection import Dissection
from planted import activations, planted


def test_the_control_keeps_the_values_of_the_weights_and_no_detector() -> None:
    network, cases = planted(3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    control = shuffle_weights(network, [x for x, _ in cases], seed=3)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])
    for name, parameter in control.named_parameters():
        own = dict(network.named_parameters())[name]
        assert torch.equal(parameter.flatten().sort().values, own.flatten().sort().values)
    again = shuffle_weights(network, [x for x, _ in cases], seed=3)
    for one, other in zip(control.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    dissection = Dissection(control, ["bright", "chance"])
    for x, masks in cases:
        dissection.add(x, masks)
    chance = [m.iou for m in dissection.matches() if m.concept == "chance"]
    assert max(chance) < 0.5
    # With statistics measured again, no filter is inactive.
    for unit in dissection.units:
        if unit.rectified:
            assert float(activations(control, unit.end, cases[0][0]).amax()) > 0


def test_a_norm_with_one_value_per_channel_keeps_its_statistics() -> None:
    """As in squeeze-and-excitation blocks: a single value has no variance."""

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
    control = shuffle_weights(network, inputs)
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
