"""Networks of MONAI × methods × {2D, 3D}: each map against an oracle, or the reason for none.

``python tests/monai_matrix.py docs/networks.md`` writes the table of the docs; the tests check it.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from networks import OlderNumpy, relative, seeded
from neuroxai.core.errors import NeuroXAIError
from neuroxai.core.explanation import Explanation
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.spatial import upsample
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method
from neuroxai.methods.base import Method

TARGET, SEED, EXACT = 1, 3, 1e-6
Build = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Kind:
    """A network, the smallest inputs it takes, and what is special about it."""

    build: Build
    shapes: Mapping[int, tuple[int, ...]]
    special: str
    key: int | None = None
    seed: int = 5
    measured: bool = False
    """Whether batch norms take their statistics from the input: with drawn ones nothing of it
    reaches the end of a network this deep."""


def _nets() -> Any:
    import monai.networks.nets

    return monai.networks.nets


def _unet(d: int) -> nn.Module:
    made: nn.Module = _nets().UNet(d, 2, 3, (4, 8, 16), (2, 2), num_res_units=1)
    return made


def _highres(d: int) -> nn.Module:
    layers = (
        {"name": "conv_0", "n_features": 4, "kernel_size": 3},
        {"name": "res_1", "n_features": 4, "kernels": (3, 3), "repeat": 1},
        {"name": "res_2", "n_features": 8, "kernels": (3, 3), "repeat": 2},
        {"name": "conv_1", "n_features": 8, "kernel_size": 1},
        {"name": "conv_2", "kernel_size": 1},
    )
    made: nn.Module = _nets().HighResNet(
        d, 2, 3, acti_type=("elu", {"inplace": True}), dropout_prob=0.2, layer_params=layers
    )
    return made


def _dynunet(d: int) -> nn.Module:
    made: nn.Module = _nets().DynUNet(
        d, 2, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=[4, 8, 16], deep_supervision=True,
    )  # fmt: skip
    return made


def _resnet(d: int) -> nn.Module:
    made: nn.Module = _nets().ResNet(
        "basic", [1, 1, 1, 1], [4, 8, 8, 16], spatial_dims=d, n_input_channels=2, num_classes=3,
        conv1_t_size=3,
    )  # fmt: skip
    return made


def _efficientnet(d: int) -> nn.Module:
    made: nn.Module = _nets().EfficientNetBN(
        "efficientnet-b0", pretrained=False, spatial_dims=d, in_channels=2, num_classes=3
    )
    return made


def _unetr(d: int) -> nn.Module:
    size = {2: (32, 48), 3: (32, 16, 48)}[d]
    made: nn.Module = _nets().UNETR(
        2, 3, size, feature_size=4, hidden_size=24, mlp_dim=32, num_heads=2, spatial_dims=d
    )
    return made


def _swin(d: int) -> nn.Module:
    made: nn.Module = _nets().SwinUNETR(
        2, 3, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2), window_size=4,
        spatial_dims=d,
    )  # fmt: skip
    return made


PATCH = 8
"""Width of a patch of the vision transformer, in voxels."""


def _vit(d: int) -> nn.Module:
    size = {2: (16, 24), 3: (16, 8, 24)}[d]
    made: nn.Module = _nets().ViT(
        2, size, PATCH, hidden_size=24, mlp_dim=32, num_layers=2, num_heads=2, classification=True,
        num_classes=3, spatial_dims=d, post_activation="",
    )  # fmt: skip
    return made


NETWORKS: Mapping[str, Kind] = {
    "UNet": Kind(_unet, {2: (16, 24), 3: (16, 8, 24)}, "PReLU, instance norm, residual units"),
    "BasicUNet": Kind(
        lambda d: _nets().BasicUNet(d, 2, 3, (4, 4, 8, 8, 16, 4)),
        {2: (32, 48), 3: (32, 16, 48)}, "LeakyReLU in place, instance norm",
    ),
    "BasicUNetPlusPlus": Kind(
        lambda d: _nets().BasicUNetPlusPlus(d, 2, 3, (4, 4, 8, 8, 16, 4)),
        {2: (32, 48), 3: (32, 16, 32)}, "a list of outputs, of which the first counts", key=0,
    ),
    "SegResNet": Kind(
        lambda d: _nets().SegResNet(d, 8, 2, 3, blocks_down=(1, 1), blocks_up=(1,)),
        {2: (8, 12), 3: (8, 4, 12)}, "group norm, ReLU in place and reused",
    ),
    "DynUNet": Kind(
        _dynunet, {2: (16, 24), 3: (16, 8, 24)},
        "deep supervision, LeakyReLU in place, instance norm",
    ),
    "AttentionUnet": Kind(
        lambda d: _nets().AttentionUnet(d, 2, 3, (4, 8, 16), (2, 2)),
        {2: (16, 24), 3: (16, 8, 24)}, "attention gates by sigmoid",
    ),
    "HighResNet": Kind(
        _highres, {2: (12, 20), 3: (8, 6, 12)}, "dilated convolutions, ELU in place, dropout",
        seed=9,
    ),
    "UNETR": Kind(_unetr, {2: (32, 48), 3: (32, 16, 48)}, "transformer, GELU and LeakyReLU"),
    "SwinUNETR": Kind(
        _swin, {2: (64, 32), 3: (64, 32, 32)}, "shifted windows, GELU, layer norm", seed=7,
    ),
    "ResNet": Kind(_resnet, {2: (48, 32), 3: (32, 16, 48)}, "classifier, ReLU in place and reused"),
    "DenseNet": Kind(
        lambda d: _nets().DenseNet(d, 2, 3, init_features=8, growth_rate=4, block_config=(2, 2)),
        {2: (32, 48), 3: (32, 48, 24)}, "classifier, concatenations",
    ),
    "EfficientNet": Kind(
        _efficientnet, {2: (32, 64), 3: (32, 64, 32)}, "classifier, SiLU in place",
        measured=True,
    ),
    "ViT": Kind(_vit, {2: (16, 24), 3: (16, 8, 24)}, "classifier of patches, a tuple out", key=0),
}  # fmt: skip


SLOW_IN_3D = ("BasicUNet", "BasicUNetPlusPlus", "SwinUNETR", "EfficientNet")
"""Networks whose structure the others cover in 3D, which take four fifths of the time of all."""

CASES = [
    pytest.param(name, dims, marks=[pytest.mark.soak] if dims == 3 and name in SLOW_IN_3D else [])
    for name in NETWORKS
    for dims in (2, 3)
]
"""Parameters ``name`` and ``dims`` of a test over the matrix."""


class Rule(torch.autograd.Function):
    """The guided rule on the result of one activation, by autograd and nothing of ours."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (y,), (gradient,) = ctx.saved_tensors, gradients
        passes: Tensor = (y > 0) & (gradient > 0)
        return gradient * passes


