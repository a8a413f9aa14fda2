"""The probe that looks through windows: the exact gradient of the blended answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.errors import ModelError, NeuroXAIError
from neuroxai.core.layers.auto_layer import layer_by_default
from neuroxai.core.layers.layers import AUTO, Layer, LayerHooks, layer_grid
from neuroxai.core.layers.layout import OnGrid
from neuroxai.core.probe.answers import Answers, Asks, Passes
from neuroxai.core.probe.ensemble import Ensemble
from neuroxai.core.probe.one_pass import one_pass
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.windows import Laid, Windows, check_answer
from neuroxai.core.spatial import resample_to, spatial_shape
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import BoundTarget, Target


class SlidingWindow(Probe):
    r"""Answers a method's questions about the blended answer of all windows.

    Blending is linear in the windows' answers, so the gradient of any target of it comes back to
    every window by the window's share of the weights, and adds up:

    .. math:: \frac{dS}{dx} = \sum_i P_i^T \frac{\partial f}{\partial x_i}^T
              \left(\frac{w_i}{\sum_j w_j} \odot P_i \frac{\partial S}{\partial z}\right)

    with :math:`P_i` the cut of window i. It is exact, in the memory of one window and the volumes:
    one sweep for the blended answer z, one to pull the gradient back, which alone does for a
    target that is linear in z. A layer's class activation map takes the mean gradient over all
    windows' cells as its filters' weights, and blends the windows' maps as their answers are
    blended; for an :class:`~neuroxai.core.probe.ensemble.Ensemble` it is the sum over the members.
    With one window, all of it equals :class:`~neuroxai.core.probe.whole_volume.WholeVolume`.

    Parameters
    ----------
    windows
        How the image is cut. The others are those of :class:`~neuroxai.core.probe.probe.Probe`.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> network = nn.Conv2d(1, 2, 3, padding=1)
    >>> windows = Windows((4, 4), torch.ones(4, 4), overlap=0.5)
    >>> probe, x = SlidingWindow(network, Class(1), windows=windows), torch.rand(1, 1, 6, 9)
    >>> with probe.at(x, Asks(gradient=True)):
    ...     tuple(probe.output().shape), tuple(probe.gradient(x).shape)
    ((1, 2, 6, 9), (1, 1, 6, 9))
    """

    def __init__(
        self,
        network: nn.Module,
        target: Target,
        outputs: Outputs | None = None,
        *,
        windows: Windows,
        background_value: tuple[float, ...] | None = None,
        settings: PassSettings | None = None,
    ) -> None:
        super().__init__(
            network, target, outputs, background_value=background_value, settings=settings
        )
        self.windows = windows

    def run(self, x: Tensor) -> Tensor:
        """Return the blended output, without a graph."""
        with torch.no_grad():
            return self._laid(x).blend(x, self.forward)

    def visit(self, x: Tensor, asks: Asks) -> Answers:
        """Answer everything asked about ``x`` in as few sweeps over its windows as it takes."""
        laid, sweeps = self._laid(x), asks.gradient or asks.guided or bool(asks.layers)
        self._bind_ahead(x)
        linear = sweeps and self._bound is not None and self._bound.linear
        output = self._any_output(x) if linear else self.run(x)
        bound = self.bind(output)
        if not sweeps:
            return Answers(output, bound.score(output))
        padded, seed = laid.pad(x), laid.pad(_seed(bound, output))
        pulled = _Pulled(laid, x, asks, blends=linear)
        layers = self._named(padded[laid.first], asks.layers, pulled.refused)
        names = frozenset(member for members in layers.values() for member in members)
        for cut in laid:
            share = laid.share(cut).to(seed)
            host = _Window(self, seed[cut] * share)
            inner = Asks(asks.gradient, asks.guided, names)
            pulled.add(cut, share, one_pass(host, padded[cut], inner, _total))
            self.extended = host.extended or self.extended
            self.passes.forward += host.passes.forward
            self.passes.backward += host.passes.backward
        if linear:
            output = laid.crop(pulled.output)
        answers = pulled.answers(output, bound.score(output))
        for name, members in layers.items():
            self._map(name, members, x, pulled, answers)
        if asks.gradient or asks.guided:
            self.passes.gradients += x.shape[0]
            self.passes.on_gradient(x.shape[0])
        return answers

    def layer_grid(self, x: Tensor) -> tuple[int, ...]:
        """Return the image's own grid: maps of layers are blended on it."""
        return spatial_shape(x)

    def describe(self) -> dict[str, Any]:
        """Return the windows."""
        return {"windows": self.windows.describe()}

    def _laid(self, x: Tensor) -> Laid:
        return self.windows.over(spatial_shape(x))

    def _bind_ahead(self, x: Tensor) -> None:
        """Bind a target that needs no output, so that a linear one needs no sweep for it."""
        names = self.outputs.names
        if self._bound is None and names and not self._question.needs_output(self.outputs):
            shape = (x.shape[0], len(names), *spatial_shape(x))
            self.bind(x.new_zeros(1).expand(shape))

    def _any_output(self, x: Tensor) -> Tensor:
        """Return an output of the right shape, for a target whose slope is the same everywhere."""
        names = self.outputs.names
        channels = len(names) if names else self.output().shape[1]
        return x.new_zeros((x.shape[0], channels, *spatial_shape(x)))

    def _named(
        self, window: Tensor, asked: frozenset[str], refused: dict[str, NeuroXAIError]
    ) -> dict[str, tuple[str, ...]]:
        """Return what every asked layer stands for: its own name, or one in every member."""
        named: dict[str, tuple[str, ...]] = {}
        for name in sorted(asked):
            try:
                plain = self._auto(window) if name == AUTO else name
            except NeuroXAIError as error:
                refused[name] = error
                continue
            network = self.network
            named[name] = network.siblings(plain) if isinstance(network, Ensemble) else (plain,)
        return named

    def _auto(self, window: Tensor) -> str:
        def run(x: Tensor) -> Tensor:
            output = self.answer(x)
            check_answer(output, spatial_shape(x))
            return output

        self.passes.forward += 1
        return run_fast(
            self.network,
            window,
            lambda x: layer_by_default(self.network, x, run),
            self.settings,
            self.weights,
        )

    def _map(
        self, name: str, members: tuple[str, ...], x: Tensor, pulled: _Pulled, answers: Answers
    ) -> None:
        """Blend the class activation map of a layer, with its filters' weights known."""
        missing = [member for member in members if member not in pulled.totals]
        if missing:
            answers.refused[name] = pulled.refused[missing[0]]
            return
        laid = self._laid(x)
        weights: dict[str, Tensor] = {}
        layer, _ = pulled.totals[members[-1]]
        for member in members:
            found, total = pulled.totals[member]
            cells = prod(found.shape[1:]) * prod(laid.padded) / prod(self.windows.size)
            weights[found.name] = total / cells
        with torch.no_grad():
            signed = laid.blend(x, lambda window: self._window_map(window, weights))
        if isinstance(self.network, Ensemble):
            layer = replace(layer, name=self.network.in_all(layer.name))
        answers.maps[name] = (layer, signed)

    def _window_map(self, window: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        maps: list[Tensor] = []

        def look(layer: Layer, output: Tensor, on_grid: OnGrid | None) -> None:
            # At once, because the next layer may write over it.
            if layer.name in weights:
                values = output if on_grid is None else on_grid(output)
                maps.append(torch.einsum("bc,bc...->b...", weights[layer.name], values))

        names = sorted({name.partition("#")[0] for name in weights})
        with LayerHooks(self.network, names, look, window.dim() - 2):
            self.forward(window)
        low = torch.stack(maps).sum(dim=0).unsqueeze(1)
        size = spatial_shape(window)
        return resample_to(low, layer_grid(self.network, size), size)


@dataclass(eq=False)
class _Window:
    """One window's pass: the answer is weighed by what comes back to it."""

    probe: SlidingWindow
    seed: Tensor
    extended: tuple[str, ...] = ()
    passes: Passes = field(init=False)

    def __post_init__(self) -> None:
        self.network = self.probe.network
        self.outputs = self.probe.outputs
        self.copied = self.probe.copied
        self.checkpointed = self.probe.checkpointed
        self.settings, self.weights = self.probe.settings, self.probe.weights
        self.answer = self.probe.answer
        self.passes = Passes()

    def bind(self, output: Tensor) -> _Window:
        """Refuse an answer that does not lie on the window."""
        check_answer(output, spatial_shape(self.seed))
        if output.shape[1] != self.seed.shape[1]:
            raise ModelError(
                f"the network returns {output.shape[1]} channels, its outputs name "
                f"{self.seed.shape[1]}: name as many"
            )
        return self

    def score(self, output: Tensor) -> Tensor:
        """Return what the window adds to the target, up to a constant."""
        return (output * self.seed).sum(dim=tuple(range(1, output.dim())))


class _Pulled:
    """What comes back from the windows, added up on the padded grid."""

    def __init__(self, laid: Laid, x: Tensor, asks: Asks, *, blends: bool) -> None:
        self._laid, self._blends = laid, blends
        shape = (*x.shape[:2], *laid.padded)
        self._gradient = x.new_zeros(shape) if asks.gradient else None
        self._guided = x.new_zeros(shape) if asks.guided else None
        self._output: Tensor | None = None
        self.totals: dict[str, tuple[Layer, Tensor]] = {}
        self.refused: dict[str, NeuroXAIError] = {}

    @property
    def output(self) -> Tensor:
        """The blended answer, padded, if it was asked for."""
        return self._output if self._output is not None else torch.zeros(0)

    def add(self, cut: Any, share: Tensor, found: Answers) -> None:
        """Add one window's answers."""
        if self._blends:
            if self._output is None:
                shape = (*found.output.shape[:2], *self._laid.padded)
                self._output = found.output.new_zeros(shape)
            self._output[cut].addcmul_(share, found.output)
        if self._gradient is not None and found.gradient is not None:
            self._gradient[cut] += found.gradient
        if self._guided is not None and found.guided is not None:
            self._guided[cut] += found.guided
        self.refused.update(found.refused)
        for name, (layer, total) in found.maps.items():
            before = self.totals[name][1] if name in self.totals else 0
            self.totals[name] = (layer, before + total)

    def answers(self, output: Tensor, score: Tensor) -> Answers:
        """Return the sums on the image's grid."""
        answers = Answers(output, score, refused=dict(self.refused))
        if self._gradient is not None and "gradient" not in self.refused:
            answers.gradient = self._laid.crop(self._gradient).contiguous()
        if self._guided is not None and "guided" not in self.refused:
            answers.guided = self._laid.crop(self._guided).contiguous()
        return answers


def _seed(bound: BoundTarget, output: Tensor) -> Tensor:
    """Return ``dS/dz``, of the output's shape."""
    with torch.enable_grad():
        leaf = output.detach().requires_grad_()
        (seed,) = torch.autograd.grad(bound.score(leaf).sum(), [leaf])
    return seed


def _total(activation: Tensor, gradient: Tensor) -> Tensor:
    """Return a layer's gradient summed over its cells, ``(B, C)``."""
    return gradient.sum(dim=tuple(range(2, gradient.dim())))
