"""Every metric × {2D, 3D} × {classifier, segmenter}: bounds, seeds, a network left as found."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import TASKS, image, make
from neuroxai.core.errors import MetricError
from neuroxai.core.explanation import network_hash
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Prediction
from neuroxai.core.target.target import Class
from neuroxai.methods import make_method
from neuroxai.metrics import METRICS, Judged, Metric, make_metric
from neuroxai.metrics.base import FAMILIES, OWN

QUICK: dict[str, dict[str, Any]] = {
    "deletion": {"steps": 3, "copies": 2, "remover": "mean"},
    "insertion": {"steps": 3, "copies": 1},
    "pixel_flipping": {"steps": 3},
    "road": {"steps": 2},
    "infidelity": {"draws": 6, "size": 3},
    "faithfulness_correlation": {"draws": 6, "size": 3},
    "sensitivity_n": {"sizes": 2, "draws": 4, "size": 3},
    "monotonicity": {"size": 3, "most": 6},
    "max_sensitivity": {"samples": 2},
    "average_sensitivity": {"samples": 2},
    "local_lipschitz": {"samples": 2},
    "mprt": {"steps": 2},
    "dummy_input": {"size": 4, "draws": 1},
}
OUTPUTS = Outputs(tuple("abcde"), activation="softmax")

everywhere = pytest.mark.parametrize(
    ("name", "dims", "task"), list(itertools.product(METRICS, (2, 3), TASKS))
)


def scene(dims: int, task: str, method: str = "integrated_gradients") -> tuple[nn.Module, Judged]:
    network, x = make(task, dims).eval(), image(dims, batch=2)
    within = Prediction() if task == "segmenter" else None
    if task == "segmenter":  # sharper, and every class is predicted somewhere
        with torch.no_grad():
            network.get_parameter("exit.weight").mul_(8)
            network.get_parameter("exit.bias").sub_(network(x).flatten(2).mean(dim=(0, 2)))
    probe = WholeVolume(network, Class(2, within=within), OUTPUTS)
    made = make_method(method, {"steps": 3} if "integrated" in method else None)
    explanation = made.explain(probe, x)
    mask = torch.zeros(x.shape[0], *x.shape[2:], dtype=torch.bool)
    mask[:, 1:3, 2:5] = True
    judged = Judged.of(explanation, x, probe=probe, mask=mask, method=made)
    others = (make(task, dims, seed=5).eval(),)
    phi = torch.tensor([[0.4, 0.1, -0.2, 0.0], [0.1, 0.2, 0.3, -0.5]])
    return network, Judged(
        judged.values, x, probe, mask, method=made, evidence=judged.evidence, importances=phi,
        networks=others,
    )  # fmt: skip


def test_the_table_names_every_metric_once_and_where_it_comes_from() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.family in FAMILIES
        assert metric.citation == OWN or metric.citation.startswith(("doi:10.", "arXiv:"))
        assert metric.bounds[0] < metric.bounds[1]
        assert metric.__doc__
    assert {metric.family for metric in METRICS.values()} == {*FAMILIES}
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)


@everywhere
def test_a_metric_is_seeded_bounded_and_leaves_the_network(name: str, dims: int, task: str) -> None:
    network, judged = scene(dims, task)
    before = network_hash(network), network.training, [len(m._forward_pre_hooks) for m in
                                                       network.modules()]  # fmt: skip
    metric = make_metric(name, QUICK.get(name))
    if name == "off_target_leakage" and task == "classifier":
        with pytest.raises(MetricError, match="needs a segmenter"):
            metric(judged)
        return
    state = torch.get_rng_state()
    found = metric(judged)
    assert torch.equal(torch.get_rng_state(), state)
    assert metric(judged) == found, "the same seed gives the same value"
    low, high = metric.bounds
    assert len(found.values) == 2
    for value in found.values:
        assert value is not None or found.notes
        assert value is None or low - 1e-9 <= value <= high + 1e-9
    assert before == (
        network_hash(network), network.training,
        [len(m._forward_pre_hooks) for m in network.modules()],
    )  # fmt: skip
    assert found.describe()["metric"] == name


@pytest.mark.parametrize("name", METRICS)
def test_a_sample_alone_has_the_value_that_it_has_in_a_batch(name: str) -> None:
    """Metrics of a batch would otherwise depend on what else is in it."""
    _, judged = scene(3, "segmenter")
    if name in ("max_sensitivity", "average_sensitivity", "local_lipschitz", "random_class",
                "linearity", "dummy_input", "emprt", "mprt"):  # fmt: skip
        pytest.skip("draws for the whole batch")
    metric = make_metric(name, QUICK.get(name))
    together = metric(judged).values[0]
    alone = metric(_first(judged)).values[0]
    assert alone == (None if together is None else pytest.approx(together, rel=1e-4, abs=1e-6))


def _first(judged: Judged) -> Judged:
    def one(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[:1]

    values, x, mask, phi = map(one, (judged.values, judged.x, judged.mask, judged.importances))
    assert values is not None
    assert x is not None
    return Judged(
        values, x, judged.probe, mask, method=judged.method, evidence=judged.evidence,
        importances=phi, networks=judged.networks,
    )  # fmt: skip


NEEDS_NETWORK = [
    name for name, metric in METRICS.items() if metric.family in (
        "faithfulness", "robustness", "randomization", "axioms"
    ) and name != "network_agreement"
]  # fmt: skip


@pytest.mark.parametrize("name", NEEDS_NETWORK)
def test_what_a_metric_lacks_is_named(name: str) -> None:
    _, judged = scene(2, "classifier")
    with pytest.raises(MetricError, match=r"give the (network|method)"):
        make_metric(name)(Judged(judged.values, judged.x))


def test_unknown_names_and_parameters_are_refused() -> None:
    with pytest.raises(MetricError, match="did you mean 'deletion'"):
        make_metric("deletio")
    with pytest.raises(MetricError, match="deletion has no parameter 'step': did you mean"):
        make_metric("deletion", {"step": 3})
    for parameters, words in (
        ({"steps": 0}, "at least 1"), ({"most": 1.5}, "0 to 1"), ({"copies": -1}, "at least 0"),
        ({"value": "dice"}, "score or soft_dice"),
    ):  # fmt: skip
        with pytest.raises(MetricError, match=words):
            make_metric("deletion", parameters)


def test_a_metric_of_ones_own_needs_one_method() -> None:
    from dataclasses import dataclass

    from neuroxai.metrics.base import Measured

    @dataclass(frozen=True)
    class Largest(Metric):
        name = "largest"
        title = "Largest value"
        family = "complexity"
        citation = OWN

        def measure(self, judged: Judged) -> Measured:
            return Measured(judged.importance.flatten(1).amax(dim=1))

    assert Largest()(Judged(torch.ones(1, 1, 2, 3), torch.ones(1, 1, 2, 3))).values == (1.0,)
