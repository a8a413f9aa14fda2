"""The probe of a network that sees an image in windows: exact gradients of the blended output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from neuroxai.core.engine.cell_positions import CellPositions
from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.network_state import restored
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.errors import LayerError, ModelError, NeuroXAIError
from neuroxai.core.layers.auto_layer import layer_by_default
from neuroxai.core.layers.labels import grid_of, is_auto, stands_for, with_grid
from neuroxai.core.layers.layers import Layer, LayerHooks, layer_grid
from neuroxai.core.layers.layout import Rearrange
from neuroxai.core.layers.reduction import ChannelWeightedReduction, PositionwiseReduction
from neuroxai.core.probe.answers import Answers, Passes
from neuroxai.core.probe.binding import Binding
from neuroxai.core.probe.ensemble import Ensemble
from neuroxai.core.probe.independence import is_unchanged_in_batch
from neuroxai.core.probe.one_pass import PassSetup, one_pass
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import InputGradient, LayerMap, Request
from neuroxai.core.probe.window_sums import SummedWeights, WindowSums
from neuroxai.core.probe.windows import PlacedWindows, Windows, check_window_output
from neuroxai.core.spatial import resample_to, spatial_shape
from neuroxai.core.target.bound_target import BoundTarget
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.target import Target

Members = Mapping[LayerMap, tuple[LayerMap, ...]]
"""Requested map to what is requested of each window: one map per member of an ensemble."""

_FORWARD_SHARE = 1 / 4
"""Progress of a sweep of forward passes before one of gradients, which takes three times longer."""


class SlidingWindow(Probe):
    r"""A probe of the output that is blended from overlapping windows.

    Blending is linear in the windows' outputs. The gradient of a target S of the blended output z
    therefore reaches window i times its share of the weights, and the windows' gradients add up:

    .. math:: \frac{dS}{dx} = \sum_i P_i^T \frac{\partial f}{\partial x_i}^T
              \left(\frac{w_i}{\sum_j w_j} \odot P_i \frac{\partial S}{\partial z}\right)

    where :math:`P_i` cuts out window i. This is exact, and needs the memory of one window and a
    few volumes: one sweep over the windows for z and one for the gradients, or the second alone
    for a target that is linear in z. Windows that the target's mask does not touch have a gradient
    of zero and are not run backward; away from the explained point, where the answer is not needed
    beyond the mask, they are not run at all. A layer's map is combined over the windows as its
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
        return self._sweep(x)

    def output_at(self, x: Tensor) -> Tensor:
        """Return the blended output of another image; progress moves with each window."""
        part = len(x) / len(self._placed(x))
        return self._sweep(x, part, self.on_output)

    def output_in_place(self, x: Tensor) -> Tensor:
        """Return the blended output from the windows that the target's mask touches."""
        cuts = self._touched(self._placed(x), [self.target])
        part = len(x) / (len(cuts) if cuts else len(self._placed(x)))
        return self._sweep(x, part, self.on_output, cuts)

    def _is_unchanged_in_batch(self, point: Tensor) -> bool:
        """Return whether a second window in the batch leaves the output of the first unchanged."""
        placed = self._placed(point)
        window = placed.pad(point)[placed.first]
        with restored(self.network), torch.no_grad():
            alone = self.forward(window)
        return is_unchanged_in_batch(self.network, self.forward, window, alone, self.settings)

    def _touched(
        self, placed: PlacedWindows, bound: Sequence[BoundTarget | None]
    ) -> list[Any] | None:
        """Return the windows that targets depend on; None if it may be all.

        A network that keeps state or draws random numbers runs all of them, in the same order.
        """
        if self.facts.keeps_state or self.facts.second_output is not None:
            return None
        masks = []
        for target in bound:
            for each in (target, target.against if target is not None else None):
                if each is not None and (each.mask is None or each.function is not None):
                    return None
                masks += [each.mask] if each is not None and each.mask is not None else []
            if target is None:
                return None
        return placed.touching(torch.cat([mask.detach().cpu() for mask in masks]))

    def _sweep(
        self,
        x: Tensor,
        part: float = 0.0,
        told: Callable[[float], None] | None = None,
        cuts: Sequence[Any] | None = None,
    ) -> Tensor:
        """Return the blended output, and report ``part`` of a step after each window."""
        tell = told or self.on_gradient

        def run(window: Tensor) -> Tensor:
            found = self.forward(window)
            if part:
                tell(part)
            return found

        with torch.no_grad():
            return self._placed(x).blend(x, run, cuts)

    def visit_targets(
        self, x: Tensor, requests: Collection[Request], bindings: Sequence[Binding]
    ) -> list[Answers]:
        """Answer all requests at ``x`` for each target, in as few sweeps as possible."""
        placed = self._placed(x)
        linear = [each.bind_without_output(x) for each in bindings]
        # One sweep needs the number of output channels before it.
        channels_known = bool(self.outputs.names) or self._answers is not None
        one_sweep = bool(requests) and all(linear) and channels_known
        gradients = [each for each in requests if isinstance(each, InputGradient)]
        maps = [each for each in requests if isinstance(each, LayerMap)]
        elsewhere = self._point is not None and x is not self._point
        needed = self._touched(placed, [each.bound for each in bindings]) if elsewhere else None
        # A step is one gradient, shared out over the windows of both sweeps.
        steps = x.shape[0] * len(gradients) * len(bindings) / len(needed or placed)
        before = 0.0 if one_sweep else steps * _FORWARD_SHARE
        output = self._any_output(x) if one_sweep else self._sweep(x, before, cuts=needed)
        bound = [each.bind(output) for each in bindings]
        touched = self._touched(placed, bound)
        if not requests:
            return [Answers(output, each.score(output)) for each in bound]
        padded = placed.pad(x)
        members, refused = self._members(padded[placed.first], maps)
        inner: set[Request] = {*gradients}.union(*members.values())
        seeds = [placed.pad(_output_gradient(each, output)) for each in bound]
        place = partial(self._place_in_window, x)
        sums = [WindowSums(placed, x, gradients, blends=one_sweep, place=place) for _ in bound]
        for cut in placed if needed is None else needed:
            share = placed.share(cut).to(output)
            if touched is not None and cut not in touched:
                if one_sweep:  # its output counts, its gradient is zero
                    self._blend(sums, cut, share, padded[cut])
                if gradients:
                    self.on_gradient(steps - before)
                continue
            self.before_pass()
            setup = self._window_setup([seed[cut] * share for seed in seeds])
            result = one_pass(setup, padded[cut], inner)
            found = self._count(replace(result, passes=replace(result.passes, gradients=0)))
            for each, answers in zip(sums, found, strict=True):
                each.add(cut, share, answers)
                each.refused |= refused
            if gradients:
                self.on_gradient(steps - before)
        if one_sweep:
            output = placed.crop(sums[0].output)
        found = [
            each.answers(output, target.score(output))
            for each, target in zip(sums, bound, strict=True)
        ]
        self._add_maps(members, x, sums, found)
        if gradients:
            self.passes += Passes(gradients=x.shape[0] * len(gradients) * len(bound))
        return found

    def _blend(self, sums: Sequence[WindowSums], cut: Any, share: Tensor, window: Tensor) -> None:
        """Add the output of a window that no target depends on."""
        with torch.no_grad():
            output = self.forward(window)
        check_window_output(output, spatial_shape(window))
        for each in sums:
            each.blend(cut, share, output)

    def positions(self, layer: Layer, x: Tensor) -> CellPositions | None:
        """Return None, as the maps of layers are placed in each window."""
        return None

    def _place_in_window(self, x: Tensor, values: Tensor, layer: Layer) -> Tensor:
        """Interpolate a layer's map to the window it is of."""
        size = self.windows.size
        positions = super().positions(layer, x.new_empty((1, x.shape[1], *size)))
        if positions is None:
            return resample_to(values, self._window_grid(), size)
        return positions.place(values, size)

    def layer_grid(self, x: Tensor) -> tuple[int, ...]:
        """Return the image's own grid, as the maps of layers are combined on it."""
        return spatial_shape(x)

    def cell_size(self, x: Tensor, layer: Layer) -> tuple[float, ...]:
        """Return the edges of a layer's cell in voxels."""
        return tuple(n / c for n, c in zip(self._window_grid(), layer.shape[1:], strict=True))

    def describe(self) -> dict[str, Any]:
        """Return the windows, for the provenance."""
        return {"windows": self.windows.describe()}

    def _placed(self, x: Tensor) -> PlacedWindows:
        return self.windows.place(spatial_shape(x))

    def _window_grid(self) -> tuple[int, ...]:
        return layer_grid(self.network, self.windows.size)

    def _window_setup(self, output_gradients: Sequence[Tensor]) -> PassSetup:
        """Return the setup of a window's pass, given each target's gradient of its output."""
        targets = tuple(_WindowShare(each).bind for each in output_gradients)
        return replace(self._setup([]), targets=targets)

    def _any_output(self, x: Tensor) -> Tensor:
        """Return an output of the right shape, for a target with the same gradient everywhere."""
        names = self.outputs.names
        channels = len(names) if names else self.output().shape[1]
        return x.new_zeros((x.shape[0], channels, *spatial_shape(x)))

    def _members(
        self, window: Tensor, requests: Collection[LayerMap]
    ) -> tuple[Members, dict[Request, NeuroXAIError]]:
        """Return what is requested of each window for the requested maps, and what is refused."""
        network, found = self.network, dict[LayerMap, tuple[LayerMap, ...]]()
        refused: dict[Request, NeuroXAIError] = {}
        for request in requests:
            try:
                layer = request.layer
                if is_auto(layer):
                    layer = with_grid(self._default_layer(window), grid_of(layer)) or layer
                reduction = _over_windows(request)
            except NeuroXAIError as error:
                refused[request] = error
                continue
            names = network.siblings(layer) if isinstance(network, Ensemble) else (layer,)
            found[request] = tuple(LayerMap(name, reduction) for name in names)
        return found, refused

    def _default_layer(self, window: Tensor) -> str:
        def run(x: Tensor) -> Tensor:
            output = self.answer(x)
            check_window_output(output, spatial_shape(x))
            return output

        self.before_pass()
        self.passes += Passes(forward=1)
        return run_fast(
            self.network,
            window,
            lambda x: layer_by_default(self.network, x, run),
            self.settings,
            self.weights,
        )

    def _add_maps(
        self, members: Members, x: Tensor, sums: Sequence[WindowSums], found: Sequence[Answers]
    ) -> None:
        """Add each target's maps, once the sums over all windows are known."""
        weights: dict[tuple[int, LayerMap], dict[str, Tensor]] = {}
        for number, (each, answers) in enumerate(zip(sums, found, strict=True)):
            for request, several in members.items():
                missing = [member for member in several if member not in each.maps]
                if missing:
                    answers.refused[request] = each.refused[missing[0]]
                elif isinstance(request.reduction, ChannelWeightedReduction):
                    known = (each.mean_weights(member) for member in several)
                    weights[number, request] = dict(known)
                else:
                    total = torch.stack([each.maps[member][1] for member in several]).sum(dim=0)
                    answers.maps[request] = (self._named(several, each), each.crop(total))
        if not weights:
            return
        with torch.no_grad():
            blended = self._placed(x).blend(x, lambda window: self._window_maps(window, weights))
        for (number, request), values in zip(weights, blended.split(1, dim=1), strict=True):
            layer = self._named(members[request], sums[number])
            found[number].maps[request] = (layer, values.contiguous())

    def _named(self, members: tuple[LayerMap, ...], sums: WindowSums) -> Layer:
        """Return the layer of a map, named for all members of an ensemble."""
        layer, _ = sums.maps[members[-1]]
        if isinstance(self.network, Ensemble):
            return replace(layer, name=self.network.in_all(layer.name))
        return layer

    def _window_maps(
        self, window: Tensor, weights: Mapping[tuple[int, LayerMap], Mapping[str, Tensor]]
    ) -> Tensor:
        """Return the maps with known channel weights on one window, ``(B, n, *S)``."""
        maps: dict[tuple[int, LayerMap], list[Tensor]] = {key: [] for key in weights}
        layers: dict[tuple[int, LayerMap], Layer] = {}

        def visit(layer: Layer, output: Tensor, rearrange: Rearrange | None) -> None:
            # Computed at once, because the next layer may overwrite it.
            for (number, request), of_layers in weights.items():
                known = next(
                    (of_layers[each] for each in of_layers if stands_for(each, layer.name)), None
                )
                if known is not None and isinstance(request.reduction, ChannelWeightedReduction):
                    values = output if rearrange is None else rearrange(output)
                    combined = request.reduction.combine(values.to(known), known)
                    maps[number, request].append(combined)
                    layers[number, request] = layer

        names = sorted({label for each in weights.values() for label in each})
        with LayerHooks(self.network, names, visit, window.dim() - 2):
            self.forward(window)
        placed = [
            self._place_in_window(window, torch.stack(several).sum(dim=0), layers[key])
            for key, several in maps.items()
        ]
        return torch.cat(placed, dim=1)


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
        check_window_output(output, spatial_shape(self.output_gradient))
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
