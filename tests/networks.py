"""Small networks that tests share, and the ways to look at one before and after."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroxai.core.explanation import Explanation
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Class, Target
from neuroxai.methods import METHODS, make_method
from neuroxai.methods.base import Method

torch.set_num_threads(1)  # these networks are too small for two

BATCH, CLASSES = 3, 5
SHAPES: Mapping[int, tuple[int, ...]] = {2: (10, 14), 3: (4, 6, 8)}
CONV: Mapping[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
NORM: Mapping[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

QUICK: Mapping[str, Mapping[str, Any]] = {
    "integrated_gradients": {"steps": 4},
    "guided_integrated_gradients": {"steps": 5, "max_distance": 0.2},
    "smoothgrad": {"samples": 4},
    "class_model": {"steps": 3},
    "rise": {"samples": 8},
    "lime": {"segments": 12, "samples": 64},
    "kernel_shap": {"segments": 12, "samples": 64},
}
"""Parameters that keep a method short; those of the table that are not here run as they are."""


USUAL = [name for name, method in METHODS.items() if not method.on_request]
"""Names of the methods that ``all`` stands for."""


def quick(name: str) -> Method:
    return make_method(name, QUICK.get(name))


def quick_methods() -> list[Method]:
    """The methods that ``all`` stands for: those on request suit some networks only."""
    return [quick(name) for name in USUAL]


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network from a seed; norm statistics and biases are far from their defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
        with torch.no_grad():
            for module in network.modules():
                if not isinstance(module, nn.modules.batchnorm._BatchNorm):
                    continue
                if module.running_mean is not None and module.running_var is not None:
                    module.running_mean.normal_(0, 0.3)
                    module.running_var.uniform_(0.5, 2)
                    module.weight.uniform_(0.5, 1.5)
                    module.bias.normal_(0, 0.2)
    return network


class Classifier(nn.Module):
    """Three convolutions, one of them strided, a mean over space, a linear head."""

    def __init__(
        self, dims: int = 2, modalities: int = 4, act: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        conv = CONV[dims]
        self.first = conv(modalities, 6, 3, padding=1)
        self.norm = NORM[dims](6)
        self.first_act = act()
        self.second = conv(6, 7, 3, stride=2, padding=1)
        self.second_act = act()
        self.third = conv(7, 8, 3, padding=1)
        self.third_act = act()
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_act(self.norm(self.first(x)))
        x = self.second_act(self.second(x))
        x = self.third_act(self.third(x))
        out: Tensor = self.head(self.dropout(x.flatten(2).mean(dim=2)))
        return out


class Segmenter(nn.Module):
    """One level down and up again, with a skip."""

    def __init__(
        self, dims: int = 2, modalities: int = 4, act: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        conv = CONV[dims]
        self.enter = conv(modalities, 6, 3, padding=1)
        self.norm = NORM[dims](6)
        self.enter_act = act()
        self.down = conv(6, 7, 3, stride=2, padding=1)
        self.down_act = act()
        self.dropout = nn.Dropout(0.5)
        self.join = conv(13, 8, 3, padding=1)
        self.join_act = act()
        self.exit = conv(8, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enter_act(self.norm(self.enter(x)))
        low = self.dropout(self.down_act(self.down(skip)))
        up = functional.interpolate(low, size=skip.shape[2:], mode="nearest")
        out: Tensor = self.exit(self.join_act(self.join(torch.cat([up, skip], dim=1))))
        return out


class Pooled(nn.Module):
    """A segmenter as the multi-label classifier that its targets see."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return out.flatten(2).mean(dim=2) if out.dim() > 2 else out


TASKS: Mapping[str, Callable[..., nn.Module]] = {"classifier": Classifier, "segmenter": Segmenter}


def make(
    task: str,
    dims: int = 2,
    modalities: int = 4,
    act: Callable[[], nn.Module] = nn.ReLU,
    seed: int = 0,
) -> nn.Module:
    network = seeded(seed, lambda: TASKS[task](dims, modalities, act))
    last = network.get_submodule("head" if task == "classifier" else "exit")
    with torch.no_grad():
        # Class 2 has mostly positive evidence, so that its class activation map is not all zeros.
        last.weight[2, 2:].abs_()  # type: ignore[index]
    return network


def image(dims: int = 2, modalities: int = 4, batch: int = BATCH, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, modalities, *SHAPES[dims], generator=generator)


def explain(
    method: str | Method,
    network: nn.Module,
    x: Tensor,
    target: Target | None = None,
    outputs: Outputs | None = None,
    seed: int = 0,
) -> Explanation:
    made = quick(method) if isinstance(method, str) else method
    probe = WholeVolume(network, target or Class(2), outputs)
    return made.explain(probe, x, seed=seed)


def relative(got: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value."""
    assert got.shape == expected.shape
    scale = float(expected.double().abs().max())
    assert scale > 0, "an expected map of zeros proves nothing"
    return float((got.double() - expected.double()).abs().max()) / scale


def plain_gradient(network: nn.Module, x: Tensor, channel: int) -> Tensor:
    """The gradient of a class's mean output, by autograd and nothing else."""
    leaf = x.detach().clone().requires_grad_()
    score = Pooled(network)(leaf)[:, channel].sum()
    (gradient,) = torch.autograd.grad(score, leaf)
    return gradient


class OlderNumpy:
    """NumPy with the ``interpolation=`` that ``np.quantile`` lost in 2.4."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def quantile(a: Any, q: float, *, interpolation: str) -> Any:
        return np.quantile(a, q, method=interpolation)  # type: ignore[call-overload]


def snapshot(network: nn.Module) -> dict[str, Any]:
    """Everything about a network and the world around it that an explanation must not change."""
    seen: dict[str, Any] = {
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002 - the global state is what is guarded
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "function modes": torch.overrides._len_torch_function_stack()
        if hasattr(torch.overrides, "_len_torch_function_stack")
        else len(torch.overrides._get_current_function_mode_stack()),
    }
    for name, module in network.named_modules():
        seen[f"{name} attributes"] = sorted(vars(module))
        seen[f"{name} training"] = module.training
        seen[f"{name} inplace"] = getattr(module, "inplace", None)
        for key, table in vars(module).items():
            if "hook" in key:
                seen[f"{name} {key}"] = list(table) if isinstance(table, dict) else table
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        seen[f"{name} identity"] = id(value)
        seen[f"{name} bytes"] = (
            value.detach().view(torch.uint8).numpy().tobytes() if value.dim() else value.item()
        )
        seen[f"{name} wants gradient"] = value.requires_grad
        seen[f"{name} hooks"] = list(value._backward_hooks or ())
        gradient = value.grad
        seen[f"{name} gradient"] = None if gradient is None else (id(gradient), gradient.tolist())
    return seen
