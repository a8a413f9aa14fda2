"""The probe of a network that sees an image in windows: exact gradients of the blended output."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.errors import LayerError, ModelError, NeuroXAIError
from neuroxai.core.layers.auto_layer import layer_by_default
from neuroxai.core.layers.layers import AUTO, Layer, LayerHooks, layer_grid
from neuroxai.core.layers.layout import Rearrange
from neuroxai.core.layers.reduction import ChannelWeightedReduction, PositionwiseReduction
from neuroxai.core.probe.answers import Answers, Passes
from neuroxai.core.probe.ensemble import Ensemble
from neuroxai.core.probe.one_pass import PassSetup, one_pass
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request
from neuroxai.core.probe.window_sums import SummedWeights, WindowSums
from neuroxai.core.probe.windows import Laid, Windows, check_answer
from neuroxai.core.spatial import resample_to, spatial_shape
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import BoundTarget, Target

Members = Mapping[LayerMap, tuple[LayerMap, ...]]
"""Requested map to what is requested of each window: one map per member of an ensemble."""


class SlidingWindow(Probe):
    r"""A probe of the output that is blended from overlapping windows.

    Blending is linear in the windows' outputs. The gradient of a target S of the blended output z
    therefore reaches window i times its share of the weights, and the windows' gradients add up:

    .. math:: \frac{dS}{dx} = \sum_i P_i^T \frac{\partial f}{\partial x_i}^T
              \left(\frac{w_i}{\sum_j w_j} \odot P_i \frac{\partial S}{\partial z}\right)

    where :math:`P_i` cuts out window i. This is exact, and needs the memory of one window and a
    few volumes: one sweep over the windows for z and one for the gradients, or the second alone
    for a target that is linear in z. A layer's map is combined over the windows as its
    :mod:`reduction <neuroxai.core.layers.reduction>` says. For an
    :class:`~neuroxai.core.probe.ensemble.Ensemble` it is the sum over the members. With a single
    window, all results equal those of :class:`~neuroxai.core.probe.whole_volume.WholeVolume`.

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
    >>> with probe.at(x):
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

    def visit(self, x: Tensor, requests: Collection[Request]) -> Answers:
        """Answer all requests at ``x`` in as few sweeps over its windows as possible."""
        laid = self._laid(x)
        self._bind_ahead(x)
        linear = bool(requests) and self._bound is not None and self._bound.linear
        output = self._any_output(x) if linear else self.run(x)
        bound = self.bind(output)
        if not requests:
            return Answers(output, bound.score(output))
        gradients = [each for each in requests if isinstance(each, InputGradient)]
        padded, seed = laid.pad(x), laid.pad(_output_gradient(bound, output))
        sums = WindowSums(laid, x, gradients, blends=linear, grid=self._window_grid())
        maps = [each for each in requests if isinstance(each, LayerMap)]
        members = self._members(padded[laid.first], maps, sums.refused)
        inner: set[Request] = {*gradients}.union(*members.values())
        for cut in laid:
            share = laid.share(cut).to(seed)
            result = one_pass(self._window_setup(seed[cut] * share), padded[cut], inner)
            self._count(replace(result, passes=replace(result.passes, gradients=0)))
            sums.add(cut, share, result.answers)
        if linear:
            output = laid.crop(sums.output)
        answers = sums.answers(output, bound.score(output))
        self._add_maps(members, x, sums, answers)
        if gradients:
            computed = x.shape[0] * len(gradients)
            self.passes += Passes(gradients=computed)
            self.on_gradient(computed)
        return answers

    def layer_grid(self, x: Tensor) -> tuple[int, ...]:
        """Return the image's own grid, as the maps of layers are combined on it."""
        return spatial_shape(x)

    def cell_size(self, x: Tensor, layer: Layer) -> tuple[float, ...]:
        """Return the edges of a layer's cell in voxels."""
        return tuple(n / c for n, c in zip(self._window_grid(), layer.shape[1:], strict=True))

    def describe(self) -> dict[str, Any]:
        """Return the windows, for the provenance."""
        return {"windows": self.windows.describe()}

    def _laid(self, x: Tensor) -> Laid:
        return self.windows.over(spatial_shape(x))

    def _window_grid(self) -> tuple[int, ...]:
        return layer_grid(self.network, self.windows.size)

    def _window_setup(self, output_gradient: Tensor) -> PassSetup:
        """Return the setup of a window's pass, given the gradient that its output receives."""
        return replace(self._setup(), bind=_WindowShare(output_gradient).bind)

    def _bind_ahead(self, x: Tensor) -> None:
        """Bind a target that needs no output, so that a linear one needs no sweep for it."""
        names = self.outputs.names
        if self._bound is None and names and not self._question.needs_output(self.outputs):
            shape = (x.shape[0], len(names), *spatial_shape(x))
            self.bind(x.new_zeros(1).expand(shape))

    def _any_output(self, x: Tensor) -> Tensor:
        """Return an output of the right shape, for a target with the same gradient everywhere."""
        names = self.outputs.names
        channels = len(names) if names else self.output().shape[1]
        return x.new_zeros((x.shape[0], channels, *spatial_shape(x)))

    def _members(
        self,
        window: Tensor,
        requests: Collection[LayerMap],
        refused: dict[Request, NeuroXAIError],
    ) -> Members:
        """Return what is requested of each window for the requested maps."""
        network, found = self.network, {}
        for request in requests:
            try:
                layer = self._default_layer(window) if request.layer == AUTO else request.layer
                reduction = _over_windows(request)
            except NeuroXAIError as error:
                refused[request] = error
                continue
            names = network.siblings(layer) if isinstance(network, Ensemble) else (layer,)
            found[request] = tuple(LayerMap(name, reduction) for name in names)
        return found

    def _default_layer(self, window: Tensor) -> str:
        def run(x: Tensor) -> Tensor:
            output = self.answer(x)
            check_answer(output, spatial_shape(x))
            return output

        self.passes += Passes(forward=1)
        return run_fast(
            self.network,
            window,
            lambda x: layer_by_default(self.network, x, run),
            self.settings,
            self.weights,
        )

    def _add_maps(self, members: Members, x: Tensor, sums: WindowSums, answers: Answers) -> None:
        """Add the maps, once the sums over all windows are known."""
        weights: dict[LayerMap, dict[str, Tensor]] = {}
        for request, several in members.items():
            missing = [each for each in several if each not in sums.maps]
            if missing:
                answers.refused[request] = sums.refused[missing[0]]
                continue
            if isinstance(request.reduction, ChannelWeightedReduction):
                weights[request] = dict(sums.mean_weights(each) for each in several)
            else:
                total = torch.stack([sums.maps[each][1] for each in several]).sum(dim=0)
                answers.maps[request] = (self._named(several, sums), sums.crop(total))
        if not weights:
            return
        with torch.no_grad():
            blended = self._laid(x).blend(x, lambda window: self._window_maps(window, weights))
        for request, values in zip(weights, blended.split(1, dim=1), strict=True):
            layer = self._named(members[request], sums)
            answers.maps[request] = (layer, values.contiguous())

    def _named(self, members: tuple[LayerMap, ...], sums: WindowSums) -> Layer:
        """Return the layer of a map, named for all members of an ensemble."""
        layer, _ = sums.maps[members[-1]]
        if isinstance(self.network, Ensemble):
            return replace(layer, name=self.network.in_all(layer.name))
        return layer

    def _window_maps(
        self, window: Tensor, weights: Mapping[LayerMap, Mapping[str, Tensor]]
    ) -> Tensor:
        """Return the maps with known channel weights on one window, ``(B, n, *S)``."""
        maps: dict[LayerMap, list[Tensor]] = {request: [] for request in weights}

        def visit(layer: Layer, output: Tensor, rearrange: Rearrange | None) -> None:
            # Computed at once, because the next layer may overwrite it.
            for request, of_layers in weights.items():
                known = of_layers.get(layer.name)
                if known is not None and isinstance(request.reduction, ChannelWeightedReduction):
                    values = output if rearrange is None else rearrange(output)
                    maps[request].append(request.reduction.combine(values.to(known), known))

        names = sorted({label.partition("#")[0] for each in weights.values() for label in each})
        with LayerHooks(self.network, names, visit, window.dim() - 2):
            self.forward(window)
        size = spatial_shape(window)
        low = [torch.stack(several).sum(dim=0) for several in maps.values()]
        return torch.cat([resample_to(each, self._window_grid(), size) for each in low], dim=1)


