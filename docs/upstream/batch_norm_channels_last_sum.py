"""Channels-last batch norm with the batch's statistics loses digits on the CPU; torch alone."""

import torch
from torch.nn import functional

torch.manual_seed(0)
print(torch.__version__)
for size in ((24, 96, 96), (64, 128, 128), (134, 176, 140)):
    x = torch.randn(1, 4, *size) + 1
    expected = functional.batch_norm(x.double(), None, None, training=True)
    for name, layout in (
        ("contiguous", torch.contiguous_format),
        ("channels last", torch.channels_last_3d),
    ):
        y = functional.batch_norm(x.contiguous(memory_format=layout), None, None, training=True)
        print(f"{size} {name}: largest error {float((y.double() - expected).abs().max()):.1e}")
