"""Gradient checkpointing: less memory for more time.

Only the input of a block is kept. In the backward pass the block is run again and differentiated
(Chen et al. 2016, arXiv:1604.06174). The ``forward`` methods of the blocks are wrapped for the
duration of a pass and restored afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from neuroxai.core.engine.footprint import center_crop
from neuroxai.core.errors import NETWORK_ERRORS
from neuroxai.core.layers.labels import module_name
from neuroxai.core.layers.layers import is_convolution
from neuroxai.core.rules.rule_hooks import RuleHooks

_TOLERANCE = 1e-3
"""Difference between both ways, relative to the largest value; rounding is far below."""

MOST_CONVOLUTIONS = 4
"""Convolutions in a block: about one level of a U-Net, or one unit of a ResNet."""


@contextmanager
def checkpointed(network: nn.Module, excluded: Collection[str] = ()) -> Iterator[None]:
    """Context manager in which the blocks of a network are run twice instead of kept.

    Parameters
    ----------
    network
        Any module. A block with other arguments than one tensor, or another result, is run as
        usual. What a block reads besides its argument, from an attribute or a variable, gets no
        gradient: :func:`is_sound` detects this.
    excluded
        Names of layers to be recorded; the blocks that contain them are run as usual.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    >>> x = torch.rand(1, 1, 5, 5, requires_grad=True)
    >>> with checkpointed(network):
    ...     (gradient,) = torch.autograd.grad(network(x).sum(), x)
    >>> bool(torch.equal(gradient, torch.autograd.grad(network(x).sum(), x)[0]))
    True
    """
    found = blocks(network)
    kept = {id(module) for name, module in found if _contains(name, excluded)}
    wrapped = {id(module): module for _, module in found if id(module) not in kept}
    for module in wrapped.values():
        module.forward = _wrapped(module.forward)
    try:
        yield
    finally:
        for module in wrapped.values():
            del module.__dict__["forward"]


def is_sound(differentiate: Callable[[Tensor], tuple[Tensor, Tensor]], network: nn.Module,
             x: Tensor) -> bool:  # fmt: skip
    """Return whether checkpointing leaves output and gradient unchanged on a small part of ``x``.

    It does not if a block reads a skip connection from an attribute, or overwrites in place what
    others read after it. A network that does not accept a small part is assumed to be sound.

    Parameters
    ----------
    differentiate
        Returns a network's output and the gradient of its sum.
    network, x
        The network, and an image ``(B, C, *S)``.
    """
    part = center_crop(x, 1 / 8)
    try:
        plain = differentiate(part)
    except NETWORK_ERRORS:
        return True
    try:
        with checkpointed(network):
            twice = differentiate(part)
    except NETWORK_ERRORS:
        return False
    return all(
        float((one - other).abs().max()) <= _TOLERANCE * max(float(one.abs().max()), 1e-30)
        for one, other in zip(plain, twice, strict=True)
    )


def blocks(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the largest modules with at most :data:`MOST_CONVOLUTIONS` convolutions.

    A module with several names has several entries.
    """
    found = []
    waiting = list(network.named_children())
    while waiting:
        name, module = waiting.pop(0)
        count = sum(is_convolution(part) for part in module.modules())
        if count > MOST_CONVOLUTIONS or "forward" in vars(module):
            waiting += [(f"{name}.{child}", part) for child, part in module.named_children()]
        elif count and not is_convolution(module):
            found.append((name, module))
    return found


def _contains(name: str, layers: Collection[str]) -> bool:
    plain = [module_name(layer) for layer in layers]
    return any(layer == name or layer.startswith(f"{name}.") for layer in plain)


def _wrapped(forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        alone = len(args) == 1 and not kwargs and type(args[0]) is Tensor
        if not (alone and torch.is_grad_enabled() and args[0].requires_grad):
            return forward(*args, **kwargs)
        try:
            return _Block.apply(args[0], forward)  # type: ignore[no-untyped-call]
        except _NotOneTensorError:
            return forward(*args)

    return run


class _NotOneTensorError(Exception):
    pass


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, run: Callable[[Tensor], Any]) -> Tensor:
        # The block may overwrite its input, and later layers the tensor that is kept: both get a
        # copy.
        y = run(x.clone())
        if type(y) is not Tensor:
            raise _NotOneTensorError
        ctx.save_for_backward(x.clone())
        # Modes of the first run, such as backward rules, apply to the second too.
        ctx.run, ctx.modes = run, _get_current_function_mode_stack()
        # The second run may be on another thread, which does not inherit autocast.
        kind = x.device.type
        ctx.autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad(), ExitStack() as stack:
            for mode in ctx.modes:
                stack.enter_context(mode)
            enabled, dtype = ctx.autocast
            stack.enter_context(torch.autocast(x.device.type, dtype, enabled))
            leaf = x.detach().requires_grad_()
            y = ctx.run(leaf.clone())
            for mode in ctx.modes:
                if isinstance(mode, RuleHooks):
                    mode.inspect(y)
        (back,) = torch.autograd.grad(y, leaf, gradient, allow_unused=True)
        return back, None