class Through(torch.autograd.Function):
    """An activation whose backward pass lets every positive gradient through (Zeiler & Fergus)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
        return act(x.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * (gradients[0] > 0), None


RECTIFIERS = {"ReLU", "LeakyReLU", "PReLU", "ELU", "GELU", "SiLU", "MemoryEfficientSwish"}


def bent(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """A forward hook that hangs the rule on an activation."""
    found: Tensor = Rule.apply(output)  # type: ignore[no-untyped-call]
    return found


def _through(x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    found: Tensor = Through.apply(x, act)  # type: ignore[no-untyped-call]
    return found


class Case:
    """One network in one dimension, in float64, and the oracles of its maps."""

    def __init__(self, name: str, dims: int) -> None:
        self.kind = NETWORKS[name]
        self.network = seeded(self.kind.seed, lambda: self.kind.build(dims)).double().eval()
        generator = torch.Generator().manual_seed(9)
        shape = ({2: 3, 3: 1}[dims], 2, *self.kind.shapes[dims])
        self.x = torch.rand(shape, generator=generator).double()
        self.start = torch.rand(shape, generator=generator).double() * 0.2 - 0.3
        self.outputs = Outputs(key=self.kind.key)
        if self.kind.measured:
            self._measure()

    def _measure(self) -> None:
        norms = [
            m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
        ]
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            self.network(torch.rand((4, *self.x.shape[1:]), generator=generator).double())
        self.network.eval()

    def explain(self, method: Method) -> Explanation:
        probe = WholeVolume(self.network, Class(TARGET), self.outputs)
        return method.explain(probe, self.x, seed=SEED)

    def score(self, x: Tensor) -> Tensor:
        out = self.network(x.clone())
        out = out if isinstance(out, Tensor) else out[self.kind.key]
        chosen: Tensor = out[:, TARGET]
        return chosen.flatten(1).mean(dim=1) if chosen.dim() > 1 else chosen

    def gradient(self, x: Tensor) -> Tensor:
        leaf = x.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(self.score(leaf).sum(), leaf)
        return found

    def guided(self) -> Tensor:
        handles = [
            module.register_forward_hook(bent)
            for module in self.network.modules()
            if type(module).__name__ in RECTIFIERS
        ]
        try:
            return self.gradient(self.x)
        finally:
            for handle in handles:
                handle.remove()

    def deconvolved(self) -> Tensor:
        found = [m for m in self.network.modules() if type(m).__name__ in RECTIFIERS]
        for module in found:
            module.forward = partial(_through, act=module.forward)
        try:
            return self.gradient(self.x)
        finally:
            for module in found:
                del module.__dict__["forward"]

    def cam(self, method: str, layer: str) -> Tensor:
        """Return the map of a layer, as large as the input; HiResCAM alone is not rectified."""
        low = self.layer_cam(method, layer)
        return upsample(low if method == "hirescam" else low.relu(), self.x.shape[2:])

    def layer_cam(self, method: str, layer: str) -> Tensor:
        """Return the map of a layer's last call, copied before layers that work in place."""
        kept: list[Tensor] = []

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            kept.append(output)
            return output.clone()

        def before(module: nn.Module, inputs: Any) -> Tensor:
            return hook(module, inputs, inputs[0])

        module = self.network.get_submodule(layer.removesuffix(":input"))
        if layer.endswith(":input"):
            handle = module.register_forward_pre_hook(before)
        else:
            handle = module.register_forward_hook(hook)
        try:
            total = self.score(self.x).sum()
        finally:
            handle.remove()
        (gradient,) = torch.autograd.grad(total, kept[-1])
        activation = kept[-1].detach()
        if activation.dim() == 3:  # tokens, channels last
            gradient, activation = self._on_grid(gradient), self._on_grid(activation)
        if method == "hirescam":
            low = torch.einsum("bk...,bk...->b...", gradient, activation)
        elif method == "layercam":
            low = torch.einsum("bk...,bk...->b...", gradient.relu(), activation)
        else:
            weights = gradient.flatten(2).mean(dim=2)
            low = torch.einsum("bk,bk...->b...", weights, activation)
        return low.unsqueeze(1)

    def _on_grid(self, tokens: Tensor) -> Tensor:
        """Return the patch tokens of all positions, without a class token in front of them."""
        grid = [size // PATCH for size in self.x.shape[2:]]
        patches = tokens[:, tokens.shape[1] - math.prod(grid) :]
        return patches.transpose(1, 2).reshape(len(patches), -1, *grid)

    def integrated(self, steps: int) -> Tensor:
        total = torch.zeros_like(self.x)
        for k in range(steps):
            total += self.gradient(self.start + (k + 0.5) / steps * (self.x - self.start))
        return (self.x - self.start) * total / steps

    def smooth(self, samples: int, noise: float) -> Tensor:
        generator, maps = torch.Generator().manual_seed(SEED), []
        flat = self.x.flatten(2)
        sigma = noise * (flat.amax(dim=2) - flat.amin(dim=2))
        sigma = sigma.reshape(*sigma.shape, *[1] * (self.x.dim() - 2))
        for _ in range(samples):
            drawn = torch.randn(self.x.shape, generator=generator).double()
            maps.append(self.gradient(self.x + sigma * drawn))
        return torch.stack(maps).mean(dim=0)

    def guided_path(self, steps: int) -> Tensor:
        """Guided IG by its authors' own code."""
        import saliency.core as saliency
        from saliency.core import guided_ig

        def call(values: Any, call_model_args: Any, expected_keys: Any) -> dict[str, Any]:
            return {
                saliency.INPUT_OUTPUT_GRADIENTS: self.gradient(torch.from_numpy(values)).numpy()
            }

        kept, guided_ig.np = guided_ig.np, OlderNumpy()
        try:
            found = [
                saliency.GuidedIG().GetMask(
                    x.numpy(), call, x_baseline=start.numpy(), x_steps=steps, fraction=0.25,
                    max_dist=0.2,
                )
                for x, start in zip(self.x, self.start, strict=True)
            ]  # fmt: skip
        finally:
            guided_ig.np = kept
        return torch.from_numpy(np.stack(found))

    def expected(self, method: str, found: Explanation) -> Tensor:
        if method == "vanilla_gradient":
            return self.gradient(self.x)
        if method == "guided_backprop":
            return self.guided()
        if method == "integrated_gradients":
            return self.integrated(3)
        if method == "guided_integrated_gradients":
            return self.guided_path(3)
        if method == "smoothgrad":
            return self.smooth(2, 0.15)
        if method == "deconvolution":
            return self.deconvolved()
        assert found.layer is not None
        cam = self.cam(method, found.layer)
        return cam * self.guided() if method == "guided_grad_cam" else cam

    def method(self, name: str) -> Method:
        parameters: Mapping[str, Mapping[str, Any]] = {
            "integrated_gradients": {"steps": 3, "baseline": self.start},
            "guided_integrated_gradients": {
                "steps": 3, "fraction": 0.25, "max_distance": 0.2, "baseline": self.start,
            },
            "smoothgrad": {"samples": 2, "noise": 0.15},
        }  # fmt: skip
        return make_method(name, parameters.get(name))


def finite_difference(case: Case, gradient: Tensor) -> float:
    """How far the gradient is from central differences in one random direction."""
    direction = torch.randn(
        case.x.shape, generator=torch.Generator().manual_seed(2), dtype=case.x.dtype
    )
    along = (gradient * direction).flatten(1).sum(dim=1)
    closest = torch.full_like(along, torch.inf)
    for h in (1e-2, 1e-3, 1e-6, 1e-7, 1e-8):  # short for kinks, long for tiny slopes
        with torch.no_grad():
            above, below = case.score(case.x + h * direction), case.score(case.x - h * direction)
        closest = torch.minimum(closest, ((above - below) / (2 * h) - along).abs())
    return float(closest.max() / along.abs().max())


def cells(name: str, dims: int) -> dict[str, str]:
    """Return, per method, ``yes`` once the map equals its oracle, or the reason for none."""
    case, found = Case(name, dims), {}
    for method in COLUMNS:
        try:
            explanation = case.explain(case.method(method))
        except NeuroXAIError as error:
            found[method] = f"no: {error}"
            continue
        expected = case.expected(method, explanation)
        if float(expected.abs().max()) == 0:
            # A class activation map without evidence for the class; it says so.
            assert float(explanation.values.abs().max()) == 0, (name, dims, method)
            said = explanation.notes
            reasons = ("no positive value", "exactly zero")
            assert any(reason in note for note in said for reason in reasons), (name, dims, said)
        else:
            difference = relative(explanation.values, expected)
            assert difference <= EXACT, (name, dims, method, difference)
        if method == "vanilla_gradient":
            assert finite_difference(case, explanation.values) <= 2e-5, (name, dims)
        found[method] = "yes"
    return found


COLUMNS = (
    "vanilla_gradient", "guided_backprop", "integrated_gradients", "guided_integrated_gradients",
    "smoothgrad", "grad_cam", "guided_grad_cam", "deconvolution", "hirescam", "layercam",
)  # fmt: skip
"""Methods of the table, one for each way to request something of a network; the others are made
from the same requests."""

HEAD = """# Networks of MONAI, and which methods give a map

Made by `python tests/monai_matrix.py docs/networks.md`; the tests check every cell.

**yes**: the map equals an oracle that shares no code with it, to 10⁻⁶ in float64, in 2D and in 3D,
on small networks with drawn weights. The oracles are autograd and finite differences for the
gradient, the guided rule as an autograd function on every activation, the definitions written out
for integrated gradients, SmoothGrad, Grad-CAM, guided Grad-CAM, HiResCAM and LayerCAM, and the
authors' own code for guided integrated gradients. For deconvolution it is an activation whose
backward pass lets every positive gradient through. A number stands for the reason why there is no
map, as in the error message. Two entries are 2D / 3D.

| network | special | {methods} |
| --- | --- | {rule} |
"""


def line(name: str, found: Mapping[int, Mapping[str, str]], reasons: list[str]) -> str:
    """Return a network's line of the table; its reasons are added to those that are known."""
    entries = []
    for method in COLUMNS:
        words = [found[dims][method] for dims in (2, 3)]
        shown = []
        for word in words:
            if word == "yes":
                shown.append(word)
                continue
            reason = word.removeprefix("no: ")
            if reason not in reasons:
                reasons.append(reason)
            shown.append(f"no ({reasons.index(reason) + 1})")
        entries.append(shown[0] if shown[0] == shown[1] else " / ".join(shown))
    return f"| {name} | {NETWORKS[name].special} | {' | '.join(entries)} |"


def main(path: Path) -> None:
    """Write the table."""
    warnings.simplefilter("ignore")
    reasons: list[str] = []
    lines = []
    for name in NETWORKS:
        lines.append(line(name, {dims: cells(name, dims) for dims in (2, 3)}, reasons))
        print(lines[-1], flush=True)
    head = HEAD.format(methods=" | ".join(COLUMNS), rule=" | ".join("---" for _ in COLUMNS))
    notes = "".join(f"\n{number}. {reason}" for number, reason in enumerate(reasons, start=1))
    path.write_text(f"{head}{chr(10).join(lines)}\n{notes}{notes and chr(10)}", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
