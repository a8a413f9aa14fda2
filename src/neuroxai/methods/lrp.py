"""Layer-wise relevance propagation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from neuroxai.core.errors import MethodError
from neuroxai.core.explanation import Attribution, Quantity
from neuroxai.core.probe.probe import Probe
from neuroxai.core.probe.requests import InputGradient, Request
from neuroxai.core.rules.backward_rule import (
    BackwardRule,
    Call,
    GradientChange,
    InputChanges,
    Refused,
)
from neuroxai.core.rules.operations import Operation, norm_arguments, operation_of
from neuroxai.methods.base import Method, require

ARTIFACTS = (
    "relevance maps of 3D brain MRI have extensive artifacts (Siegel et al. 2025, "
    "arXiv:2508.02560): compare with another method before reading single voxels"
)


_NO_USE = {Operation.FIXED_NORM, Operation.OTHER}
"""Operations that are not counted as users of a layer's output: a norm is merged into the layer,
and others are refused if they are differentiated."""


@dataclass(frozen=True)
class EpsilonPlusFlat(BackwardRule):
    r"""The composite epsilon-plus-flat: what passes back is relevance instead of a gradient.

    Linear layers share relevance by the epsilon rule, convolutions by the z-plus rule, and the
    first one spreads it evenly. Activations pass it unchanged.
    """

    epsilon: float

    title: ClassVar[str] = "layer-wise relevance propagation"

    def start(self, output: Tensor, gradient: Tensor) -> Tensor:
        """Return the relevance of the output: the output times the gradient of the target."""
        return output * gradient

    def watch(self, call: Call) -> GradientChange | Refused | None:
        """Return how relevance passes back through a call."""
        operation = operation_of(call)
        if isinstance(call.before, _Weighted) and operation not in _NO_USE:
            # Attributes such as the shape are read by calls too.
            call.before.users += call.name != "__get__"
        match operation:
            case Operation.MOVE | Operation.MAX_POOL:
                return None
            case Operation.ACTIVATION | Operation.SCALE | Operation.SHIFT:
                return _unchanged
            case Operation.WEIGHTED:
                return _Weighted(call, self.epsilon)
            case Operation.AVERAGE:
                return _Average(call, self.epsilon)
            case Operation.SUM:
                return _shares(call, self.epsilon)
            case Operation.FIXED_NORM if isinstance(call.before, _Weighted):
                if call.before.users == 0:
                    call.before.merge(call)
                    return _unchanged
        if operation is Operation.FIXED_NORM:
            return Refused(
                "a batch norm does not directly follow a convolution or linear layer, so it cannot "
                "be merged into it; use integrated_gradients"
            )
        return Refused(
            f"no rule is defined for {call.name}, which is neither linear nor an activation of one "
            "value; use integrated_gradients"
        )


def _unchanged(relevance: Tensor, own: Tensor) -> Tensor:
    return relevance.expand_as(own).to(own.dtype)


def _stable(total: Tensor, epsilon: float) -> Tensor:
    """Return a denominator moved away from zero by epsilon."""
    return total + torch.where(total < 0, -epsilon, epsilon)


_Part = tuple[Tensor, Tensor, Tensor | None]
"""Input, weight and bias, whose products share relevance."""


class _Weighted:
    """The rule of a convolution or a linear layer, with a batch norm behind it merged into it."""

    def __init__(self, call: Call, epsilon: float) -> None:
        self._function, self._kwargs, self._epsilon = call.function, dict(call.kwargs), epsilon
        given = [*call.args]
        self._x = call.input
        self._version = self._x._version
        self._weight = given[1] if len(given) > 1 else self._kwargs["weight"]
        self._bias = given[2] if len(given) > 2 else self._kwargs.get("bias")
        self._rest = given[3:]
        for name in ("input", "weight", "bias"):
            self._kwargs.pop(name, None)
        self._first, self._dense = call.is_first(), call.name == "linear"
        self._transposed = "transpose" in call.name
        self.users = 0

    def merge(self, norm: Call) -> None:
        """Merge a batch norm with fixed statistics into the layer."""
        given = norm_arguments(norm)
        mean, variance = given["running_mean"], given["running_var"]
        eps = given.get("eps", 1e-5)
        scale = torch.rsqrt(variance + eps)
        if given.get("weight") is not None:
            scale = scale * given["weight"]
        bias = -mean if self._bias is None else self._bias - mean
        bias = bias * scale
        if given.get("bias") is not None:
            bias = bias + given["bias"]
        groups = self._kwargs.get("groups", 1)
        if self._transposed:
            groups = self._rest[3] if len(self._rest) > 3 else groups
            per_group = scale.reshape(groups, 1, -1)
            shape = self._weight.shape
            parts = self._weight.reshape(groups, shape[0] // groups, shape[1], -1)
            self._weight = (parts * per_group.unsqueeze(-1)).reshape(shape)
        else:
            self._weight = self._weight * scale.reshape(-1, *[1] * (self._weight.dim() - 1))
        self._bias = bias
        self.users = 1

    def __call__(self, relevance: Tensor, own: Tensor) -> Tensor:
        if self._x._version != self._version:
            raise MethodError(
                "lrp is void on this network: a later call overwrites the input of a convolution "
                "in place; use integrated_gradients"
            )
        x, weight, bias = self._x, self._weight.detach(), self._bias
        if self._first:
            return self._shared(relevance, [(torch.ones_like(x), torch.ones_like(weight), None)])
        if self._dense:
            return self._shared(relevance, [(x, weight, bias)])
        positive = None if bias is None else bias.clamp(min=0)
        parts: list[_Part] = [(x.clamp(min=0), weight.clamp(min=0), positive)]
        if bool((x < 0).any()):  # contributions of a negative input and a negative weight
            parts.append((x.clamp(max=0), weight.clamp(max=0), None))
        return self._shared(relevance, parts)

    def _shared(self, relevance: Tensor, parts: Sequence[_Part]) -> Tensor:
        """Return relevance in proportion to the products of inputs and weights in all parts."""
        with torch.no_grad():
            total = torch.stack([self._run(*part) for part in parts]).sum(dim=0)
        quotient = relevance / _stable(total, self._epsilon)
        found = [x * _transposed(partial(self._run, weight=weight), x, quotient)
                 for x, weight, _ in parts]  # fmt: skip
        return torch.stack(found).sum(dim=0)

    def _run(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        found: Tensor = self._function(x, weight, bias, *self._rest, **self._kwargs)
        return found


class _Average:
    """The epsilon rule of a sum of cells with fixed weights."""

    def __init__(self, call: Call, epsilon: float) -> None:
        self._call, self._x, self._epsilon = call, call.input, epsilon
        self._version = self._x._version

    def __call__(self, relevance: Tensor, own: Tensor) -> Tensor:
        if self._x._version != self._version:
            raise MethodError(
                "lrp is void on this network: a later call overwrites the input of a mean in "
                "place; use integrated_gradients"
            )
        call, x = self._call, self._x

        def run(leaf: Tensor) -> Tensor:
            found: Tensor = call.function(leaf, *call.args[1:], **call.kwargs)
            return found

        with torch.no_grad():
            total = run(x)
        return x * _transposed(run, x, relevance / _stable(total, self._epsilon))


def _transposed(function: Callable[[Tensor], Tensor], x: Tensor, upstream: Tensor) -> Tensor:
    """Return the product of an upstream gradient and a linear function's transpose."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(function(leaf), leaf, upstream)
    return found


