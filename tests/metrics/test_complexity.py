"""Complexity against closed forms and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from neuroxai.metrics import Judged, make_metric

SHAPES = {2: (9, 7), 3: (5, 6, 4)}


@pytest.mark.parametrize("dims", [2, 3])
def test_entropy_equals_scipy_and_gini_its_double_sum(dims: int) -> None:
    x = torch.rand(2, 3, *SHAPES[dims], generator=torch.Generator().manual_seed(0)) + 1
    values = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    brain = torch.rand((2, *SHAPES[dims]), generator=torch.Generator().manual_seed(2)) < 0.7
    judged = Judged(values, x, brain=brain, spacing=(1.0, 1.5, 2.0)[:dims])
    rows = [
        a.clamp(min=0).sum(dim=0)[b].numpy().astype(np.float64)
        for a, b in zip(values.double(), brain, strict=True)
    ]
    nats = [float(entropy(row)) for row in rows]
    assert make_metric("complexity")(judged).values == pytest.approx(nats, rel=1e-9)
    gini = [np.abs(r[:, None] - r[None]).sum() / (2 * len(r) ** 2 * r.mean()) for r in rows]
    assert make_metric("sparseness")(judged).values == pytest.approx(gini, rel=1e-9)
    edges = {2: 1.5 / 100, 3: 3.0 / 1000}[dims]
    volumes = [math.exp(h) * edges for h in nats]
    assert make_metric("effective_volume")(judged).values == pytest.approx(volumes, rel=1e-6)


def test_one_voxel_and_an_even_map_are_the_two_ends() -> None:
    x = torch.ones(1, 1, 4, 5, 6)
    one = torch.zeros_like(x)
    one[0, 0, 1, 2, 3] = 3.0
    assert make_metric("complexity")(Judged(one, x)).values == (0.0,)
    assert make_metric("sparseness")(Judged(one, x)).values == pytest.approx((1 - 1 / 120,))
    assert make_metric("effective_volume")(Judged(one, x)).values == pytest.approx((0.001,))
    assert make_metric("complexity")(Judged(x, x)).values == pytest.approx((math.log(120),))
    assert make_metric("sparseness")(Judged(x, x)).values == pytest.approx((0.0,), abs=1e-12)
    assert make_metric("complexity")(Judged(0 * x, x)).values == (None,)
