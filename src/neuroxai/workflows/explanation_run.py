"""The maps of several methods and targets at one input, from shared passes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from neuroxai.core.engine.settings import PassSettings
from neuroxai.core.errors import LayerError, MethodError
from neuroxai.core.explanation import Explanation
from neuroxai.core.probe.deviation import Deviation, measure_deviation
from neuroxai.core.probe.memory_plan import MemoryPlanner
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import InputGradient
from neuroxai.core.probe.shared_point import SharedPoint, share_point
from neuroxai.core.probe.strategy import MemoryUse, Strategy
from neuroxai.core.target.target import Target
from neuroxai.methods.base import Method
from neuroxai.workflows.control import Control
from neuroxai.workflows.question import place_notes

FORWARD_STEP = 1 / 3
"""Progress of a forward pass without a gradient: a backward pass takes about twice as long."""


@dataclass(frozen=True, eq=False)
class TargetResult:
    """The explanations of one target.

    Attributes
    ----------
    explanations
        Method name to explanation.
    refused
        Method name to the reason why it gives no map.
    output
        The network's output at the explained input, on the CPU.
    strategy, memory
        How the network was run, and the memory that was expected.
    shared_seconds
        Time of the passes that all targets share, so far.
    notes
        Warnings about the target and the passes.
    deviation
        Difference between the reduced precision and ``fp32``; None for ``fp32``.
    unfinished
        Names of the methods that were not computed because the run was interrupted.
    """

    explanations: Mapping[str, Explanation]
    refused: Mapping[str, str]
    output: Tensor
    strategy: Strategy
    memory: MemoryUse
    shared_seconds: float
    notes: tuple[str, ...]
    deviation: Deviation | None
    unfinished: tuple[str, ...] = ()


@dataclass(eq=False)
class ExplanationRun:
    """Explains several targets with several methods at one input.

    Targets share one forward pass at the input, as many as memory has room for the gradients of.
    From it each target takes one backward pass for each backward rule, whatever the number of
    methods.

    Attributes
    ----------
    planner
        Chooses how the network is run on the input.
    methods, targets
        What is computed.
    control
        Progress and cancellation.
    seed
        Seed of random numbers.
    precision
        ``fp32``, ``tf32`` or ``bf16``.
    background_value
        The value of air on the input scale, per modality.
    input_sha256
        Hash of the input.
    check_output
        Raises if the output of the first pass cannot be used.
    left_right_axis
        Spatial axis of the input between the patient's left and right; None if unknown.
    """

    planner: MemoryPlanner
    methods: Sequence[Method]
    targets: Sequence[Target]
    control: Control
    seed: int = 0
    precision: str = "fp32"
    background_value: tuple[float, ...] | None = None
    input_sha256: str | None = None
    check_output: Callable[[Tensor], None] | None = None
    left_right_axis: int | None = None
    _shared: tuple[Strategy, dict[int, SharedPoint]] | None = None
    _shared_seconds: float = 0.0
    _unfinished: tuple[str, ...] = ()

    def results(self) -> Iterator[TargetResult]:
        """Yield the targets' results, one after the other.

        Between two of them no pass runs, and the network is as it was found. On an interrupt, as by
        Ctrl-C, the methods of the target that are finished are yielded first.

        Raises
        ------
        MethodError
            If no method gives a map.
        CancelledError
            If the run was cancelled.
        KeyboardInterrupt
            After the last result, if the run was interrupted.
        """
        steps = sum(
            max(1, method.gradients) + FORWARD_STEP * method.forwards_at(self.planner.x)
            for method in self.methods
        )
        self.control.start(steps * len(self.targets))
        for number in range(len(self.targets)):
            result, _ = self.planner.run(partial(self._attempt, number))
            self._release(number)
            if not result.unfinished:
                self.control.reach(steps * (number + 1))
            yield result
            if result.unfinished:
                raise KeyboardInterrupt

    def _attempt(self, number: int, strategy: Strategy) -> TargetResult:
        """Explain one target by one strategy."""
        explanations, refused, output = self._explain(self._point(strategy, number))
        if not explanations:
            raise MethodError("; ".join(refused.values()))
        target, plan = self.targets[number], self.planner.plan()
        covered = self.planner.outputs.covered(output)
        notes = [
            *([] if covered is None else [covered.note()]),
            *place_notes(target, self.planner.outputs, output), *plan.notes(strategy),
        ]  # fmt: skip
        deviation = self._deviation(strategy, target)
        if deviation is not None:
            notes.append(deviation.note())
            explanations = _with_deviation(explanations, deviation)
        return TargetResult(
            explanations, refused, output.cpu(), strategy, plan.use(strategy),
            self._shared_seconds, tuple(notes), deviation, self._unfinished,
        )  # fmt: skip

    def _point(self, strategy: Strategy, number: int) -> SharedPoint:
        """Return a target's answers, computed together with those of the next targets."""
        shared = self._shared
        if shared is None or shared[0] is not strategy or number not in shared[1]:
            self._shared = None  # releases the answers of a strategy that failed
            self.control.enter("shared passes")
            started = time.perf_counter()
            requests = {each for method in self.methods for each in method.requests}
            gradients = sum(isinstance(each, InputGradient) for each in requests)
            count = self.planner.targets_at_once(strategy, gradients)
            targets = self.targets[number : number + count]
            probe = self._probe(strategy, targets[0])
            points = share_point(probe, self.planner.x, requests, targets)
            shared = self._shared = strategy, dict(enumerate(points, start=number))
            self._shared_seconds += time.perf_counter() - started
        return shared[1][number]

    def _release(self, number: int) -> None:
        """Release the answers of a target that is finished."""
        if self._shared is not None:
            self._shared[1].pop(number, None)

    def _explain(self, point: SharedPoint) -> tuple[dict[str, Explanation], dict[str, str], Tensor]:
        """Return each method's explanation, or the reason why there is none, and the output."""
        explanations: dict[str, Explanation] = {}
        refused: dict[str, str] = {}
        probe = point.probe
        with point.entered():
            if self.check_output is not None:
                self.check_output(probe.output())
            for number, method in enumerate(self.methods):
                try:
                    self.control.enter(f"{probe.target.description['name']}: {method.title}")
                    explanations[method.name] = method.explain(
                        probe, point.x, seed=self.seed, input_sha256=self.input_sha256
                    )
                except (MethodError, LayerError) as error:
                    if len(self.methods) == 1:
                        raise
                    refused[method.name] = str(error)
                except KeyboardInterrupt:
                    if not explanations:
                        raise
                    self._unfinished = tuple(each.name for each in self.methods[number:])
                    break
            return explanations, refused, probe.output()

    def _probe(self, strategy: Strategy, target: Target) -> Probe:
        settings = PassSettings(self.precision)
        probe = self.planner.probe(strategy, target, self.background_value, settings)
        probe.before_pass = self.control.check
        probe.on_gradient = self.control.advance
        probe.on_output = lambda samples: self.control.advance(FORWARD_STEP * samples)
        probe.left_right_axis = self.left_right_axis
        return probe

    def _deviation(self, strategy: Strategy, target: Target) -> Deviation | None:
        """Measure the deviation of a reduced precision; None for ``fp32``."""
        if self.precision == "fp32":
            return None
        make = partial(self.planner.probe, strategy, target, self.background_value)
        return measure_deviation(make, self.planner.x, self.precision)


def _with_deviation(
    explanations: Mapping[str, Explanation], deviation: Deviation
) -> dict[str, Explanation]:
    """Return the explanations with the deviation in their provenance."""
    added = {"deviation_from_fp32": deviation.describe()}
    return {
        name: dataclasses.replace(each, provenance={**each.provenance, **added})
        for name, each in explanations.items()
    }