def _shares(call: Call, epsilon: float) -> InputChanges | Refused:
    """Return each summand's share of the relevance of a sum."""
    pair: list[Any] = [*call.args[:2], *(call.kwargs[k] for k in ("other",) if k in call.kwargs)]
    if call.kwargs.get("alpha", 1) != 1 or pair[0].shape != pair[1].shape:
        return Refused(f"no rule is defined for {call.name} of tensors of different shapes")
    first, second = (each.detach() for each in pair)
    if "sub" in call.name:
        second = -second
    total = _stable(first + second, epsilon)
    shares = first / total, second / total
    return InputChanges(tuple(_times(share) for share in shares))


def _times(share: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda relevance, own: relevance * share


@dataclass(frozen=True)
class LRP(Method):
    r"""Relevance of the output, shared layer by layer among the inputs that made it.

    .. math:: R_i = \sum_j \frac{(a_i w_{ij})^+}{\epsilon + \sum_k (a_k w_{kj})^+ + b_j^+} R_j

    at convolutions (z-plus); at linear layers, means and interpolations the same without
    :math:`(\cdot)^+` (epsilon); at the first convolution :math:`R_i = \sum_j R_j / n_j`, evenly
    among the :math:`n_j` values that it reads (flat). This is the composite *epsilon-plus-flat*
    (Bach et al. 2015, doi:10.1371/journal.pone.0130140; Kohlbrenner et al. 2020, arXiv:1910.09840),
    of shape ``(B, C, *S)``. Activations pass relevance unchanged, max pooling to the position of
    the maximum, sums in proportion to the summands; a batch norm is merged into the layer before
    it. The relevance of the output is the output times the gradient of the target there. Biases
    take up relevance: ``relevance_sum`` in the diagnostics is what reached the input.

    The flat rule treats all modalities alike, so the map cannot tell them apart. Relevance maps of
    3D brain MRI have extensive artifacts (Siegel et al. 2025, arXiv:2508.02560). A patent on the
    method is claimed (EP 3271863 B1, Fraunhofer and TU Berlin): check before commercial use.

    Parameters
    ----------
    composite
        ``epsilon_plus_flat``.
    epsilon
        What keeps denominators from zero.

    Raises
    ------
    MethodError
        If the network has an operation without a rule: a norm over the image's own statistics, a
        batch norm that follows no convolution, a softmax, or a product of two activations.

    Examples
    --------
    >>> from neuroxai.core.target.target import Class
    >>> from neuroxai.core.probe.whole_volume import WholeVolume
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU())
    >>> explanation = LRP().explain(WholeVolume(network, Class(0)), torch.rand(1, 1, 6, 5))
    >>> bool(abs(explanation.values.sum() - explanation.score[0]) < 1e-4)
    True
    """

    name: ClassVar[str] = "lrp"
    title: ClassVar[str] = "Layer-wise relevance propagation"
    on_request: ClassVar[bool] = True
    units: ClassVar[str] = "target per voxel; the sum is the target less what biases take up"
    citation: ClassVar[str] = "doi:10.1371/journal.pone.0130140"

    composite: str = "epsilon_plus_flat"
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.composite == "epsilon_plus_flat",
            self.name,
            f"unknown composite {self.composite!r}, expected 'epsilon_plus_flat'",
        )
        require(self.epsilon > 0, self.name, f"epsilon is {self.epsilon}, expected more than 0")

    @property
    def quantity(self) -> Quantity:
        """An amount: the map sums to the relevance that reached the input."""
        return "amount"

    @property
    def requests(self) -> frozenset[Request]:
        """The relevance, in place of a gradient."""
        return frozenset([InputGradient(EpsilonPlusFlat(self.epsilon))])

    @property
    def gradients(self) -> int:
        """One."""
        return 1

    def attribute(self, probe: Probe, x: Tensor, generator: torch.Generator) -> Attribution:
        """Return the relevance of the input."""
        values = probe.gradient(x, EpsilonPlusFlat(self.epsilon))
        found = {"relevance_sum": values.flatten(1).double().sum(dim=1).tolist()}
        notes = (ARTIFACTS,) if x.dim() == 5 else ()
        return Attribution(values, found, notes)
