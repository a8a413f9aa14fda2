"""Less memory for more time: only what goes into a block is kept, the block is run again.

In the backward pass every block of a network is run a second time from its input, and then
differentiated (Chen et al. 2016, arXiv:1604.06174). The network is not edited: for the time of a
pass its blocks' ``forward`` is wrapped, and unwrapped afterwards.
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
from neuroxai.core.layers.layers import is_convolution
from neuroxai.core.rules.rule_hooks import RuleHooks

_SAME = 1e-3
"""Of the largest value, how much the two may differ: rounding is far below."""

MOST_CONVOLUTIONS = 4
"""How many convolutions a block may hold: about one level of a U-Net, one unit of a ResNet."""


@contextmanager
def checkpointed(network: nn.Module, spared: Collection[str] = ()) -> Iterator[None]:
    """Run a network's blocks twice instead of keeping what happens in them, inside.

    Parameters
    ----------
    network
        Any module; a block of it that takes anything but one tensor, or gives anything else,
        is run as ever. What a block takes besides, from an attribute or a variable, is lost to
        the gradient: :func:`is_sound` tells.
    spared
        Names of layers that somebody looks into: blocks that hold them are run as ever.

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
    kept = {id(module) for name, module in found if _holds(name, spared)}
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
    """Whether running blocks twice changes neither answer nor gradient, on a small part of ``x``.

    It does where a block reads a skip from an attribute, or where it works in place on what others
    read after it. A network that takes no small part is believed.

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
        float((one - other).abs().max()) <= _SAME * max(float(one.abs().max()), 1e-30)
        for one, other in zip(plain, twice, strict=True)
    )


def blocks(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the largest parts of a network that hold no more convolutions than a block may.

    A part that is used under several names has several entries.
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


def _holds(name: str, spared: Collection[str]) -> bool:
    plain = [layer.partition("#")[0] for layer in spared]
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
        # A copy goes in, because a block may work in place on what it is given, and a copy is
        # kept, because others may write over it later.
        y = run(x.clone())
        if type(y) is not Tensor:
            raise _NotOneTensorError
        ctx.save_for_backward(x.clone())
        # Whoever watches or bends the first run shall see the second as well.
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