def _over_windows(request: LayerMap) -> SummedWeights | PositionwiseReduction:
    """Return the reduction of each window.

    Raises
    ------
    LayerError
        If it is defined on the whole image alone.
    """
    reduction = request.reduction
    if isinstance(reduction, ChannelWeightedReduction):
        return SummedWeights(reduction)
    if isinstance(reduction, PositionwiseReduction):
        return reduction
    raise LayerError(
        f"{type(reduction).__name__} is not defined over windows: use a reduction that is "
        "position-wise or channel-weighted, or pass the whole image at once"
    )


@dataclass(frozen=True, eq=False)
class _WindowShare:
    """A window's contribution to the target, up to a constant."""

    output_gradient: Tensor

    def bind(self, output: Tensor) -> _WindowShare:
        """Check that the output covers the window."""
        check_answer(output, spatial_shape(self.output_gradient))
        expected = self.output_gradient.shape[1]
        if output.shape[1] != expected:
            raise ModelError(
                f"the network returns {output.shape[1]} channels, its outputs name {expected}: "
                "name as many"
            )
        return self

    def score(self, output: Tensor) -> Tensor:
        """Return the contribution ``(B,)``."""
        return (output * self.output_gradient).sum(dim=tuple(range(1, output.dim())))


def _output_gradient(bound: BoundTarget, output: Tensor) -> Tensor:
    """Return ``dS/dz``, of the output's shape."""
    with torch.enable_grad():
        leaf = output.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(bound.score(leaf).sum(), [leaf])
    return gradient
