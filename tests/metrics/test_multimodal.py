"""Weights of modalities against loops in NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from neuroxai.core.errors import MetricError
from neuroxai.metrics import Judged, make_metric

SHAPES = {2: (9, 7), 3: (5, 6, 4)}


@pytest.mark.parametrize("dims", [2, 3])
def test_msfi_and_correlation_equal_loops(dims: int) -> None:
    x = torch.rand(2, 4, *SHAPES[dims]) + 1
    values = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    mask = torch.rand((2, *SHAPES[dims]), generator=torch.Generator().manual_seed(2)) < 0.3
    phi = torch.tensor([[0.4, -0.1, 0.0, 0.2], [0.1, 0.2, 0.3, -0.5]])
    judged = Judged(values, x, mask=mask, importances=phi)
    found = make_metric("msfi")(judged)
    for b in range(2):
        total, theirs, weights = 0.0, 0.0, np.abs(phi[b].numpy())
        scaled = (weights - weights.min()) / (weights.max() - weights.min())
        for m in range(4):
            positive = np.maximum(values[b, m].double().numpy(), 0)
            local = positive[mask[b].numpy()].sum() / positive.sum()
            total += weights[m] / weights.sum() * local
            theirs += scaled[m] / scaled.sum() * local
        assert found.values[b] == pytest.approx(total, rel=1e-6)
        assert found.details["min_max"][b] == pytest.approx(theirs, rel=1e-6)
    shares = values.abs().flatten(2).sum(dim=2).numpy()
    expected = [spearmanr(s, abs(p))[0] for s, p in zip(shares, phi.numpy(), strict=True)]
    assert make_metric("modality_correlation")(judged).values == pytest.approx(expected)


def test_a_map_of_the_right_modality_in_the_mask_reaches_one() -> None:
    x = torch.ones(1, 3, 6, 7)
    mask = torch.zeros(1, 6, 7, dtype=torch.bool)
    mask[0, 2:4, 3] = True
    values = torch.zeros_like(x)
    values[0, 1] = mask[0].float()
    right = torch.tensor([[0.0, 1.0, 0.0]])
    assert make_metric("msfi")(Judged(values, x, mask=mask, importances=right)).values == (1.0,)
    wrong = torch.tensor([[1.0, 0.0, 0.0]])
    assert make_metric("msfi")(Judged(values, x, mask=mask, importances=wrong)).values == (0.0,)
    shared = Judged(values[:, :1], x, mask=mask, importances=right)
    assert make_metric("modality_correlation")(shared).values == (None,)
    with pytest.raises(MetricError, match="importances="):
        make_metric("msfi")(Judged(values, x, mask=mask))
