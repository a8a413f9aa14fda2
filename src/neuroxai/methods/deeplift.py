"""DeepLIFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuroxai.core.errors import MethodError
from neuroxai.core.explanation import Attribution, Quantity
from neuroxai.core.probe.probe import Probe
from neuroxai.core.rules.backward_rule import BackwardRule, Call, GradientChange, Refused
from neuroxai.core.rules.operations import Operation, operation_of
from neuroxai.methods.base import Method
from neuroxai.methods.paths.baseline_names import AUTO
from neuroxai.methods.paths.baselines import Baseline, check_baseline
from neuroxai.methods.paths.completeness import completeness, gap_notes
from neuroxai.methods.paths.path_start import path_start, start_passes

_SAME = 1e-10
"""Difference of an activation's inputs below which its derivative replaces the quotient, as in
captum."""

_LINEAR = {Operation.WEIGHTED, Operation.AVERAGE, Operation.FIXED_NORM, Operation.MOVE,
           Operation.SCALE, Operation.SUM, Operation.SHIFT}  # fmt: skip


@dataclass(frozen=True)
class Rescale(BackwardRule):
    r"""The quotient of differences in place of every activation's derivative.

    .. math:: m_x = \frac{f(x) - f(x')}{x - x'} \, m_{f(x)}

    The batch holds the images in its first half and their baselines in the second.
    """

    title: ClassVar[str] = "DeepLIFT"

    def watch(self, call: Call) -> GradientChange | Refused | None:
        """Return the change at an activation or a max pooling; refuse operations without a rule."""
        operation = operation_of(call)
        if operation in _LINEAR:
            return None
        first = call.args[0] if call.args else None
        if isinstance(first, Tensor) and first.requires_grad:
            if operation is Operation.ACTIVATION:
                return _Quotient(call)
            if operation is Operation.MAX_POOL:
                return _PooledQuotient(call)
        return Refused(
            f"the rescale rule is not defined for {call.name}, which is neither linear nor an "
            "activation of one value; use integrated_gradients"
        )


class _Quotient:
    """The quotient of differences at an activation."""

    def __init__(self, call: Call) -> None:
        with torch.no_grad():
            x, reference = call.input.chunk(2)
            # The call itself may overwrite its input.
            output, expected = call.function(
                call.input.clone(), *call.args[1:], **call.kwargs
            ).chunk(2)
            self._defined = (x - reference).abs() > _SAME
            self._slope = torch.where(self._defined, (output - expected) / (x - reference), 0)

    def __call__(self, gradient: Tensor, own: Tensor) -> Tensor:
        slope, defined = (torch.cat([each] * 2) for each in (self._slope, self._defined))
        return torch.where(defined, gradient * slope, own)


class _PooledQuotient:
    """The quotient of differences at a max pooling.

    The largest value rises from the baseline's to the larger of both at the image's position, and
    from there to the image's at the baseline's position, as in captum.
    """

    def __init__(self, call: Call) -> None:
        self._call, self._x = call, call.input

    def __call__(self, gradient: Tensor, own: Tensor) -> Tensor:
        call = self._call
        with torch.enable_grad():
            leaf = self._x.detach().requires_grad_()
            pooled = call.function(leaf, *call.args[1:], **call.kwargs)
        x, reference = self._x.chunk(2)
        output, expected = pooled.detach().chunk(2)
        larger = torch.maximum(output, expected)
        rises = torch.cat([larger - expected, output - larger])
        multipliers = torch.cat([gradient.chunk(2)[0]] * 2)
        (back,) = torch.autograd.grad(pooled, leaf, multipliers * rises)
        total = torch.cat([sum(back.chunk(2), torch.zeros_like(x))] * 2)
        difference = torch.cat([x - reference] * 2)
        return torch.where(difference.abs() > _SAME, total / difference, own)


@dataclass(frozen=True)
class DeepLIFT(Method):
    r"""Multipliers of differences from a baseline, passed back by the rescale rule.

    .. math:: m_i \, (x_i - x'_i), \quad
              m_{x} = \frac{f(x) - f(x')}{x - x'} \, m_{f(x)} \text{ at every activation } f

    (Shrikumar et al. 2017, arXiv:1704.02685), of shape ``(B, C, *S)``; linear operations pass the
    multipliers back like gradients. If the target is linear in the output, as the mean logit of a
    class is, the sum of the map is ``S(x) − S(x')``; every explanation reports the gap. It takes
    one pass over the image and its baseline together.

    Parameters
    ----------
    baseline
        As for :class:`~neuroxai.methods.integrated_gradients.IntegratedGradients`.

    Raises
    ------
    MethodError
        If the network has an operation without a rule: a norm over the image's own statistics, a
        softmax, or a product of two activations (attention, gates); or if the samples of a batch
        affect each other.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), torch.nn.ReLU())
    >>> explanation = DeepLIFT().explain(WholeVolume(network, Class(0)), torch.rand(1, 1, 4, 5))
    >>> explanation.diagnostics["completeness_gap"][0] < 1e-4
    True
    """

    name: ClassVar[str] = "deeplift"
    title: ClassVar[str] = "DeepLIFT"
    on_request: ClassVar[bool] = True
    units: ClassVar[str] = "target per voxel; the sum is its change from baseline to input"
    citation: ClassVar[str] = "arXiv:1704.02685"

    baseline: Baseline = AUTO

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self.name, self.baseline)

    @property
    def quantity(self) -> Quantity:
        """An amount: the map sums to a change of the target."""
        return "amount"

    @property
    def gradients(self) -> int:
        """Two, of the image and of its baseline."""
        return 2

    @property
    def forwards(self) -> int:
        """Those that choose the baseline."""
        return start_passes(self.baseline)

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Return the multipliers times the difference."""
        start = path_start(self.baseline, probe, x, generator)
        finite = bool(torch.isfinite(start.at_x).all())  # NaN equals nothing, and is reported later
        if finite and not probe.has_independent_samples():
            raise MethodError(
                "deeplift is void on this network: the samples of a batch affect each other, and "
                "it passes the image and its baseline in one batch; use integrated_gradients"
            )
        multipliers = probe.gradient(torch.cat([x.detach(), start.image]), Rescale())[: len(x)]
        values = multipliers * (x.detach() - start.image)
        found: dict[str, Any] = completeness(values, start.at_x, start.score)
        notes = [*gap_notes(found["completeness_gap"])]
        if not probe.target.linear:
            notes.append(
                "the target is not linear in the network's output, and its gradient at the image "
                "is used there, so the map does not sum to its change exactly"
            )
        return Attribution(values, found | start.diagnostics, tuple(notes))
