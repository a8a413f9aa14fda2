"""The base of sessions: one network on one input."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Generic, Self, TypeVar, overload

import torch
from torch import Tensor, nn

from neuroxai.core.engine.memory import parse_size
from neuroxai.core.engine.precision import check_precision, upcast
from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.errors import TargetError
from neuroxai.core.explanation import tensor_hash
from neuroxai.core.layers.labels import GridLike, with_grid
from neuroxai.core.probe.memory_plan import MemoryPlanner
from neuroxai.core.probe.output_location import OutputLocation
from neuroxai.core.probe.strategy import Strategy
from neuroxai.core.probe.windows import Windows
from neuroxai.core.progress import Report
from neuroxai.core.target.bound_target import same_target
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.scale import OutputScale
from neuroxai.core.target.target import Target
from neuroxai.methods.base import Method, check_input
from neuroxai.methods.make import MethodsLike, make_methods
from neuroxai.patient.explanations import Explanations, ExplanationsByTarget, Map
from neuroxai.workflows.control import Cancel, Control
from neuroxai.workflows.device import device_of, on_device
from neuroxai.workflows.estimate import Estimate, PassSeconds, estimate, time_passes
from neuroxai.workflows.explanation_run import ExplanationRun, TargetResult
from neuroxai.workflows.measure import (
    MapLike,
    MetricsLike,
    evidence_mask,
    make_metrics,
    map_on_network_grid,
)
from neuroxai.workflows.measurement import Facts, Measurements, Measuring
from neuroxai.workflows.question import (
    RestrictionLike,
    TargetLike,
    TargetsLike,
    as_target,
    as_targets,
    is_sequence,
    rescale_targets,
    restrict_by_default,
)
from neuroxai.workflows.shapley_session import modality_shapley

M = TypeVar("M", bound=Map)


@dataclass(frozen=True)
class SessionOptions:
    """How a session runs a network.

    Attributes
    ----------
    memory
        Memory that a pass may take, in bytes or as ``4GB``; by default 80 % of what is available.
    precision
        ``fp32``, ``tf32`` (NVIDIA GPUs) or ``bf16``.
    progress
        Called with the stage, the steps done, and all steps.
    cancel
        A function that returns whether to cancel, or an event.
    """

    memory: int | str | None = None
    precision: str = "fp32"
    progress: Report | None = None
    cancel: Cancel | None = None


class BaseSession(ABC, Generic[M]):
    """A network on one input; see :class:`~neuroxai.workflows.session.Session`.

    Parameters
    ----------
    network, x, outputs
        The network, its input ``(B, C, *S)``, and the names of its output channels.
    device
        Where the network runs; None for where it is.
    options
        How it is run.
    windows
        The windows of a network that is made for windows.
    """

    background_value: tuple[float, ...] | None = None
    """The value of air on the input scale, per modality."""
    modality_names: tuple[str, ...] | None = None
    """The modality of each channel; None if unknown."""
    left_right_axis: int | None = None
    """Spatial axis of the input between the patient's left and right; None if unknown."""

    def __init__(
        self,
        network: nn.Module,
        x: Tensor,
        outputs: Outputs,
        *,
        device: torch.device | None,
        options: SessionOptions,
        windows: Windows | None = None,
    ) -> None:
        check_input(x)
        home = device or device_of(network) or x.device
        check_precision(options.precision, home)
        budget = None if options.memory is None else parse_size(options.memory)
        if windows is None and outputs.locate is None:
            outputs = dataclasses.replace(outputs, locate=OutputLocation(network, x, outputs))
        self.network, self.outputs, self.precision = network, outputs, options.precision
        self._device = device
        self._planner = MemoryPlanner(network, upcast(x.to(home)), outputs, budget, windows)
        self._control = Control(options.progress, options.cancel)
        self._pass_seconds: PassSeconds | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(on_device(self.network, self._device))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Return the network to the device it was on."""
        self._open.close()

    @property
    def x(self) -> Tensor:
        """The network's input, ``(B, C, *S)``."""
        return self._planner.x

    @cached_property
    def input_sha256(self) -> str:
        """Hash of the network's input."""
        return tensor_hash(self.x)

    @overload
    def explain(  # type: ignore[overload-overlap]  # a string is one target, not a sequence
        self,
        methods: MethodsLike = "all",
        targets: TargetLike | None = None,
        *,
        layer: str | None = None,
        layer_grid: GridLike | None = None,
        within: RestrictionLike | None = None,
        scale: OutputScale | None = None,
        seed: int = 0,
    ) -> Explanations[M]: ...
    @overload
    def explain(
        self,
        methods: MethodsLike,
        targets: Sequence[TargetLike],
        *,
        layer: str | None = None,
        layer_grid: GridLike | None = None,
        within: RestrictionLike | None = None,
        scale: OutputScale | None = None,
        seed: int = 0,
    ) -> ExplanationsByTarget[M]: ...
    def explain(
        self,
        methods: MethodsLike = "all",
        targets: TargetsLike = None,
        *,
        layer: str | None = None,
        layer_grid: GridLike | None = None,
        within: RestrictionLike | None = None,
        scale: OutputScale | None = None,
        seed: int = 0,
    ) -> Explanations[M] | ExplanationsByTarget[M]:
        """Explain one target, or several with one forward pass.

        Parameters
        ----------
        methods
            Names from ``METHODS``, method objects or classes, ``all``, or a mapping of names to
            parameters.
        targets
            A target, a class or region by name, or a class by number; or a sequence of them.
            Default: a classifier's predicted class; a segmenter's first region.
        layer
            The layer of class activation maps.
        layer_grid
            The grid of the layer's cells, ``14x14`` or ``(14, 14)``, where the network does not
            show it. Tokens before the cells, such as class tokens, are left out.
        within
            Where a segmenter's targets are averaged: ``prediction``, ``image``, ``truth``,
            ``lesion:1``, a mask on the case's own grid (on the network's, for a tensor) or the path
            of its file, or a restriction. Default: the predicted region; the whole image where
            nothing is predicted.
        scale
            ``logit`` or ``probability``. Default: that of each target, which is the logit unless
            it was created with another one.
        seed
            Seed of random numbers.

        Returns
        -------
        Explanations or ExplanationsByTarget
            For a sequence, the explanations by target name.

        Raises
        ------
        NeuroXAIError
            If a parameter does not suit the network or the input. If one of several methods gives
            no map of this network, it is listed in ``refused`` instead.
        CancelledError
            If the session was cancelled.
        """
        each = self.explain_each(
            methods, targets, layer=layer, layer_grid=layer_grid, within=within, scale=scale,
            seed=seed,
        )  # fmt: skip
        found = list(each)
        return _by_target(found) if is_sequence(targets) else found[0]

    def explain_each(
        self,
        methods: MethodsLike = "all",
        targets: TargetsLike = None,
        *,
        layer: str | None = None,
        layer_grid: GridLike | None = None,
        within: RestrictionLike | None = None,
        scale: OutputScale | None = None,
        seed: int = 0,
    ) -> Iterator[Explanations[M]]:
        """Yield the explanations of each target as soon as they are computed.

        As :meth:`explain` with several targets, but the maps of one target can be written and
        released before those of the next are computed. On an interrupt, as by Ctrl-C, the
        explanations that are finished are yielded before the ``KeyboardInterrupt``; their
        ``unfinished`` names the methods that are not.
        """
        resolved = self._question(as_targets(targets, self.outputs), within, scale)
        made = self._methods(methods, with_grid(layer, layer_grid))
        run = ExplanationRun(
            self._planner, made, resolved, self._control, seed, self.precision,
            self.background_value, self.input_sha256, self._check_output,
            left_right_axis=self.left_right_axis,
        )  # fmt: skip
        results = run.results()
        while True:
            with self._running():
                result = next(results, None)
            if result is None:
                return
            yield self._explanations(result)

    def measure(
        self,
        methods: MethodsLike = (),
        metrics: MetricsLike = "all",
        target: TargetLike | None = None,
        *,
        maps: Mapping[str, MapLike] | None = None,
        mask: RestrictionLike | None = None,
        layer: str | None = None,
        layer_grid: GridLike | None = None,
        within: RestrictionLike | None = None,
        scale: OutputScale | None = None,
        importances: Tensor | None = None,
        networks: Sequence[nn.Module] = (),
        trivial: bool = True,
        seed: int = 0,
    ) -> Measurements:
        """Measure how good maps of a target are, beside maps that know nothing of the network.

        Parameters
        ----------
        methods, target, layer, layer_grid, within, scale, seed
            The maps, as for :meth:`explain`.
        metrics
            Names from ``METRICS``, metrics, ``all``, or a mapping of names to parameters. A metric
            that lacks what it needs is listed in ``missing``.
        maps
            Maps of other tools by name: arrays on the case's own grid (on the network's, for a
            tensor), or NIfTI files.
        mask
            Where the evidence is known to be, for metrics of localization: ``truth``, an array, or
            a file. Default: the target's region in the case's truth, if there is one.
        importances
            ``(B, C)``, the importance of each modality, for example modality Shapley values.
        networks
            Networks of the same outputs, trained from other seeds.
        trivial
            Whether to measure trivial maps too, see :mod:`neuroxai.metrics.trivial`.

        Raises
        ------
        NeuroXAIError
            If a parameter does not suit the network or the input.
        CancelledError
            If the session was cancelled.
        """
        (asked,) = self._question([as_target(target, self.outputs)], within, scale)
        given = {name: self._map(each) for name, each in (maps or {}).items()}
        chosen = self._methods(methods, with_grid(layer, layer_grid)) if methods else []
        facts = dataclasses.replace(
            self._facts(asked, mask), importances=importances, networks=tuple(networks)
        )
        measuring = Measuring(chosen, given, make_metrics(metrics), facts, trivial, seed)

        def attempt(strategy: Strategy) -> Measurements:
            settings = PassSettings(self.precision)
            probe = self._planner.probe(strategy, asked, self.background_value, settings)
            probe.left_right_axis = self.left_right_axis
            probe.before_pass = self._control.check
            return measuring.run(probe, self.x, self._control)

        with self._running():
            found, _ = self._planner.run(attempt)
        return found

    def _facts(self, target: Target, mask: RestrictionLike | None) -> Facts:
        """Return what is known beside the maps."""
        return Facts(evidence_mask(mask, target, self.outputs, self.x))

    def _map(self, given: MapLike) -> Tensor:
        """Return a map of another tool on the network's grid."""
        return map_on_network_grid(given, self.x)

    modality_shapley = modality_shapley

    def estimate(
        self,
        methods: MethodsLike = "all",
        targets: TargetsLike = None,
        *,
        layer: str | None = None,
        layer_grid: GridLike | None = None,
    ) -> Estimate:
        """Estimate time and memory of :meth:`explain`, from passes over a part of the input.

        Parameters
        ----------
        methods, targets, layer, layer_grid
            As for :meth:`explain`.
        """
        count = len(as_targets(targets, self.outputs))
        resolved = self._methods(methods, with_grid(layer, layer_grid))
        with self._running():
            if self._pass_seconds is None:
                self._pass_seconds = time_passes(self._planner)
            return estimate(self._planner, self._pass_seconds, resolved, count)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Context manager for passes: the network is on its device, and its errors are named."""
        self._control.check()
        with on_device(self.network, self._device), self._faults():
            yield

    def _faults(self) -> AbstractContextManager[None]:
        """Return the context manager that names the network in its errors."""
        return nullcontext()

    def _methods(self, methods: MethodsLike, layer: str | None) -> list[Method]:
        """Return the methods that a user's value stands for."""
        return make_methods(methods, layer)

    def _check_output(self, output: Tensor) -> None:
        """Raise if the output of the first pass cannot be used."""
        return

    def _question(
        self, targets: Sequence[Target], within: RestrictionLike | None, scale: OutputScale | None
    ) -> list[Target]:
        """Return the targets with their places and scales."""
        if scale is not None:
            targets = rescale_targets(targets, scale)
        return restrict_by_default(targets) if within is None else self._restrict(targets, within)

    @abstractmethod
    def _restrict(self, targets: Sequence[Target], within: RestrictionLike) -> list[Target]:
        """Return the targets with a restriction."""

    @abstractmethod
    def _explanations(self, result: TargetResult) -> Explanations[M]:
        """Return the result for the user."""


def _by_target(found: Iterable[Explanations[M]]) -> ExplanationsByTarget[M]:
    """Return explanations by target name; the same target by another name counts once.

    Raises
    ------
    TargetError
        If two different targets have the same name.
    """
    by_target: dict[str, Explanations[M]] = {}
    for each in found:
        first = by_target.setdefault(each.target, each)
        known, other = (next(iter(maps.values())).explanation for maps in (first, each))
        if not same_target(known.target, other.target):
            raise TargetError(
                f"two different targets are named {each.target!r}: explain them in separate calls"
            )
    return ExplanationsByTarget(by_target)
