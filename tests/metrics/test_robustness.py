"""Sensitivity against captum, and maps that cannot change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from additive import additive
from networks import image, make, plain_gradient
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.spatial import channel_range, per_sample
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method
from neuroxai.metrics import Judged, make_metric

captum_metrics = pytest.importorskip("captum.metrics")


@pytest.mark.parametrize("dims", [2, 3])
def test_sensitivity_equals_captum(dims: int) -> None:
    network, x = make("classifier", dims).eval(), image(dims, batch=1)
    probe, method = WholeVolume(network, Class(2)), make_method("vanilla_gradient")
    judged = Judged(method.explain(probe, x).values, x, probe, method=method, seed=3)
    width = per_sample(0.1 * channel_range(x), x)
    generator = torch.Generator().manual_seed(3)
    steps = [(2 * torch.rand(x.shape, generator=generator) - 1) * width for _ in range(4)]

    def perturb(given: Tensor) -> Tensor:
        return given + torch.cat(steps)

    def gradient(given: Tensor) -> Tensor:
        return plain_gradient(network, given, 2)

    def explained(given: Any) -> tuple[Tensor]:  # captum iterates over a bare tensor
        with torch.enable_grad():
            return (gradient(given[0] if isinstance(given, tuple) else given),)

    theirs = captum_metrics.sensitivity_max(explained, x, perturb_func=perturb, n_perturb_samples=4)
    options = {"radius": 0.1, "samples": 4}
    found = make_metric("max_sensitivity", options)(judged).values
    assert found == pytest.approx(theirs.tolist(), rel=1e-4)
    changes = [(gradient(x + step) - gradient(x)).norm() for step in steps]
    mean = sum(changes) / 4 / gradient(x).norm()
    average = make_metric("average_sensitivity", options)(judged).values
    assert average == pytest.approx((float(mean),))
    ratio = max(float(c / s.norm()) for c, s in zip(changes, steps, strict=True))
    assert make_metric("local_lipschitz", options)(judged).values == pytest.approx((ratio,))


def test_the_gradient_of_an_additive_network_never_changes() -> None:
    judged, _ = additive(3)
    method = make_method("vanilla_gradient")
    assert judged.probe is not None
    values = method.explain(judged.probe, judged.x).values
    same = Judged(values, judged.x, judged.probe, method=method, networks=(judged.probe.network,))
    for name in ("max_sensitivity", "average_sensitivity", "local_lipschitz"):
        assert make_metric(name, {"samples": 2})(same).values == pytest.approx((0, 0, 0), abs=1e-5)
    for name in ("seed_agreement", "network_agreement"):
        assert make_metric(name)(same).values == pytest.approx((1, 1, 1), abs=1e-9)
    found = make_metric("baseline_agreement")(same)
    assert found.values == (None, None, None)
    assert found.notes == ("Vanilla gradient has no baseline",)


def test_seeds_of_a_noisy_map_agree_the_more_samples_it_has() -> None:
    network, x = make("classifier", 2).eval(), image(2, batch=1)
    probe = WholeVolume(network, Class(2))
    found = []
    for samples in (2, 32):
        method = make_method("smoothgrad", {"samples": samples})
        judged = Judged(method.explain(probe, x).values, x, probe, method=method)
        found.append(make_metric("seed_agreement")(judged).values[0])
    assert found[0] is not None
    assert found[1] is not None
    assert found[0] < found[1] < 1
