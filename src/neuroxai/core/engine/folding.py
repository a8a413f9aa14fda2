r"""Batch norms in evaluation mode folded into the convolutions they follow.

Such a norm is a number to multiply each channel by and one to add, so norm and convolution are one
convolution with other weights (Jacob et al. 2018, arXiv:1712.05877, §3.2):

.. math:: \gamma \frac{w \star x + b - \mu}{\sigma} + \beta
          = \Big(\frac{\gamma}{\sigma} w\Big) \star x + \frac{\gamma}{\sigma} (b - \mu) + \beta

Which convolution is followed by a norm, and by nothing else, is found out by watching a network on
a small part of the image, and is believed only if it answers the same with the norms folded.
Nothing is folded while somebody looks at layers, whose values before the norm are then theirs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as global_hooks
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from neuroxai.core.engine.footprint import middle_part
from neuroxai.core.engine.function_calls import FunctionCalls

TOLERANCE = 1e-4
"""Of the largest output on the small part; single precision alone makes some 1e-6."""

READS = frozenset(
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "requires_grad", "is_cuda", "layout", "ndim")
) | {Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_contiguous, Tensor.stride}
"""What may be asked of a tensor without using its values."""

_looked_at: ContextVar[bool] = ContextVar("layers_looked_at", default=False)


Folded = tuple[Tensor, Tensor]
"""Weights and bias of a convolution with a norm folded into it."""


@dataclass(frozen=True, eq=False)
class Norm:
    """The numbers of a batch norm in evaluation mode."""

    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def is_same(self, other: Norm) -> bool:
        """Whether both are the same norm of the same network."""
        return self.eps == other.eps and all(
            mine is theirs for mine, theirs in zip(self._tensors(), other._tensors(), strict=True)
        )

    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.mean, self.variance, self.weight, self.bias


@dataclass(frozen=True, eq=False)
class Fold:
    """A convolution's weight and the norm that follows it."""

    weight: Tensor
    norm: Norm

    def made(self, bias: Tensor | None) -> Folded:
        """Return weights and bias of the two in one, made in double precision."""
        norm = self.norm
        scale = (norm.variance.detach().double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.detach().double()
        shift = -norm.mean.detach().double()
        if bias is not None:
            shift = shift + bias.detach().double()
        shift = shift * scale
        if norm.bias is not None:
            shift = shift + norm.bias.detach().double()
        weight = self.weight.detach().double() * scale.view(-1, *[1] * (self.weight.dim() - 1))
        return weight.to(self.weight.dtype), shift.to(self.weight.dtype)


Folds = Mapping[int, Fold]
"""By the id of the convolution's weight, which the fold keeps alive."""

Kept = MutableMapping[tuple[int, int], tuple[Fold, Tensor | None, Folded]]
"""What was folded, by the ids of weight and bias, and beside it what the ids are of.

It lives no longer than the network is ours: weights can change in ways that leave no trace on the
tensor (``.data``, a fused optimizer, a norm in training, NumPy), and who folds their old values
explains a network that is no more.
"""

_known: weakref.WeakKeyDictionary[nn.Module, Folds] = weakref.WeakKeyDictionary()


Convolve = Callable[..., Tensor | None]
"""``functional.conv3d``, or None where it is left to stock torch."""


class FoldingError(RuntimeError):
    """A network did something else than on the small part: it is run without folding."""


class Folding:
    """Passes of a network with norms folded.

    Parameters
    ----------
    folds
        What is folded.
    network
        Whose passes they are; where somebody looks at its layers, nothing is folded.
    convolve
        Runs a convolution.
    kept
        Where folded weights are kept from one pass to the next.
    """

    def __init__(
        self, folds: Folds, network: nn.Module | None, convolve: Convolve, kept: Kept
    ) -> None:
        self._folds = folds
        self._network = network
        self._convolve = convolve
        self._kept = kept
        self._unlooked: bool | None = None
        self._stand_ins: dict[int, weakref.ref[Tensor]] = {}
        """What a network has in hand for its convolutions' results, which it may but norm."""
        self._waiting: dict[int, tuple[Tensor, Norm]] = {}
        """For those that have not come to their norm, the normed result, and by what."""

    def call(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor | None:
        """Return the result of a call of torch; None where there is nothing to fold.

        Raises
        ------
        FoldingError
            If a result is used beside its norm, or meets another one.
        """
        if func is functional.batch_norm and self._waiting:
            given, norm = norm_called(*args, **kwargs)
            if self._stands_in(given) and id(given) in self._waiting:
                normed, before = self._waiting.pop(id(given))
                if norm is None or not before.is_same(norm):
                    raise FoldingError("another norm than before follows a convolution")
                return normed
        if func not in READS and any(map(self._stands_in, tensors_in((args, kwargs)))):
            raise FoldingError("a convolution's result is used beside its norm")
        return self._convolved(*args, **kwargs) if func is functional.conv3d else None

    def finish(self) -> None:
        """Refuse a pass in which a result never came to its norm.

        Raises
        ------
        FoldingError
            If there was one.
        """
        if self._waiting:
            raise FoldingError("a convolution's result never came to its norm")

    def _convolved(
        self, input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **more: Any
    ) -> Tensor | None:
        fold = self._folds.get(id(weight))
        if fold is None or fold.weight is not weight or _looked_at.get():
            return None
        if self._unlooked is None:
            self._unlooked = self._network is None or may_fold(self._network)
        if not self._unlooked:
            return None
        found = self._convolve(input, *self._folded(fold, bias), *rest, **more)
        if found is None:
            return None
        # Another object than the normed result, so that its use after the norm is seen, too. The
        # normed one is no view: what follows may work on it in place.
        stand_in = found.view_as(found)
        self._stand_ins[id(stand_in)] = weakref.ref(stand_in)
        self._waiting[id(stand_in)] = found, fold.norm
        return stand_in

    def _stands_in(self, tensor: Tensor) -> bool:
        known = self._stand_ins.get(id(tensor))
        return known is not None and known() is tensor

    def _folded(self, fold: Fold, bias: Tensor | None) -> Folded:
        key = id(fold.weight), id(bias)
        if key not in self._kept:
            self._kept[key] = fold, bias, fold.made(bias)
        return self._kept[key][2]


def norm_called(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Tensor, Norm | None]:
    """Return what ``functional.batch_norm`` is called on, and its norm if its numbers are fixed."""
    if running_mean is None or running_var is None or training:
        return input, None
    if any(t is not None and t.requires_grad for t in (weight, bias)):
        return input, None
    return input, Norm(running_mean, running_var, weight, bias, eps)


@contextmanager
def layers_looked_at() -> Iterator[None]:
    """Fold nothing, inside."""
    token = _looked_at.set(True)
    try:
        yield
    finally:
        _looked_at.reset(token)


def may_fold(network: nn.Module) -> bool:
    """Whether nobody looks at this network's layers, by hooks of theirs or through ours."""
    if _looked_at.get() or global_hooks._global_forward_hooks:
        return False
    return not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def forget(network: nn.Module) -> None:
    """Fold nothing of a network any more."""
    _known[network] = {}


def folds_of(network: nn.Module, x: Tensor, folding: Callable[[Folds], TorchFunctionMode]) -> Folds:
    """Return what can be folded in a frozen network; found out once, on a part of ``x``.

    ``folding`` makes the mode that runs a network with norms folded.
    """
    found = _known.get(network)
    if found is not None:
        return found
    if network.training or any(p.requires_grad for p in network.parameters()):
        return {}
    if not any(isinstance(module, _BatchNorm) for module in network.modules()):
        return {}
    _known[network] = {}  # whatever happens from here on, it is not tried twice
    if not may_fold(network):
        del _known[network]
        return {}
    part = middle_part(x, 1 / 8)
    try:
        with torch.no_grad():
            watch = _Watch()
            with watch:
                plain = tensors_in(network(part.clone()))
            folds = watch.folds(plain)
            if not folds:
                return {}
            with folding(folds):
                found_so = tensors_in(network(part.clone()))
    except Exception:
        return {}
    if _agree(plain, found_so):
        _known[network] = folds
    return _known[network]


def _agree(plain: list[Tensor], folded: list[Tensor]) -> bool:
    return len(plain) == len(folded) and all(
        one.shape == other.shape
        and float((one - other).abs().max()) <= TOLERANCE * max(float(one.abs().max()), 1e-30)
        for one, other in zip(plain, folded, strict=True)
        if one.is_floating_point() and one.numel()
    )


class _Watch(FunctionCalls):
    """Sees which convolution's result goes into a norm and nowhere else."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[Tensor, Tensor]] = {}
        """Id of a result, the result (kept, or its id would be used again), and the weight."""
        self._followed: dict[int, Fold] = {}
        self._spoiled: set[int] = set()

    def call(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        used = args
        if func is functional.batch_norm:
            given, norm = norm_called(*args, **kwargs)
            used = (given,) if norm is None else args[1:]
            if norm is not None:
                self._normed(given, norm)
        if func not in READS:
            for tensor in tensors_in((used, kwargs if func is not functional.batch_norm else ())):
                self._spoil(tensor)
        result = func(*args, **kwargs)
        if func is functional.conv3d and isinstance(result, Tensor):
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            if any(weight is other for _, other in self._made.values()):
                self._spoiled.add(id(weight))  # used twice: one weight cannot be folded two ways
            self._made[id(result)] = (result, weight)
        return result

    def folds(self, output: list[Tensor]) -> Folds:
        """Return the pairs that were found, but for those whose result is an output itself."""
        for tensor in output:
            self._spoil(tensor)
        return {key: fold for key, fold in self._followed.items() if key not in self._spoiled}

    def _normed(self, given: Tensor, norm: Norm) -> None:
        if id(given) not in self._made:
            return
        weight = self._made[id(given)][1]
        if id(weight) in self._followed:
            self._spoiled.add(id(weight))
        self._followed[id(weight)] = Fold(weight, norm)

    def _spoil(self, tensor: Tensor) -> None:
        if id(tensor) in self._made:
            self._spoiled.add(id(self._made[id(tensor)][1]))


def tensors_in(value: Any) -> list[Tensor]:
    """Return every tensor in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in tensors_in(part)]
    return []
