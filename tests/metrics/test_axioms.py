"""Axioms hold where they are proven, and the metrics show where they do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from additive import additive
from networks import image, make
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method
from neuroxai.methods.base import Method
from neuroxai.metrics import Judged, make_metric


def judged_by(name: str, dims: int = 3, task: str = "classifier") -> Judged:
    network, x = make(task, dims).eval(), image(dims, batch=2)
    probe = WholeVolume(network, Class(2))
    path = {"steps": 200, "baseline": "zero", "rule": "midpoint"}
    options = path if "integrated" in name else None
    method: Method = make_method(name, options)
    return Judged(method.explain(probe, x).values, x, probe, method=method)


def test_completeness_is_the_gap_of_the_sum() -> None:
    judged, shares = additive(3)
    assert make_metric("completeness")(judged).values == pytest.approx((0, 0, 0), abs=1e-5)
    half = Judged(judged.values / 2, judged.x, judged.probe)
    assert make_metric("completeness")(half).values == pytest.approx((0.5,) * 3, abs=1e-5)
    assert make_metric("completeness")(half).details["change"] == pytest.approx(
        shares.flatten(1).sum(dim=1).tolist(), rel=1e-4
    )
    path = make_metric("completeness")(judged_by("integrated_gradients")).values
    assert all(v is not None and v < 0.02 for v in path)
    plain = make_metric("completeness")(judged_by("vanilla_gradient")).values
    assert any(v is not None and v > 0.1 for v in plain)


class Left(nn.Module):
    """Reads the first half of the image along its first axis."""

    def forward(self, x: Tensor) -> Tensor:
        score = x[:, :, : x.shape[2] // 2].flatten(1).square().sum(dim=1)
        return torch.stack([score, -score], dim=1)


def test_evidence_on_voxels_that_the_network_does_not_read_is_found() -> None:
    x = torch.rand(2, 3, 8, 6, 4) + 0.5
    probe = WholeVolume(Left(), Class(0))
    method = make_method("vanilla_gradient")
    options = {"size": 4}
    right = Judged(method.explain(probe, x).values, x, probe, method=method)
    found = make_metric("dummy_input", options)(right)
    assert found.values == (0.0, 0.0)
    assert found.details == {"boxes": 4, "dummies": [2, 2]}
    bright = make_metric("dummy_input", options)(Judged(x, x, probe)).values
    expected = (x[:, :, 4:].flatten(1).sum(dim=1) / x.flatten(1).sum(dim=1)).tolist()
    assert bright == pytest.approx(expected, rel=1e-5)
    whole = make_metric("dummy_input", options)(judged_by("vanilla_gradient"))
    assert whole.values == (None, None)
    assert "depends on the whole image" in whole.notes[0]


@pytest.mark.parametrize(
    ("name", "holds"),
    [("vanilla_gradient", True), ("integrated_gradients", True), ("guided_backprop", False)],
)
def test_linearity_and_invariance_hold_for_gradients_and_not_for_guided_ones(
    name: str, holds: bool
) -> None:
    judged = judged_by(name)
    for metric in ("linearity", "implementation_invariance"):
        for value in make_metric(metric)(judged).values:
            assert value is not None
            assert value < 1e-3 if holds else value > 0.05, metric
