"""Outputs: which of several tensors is explained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from neuroxai.core.errors import TargetError
from neuroxai.core.target.outputs import Outputs


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: (z, None), lambda z: [z], lambda z: {"logits": z, "loss": z.mean()},
        lambda z: [z, z[..., ::2, ::2]], lambda z: {"aux": (z[:, :1],), "out": {"seg": z}},
        lambda z: (z.mean(), z, z[:, :2]),
    ],
)  # fmt: skip
def test_the_only_output_that_fits_is_selected(wrap: Any) -> None:
    x, z = torch.rand(2, 1, 6, 8), torch.rand(2, 3, 6, 8)
    outputs = Outputs(("background", "a", "b"), activation="softmax")
    assert torch.equal(outputs.select(wrap(z), x), z)


def test_outputs_that_fit_equally_are_refused() -> None:
    x, z = torch.rand(2, 1, 6, 8), torch.rand(2, 3, 6, 8)
    with pytest.raises(TargetError, match=r"a tuple of .*--output-key"):
        Outputs(("background", "a", "b")).select((z, -z), x)
    with pytest.raises(TargetError, match="select an output by"):
        Outputs().select((z, z[:, :2]), x)
    assert torch.equal(Outputs(key="1").select((z, -z), x), -z)
