"""Batch and instance norm on the CPU misread gradients whose strides are ambiguous; torch alone.

The same numbers, in three memory layouts, have to give the same gradient.
"""

import torch
from torch import nn

torch.manual_seed(0)
print(torch.__version__)

for name, norm in {
    "BatchNorm2d, eval": nn.BatchNorm2d(8).eval(),
    "BatchNorm2d, train": nn.BatchNorm2d(8).train(),
    "InstanceNorm2d": nn.InstanceNorm2d(8),
    "GroupNorm": nn.GroupNorm(2, 8),
}.items():
    x = torch.randn(1, 8, 3, 4, requires_grad=True)
    gradient = torch.randn(1, 8, 3, 4)
    layouts = {
        # As after flatten(2).transpose(1, 2) and a linear layer without gradients of its own.
        "tokens": gradient.flatten(2).mT.contiguous().mT.reshape(1, 8, 3, 4),
        "channels last": gradient.contiguous(memory_format=torch.channels_last),
    }
    (expected,) = torch.autograd.grad(norm(x), x, gradient)
    for layout, same in layouts.items():
        if not torch.equal(same, gradient):
            raise ValueError("not the same numbers")
        (found,) = torch.autograd.grad(norm(x), x, same)
        error = float((found - expected).abs().max() / expected.abs().max())
        print(f"{name}, gradient in {layout} {same.stride()}: error {error:.1e}")

# The input's strides matter as well.
x = torch.randn(1, 8, 3, 4)
tokens = x.flatten(2).mT.contiguous().mT.reshape(1, 8, 3, 4)
norm, gradient = nn.BatchNorm2d(8).eval(), torch.randn(1, 8, 3, 4)
found, expected = (
    torch.autograd.grad(norm(leaf), leaf, gradient)[0]
    for leaf in (tokens.requires_grad_(), x.requires_grad_())
)
error = float((found - expected).abs().max() / expected.abs().max())
print(f"BatchNorm2d, eval, input {tuple(tokens.stride())}: error {error:.1e}")
