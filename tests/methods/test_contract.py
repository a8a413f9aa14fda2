"""What every method owes: the same suite over the table, both dimensions and both tasks."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from networks import BATCH, SHAPES, TASKS, explain, image, make, quick, relative, snapshot
from neuroxai.core.errors import MethodError
from neuroxai.core.explanation import Explanation
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.target.target import Class
from neuroxai.methods import METHODS, PAPER, all_methods, make_method, make_methods, smoothgrad
from neuroxai.methods.base import Method
from neuroxai.methods.table import TABLE

CAMS = {"grad_cam", "hirescam", "layercam", "cam", "grad_cam_plus_plus"}
UNSIGNED = {"grad_cam", "layercam", "grad_cam_plus_plus"}
PERTURBATION = {name for name, entry in TABLE.items() if "remover" in entry.parameter_names}
SINGLE = CAMS | PERTURBATION

everywhere = pytest.mark.parametrize(
    ("name", "dims", "task", "modalities"),
    list(itertools.product(METHODS, (2, 3), TASKS, (1, 4))),
)
every_method = pytest.mark.parametrize("name", METHODS)


@everywhere
def test_shape_sign_provenance_and_repeat(name: str, dims: int, task: str, modalities: int) -> None:
    network, x = make(task, dims, modalities), image(dims, modalities)
    before = x.clone()
    first, second = explain(name, network, x, seed=7), explain(name, network, x, seed=7)
    channels = 1 if name in SINGLE else modalities
    assert first.values.shape == (BATCH, channels, *SHAPES[dims])
    assert first.values.dtype == x.dtype
    assert not first.values.requires_grad
    assert torch.isfinite(first.values).all()
    assert first.values.abs().sum() > 0
    assert first.signed is (name not in UNSIGNED)
    # Class 2 has mostly positive evidence, which single maps may show alone.
    maps = [first.values]
    if name in SINGLE | {"lrp"}:
        maps += [explain(name, network, x, Class(k)).values for k in (0, 1)]
    assert any(bool((values < 0).any()) for values in maps) is first.signed
    assert torch.equal(first.values, second.values)
    assert first.describe() == second.describe()
    assert json.loads(json.dumps(first.describe()))["method"] == name
    assert first.provenance["seed"] == 7
    assert torch.equal(x, before)
    with torch.no_grad():
        out = network.eval()(x)
    expected = out[:, 2] if out.dim() == 2 else out[:, 2].flatten(1).mean(dim=1)
    assert first.score == pytest.approx(expected.tolist(), rel=1e-5)


@everywhere
def test_a_batch_is_its_samples(
    name: str, dims: int, task: str, modalities: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = make(task, dims, modalities), image(dims, modalities)
    draws = quick("smoothgrad").parameters()["samples"]
    noise = torch.randn(draws, *x.shape, generator=torch.Generator().manual_seed(3))

    def noise_of(rows: slice) -> None:
        """Noise belongs to a sample and a copy here, so that a batch sees what its parts see."""
        given: Iterator[Tensor] = iter(noise[:, rows])
        monkeypatch.setattr(smoothgrad, "_normal", lambda x, generator: next(given))

    noise_of(slice(None))
    whole = explain(name, network, x)
    parts = []
    for sample in range(BATCH):
        rows = slice(sample, sample + 1)
        noise_of(rows)
        parts.append(explain(name, network, x[rows].clone()))
    assert relative(whole.values, torch.cat([part.values for part in parts])) <= 1e-5
    assert whole.score == pytest.approx([part.score[0] for part in parts], rel=1e-5)


@everywhere
def test_the_network_is_left_as_found(name: str, dims: int, task: str, modalities: int) -> None:
    network, x = make(task, dims, modalities), image(dims, modalities)
    expected = explain(name, network.eval(), x).values
    network.train()
    network(x).sum().backward()  # fills .grad and moves the running statistics
    network = _restored(network, task, dims, modalities)
    before = snapshot(network)
    values = explain(name, network, x).values
    assert snapshot(network) == before
    assert torch.equal(values, expected), "a network handed over for training is evaluated"


def _restored(network: nn.Module, task: str, dims: int, modalities: int) -> nn.Module:
    """The same gradients, the first statistics, some modules frozen by the user already."""
    fresh = make(task, dims, modalities)
    network.load_state_dict(fresh.state_dict())
    next(iter(network.parameters())).requires_grad_(False)
    next(iter(network.children())).eval()
    return network


class Fuse(nn.Module):
    """Blows in the n-th forward or backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.arm()

    def arm(self, forward_at: int = -1, backward_at: int = -1) -> None:
        self.forward_at, self.backward_at = forward_at, backward_at
        self.calls = [0, 0]

    def forward(self, x: Tensor) -> Tensor:
        self.calls[0] += 1
        if self.calls[0] == self.forward_at:
            raise FloatingPointError("forward")
        x = x.clone()
        if x.requires_grad:
            x.register_hook(self._arrive)
        return x

    def _arrive(self, gradient: Tensor) -> None:
        self.calls[1] += 1
        if self.calls[1] == self.backward_at:
            raise FloatingPointError("backward")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        *itertools.product(METHODS, ["forward"]),
        *itertools.product([name for name in METHODS if name not in PERTURBATION], ["backward"]),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_the_network_is_left_as_found_after_an_exception(name: str, where: str, task: str) -> None:
    many = name in {"integrated_gradients", "guided_integrated_gradients", "smoothgrad"}
    many |= name in PERTURBATION
    at = 2 if (many and (where, name) != ("backward", "integrated_gradients")) else 1
    if name == "smoothgrad" and where == "backward":
        at = 1  # all its copies go through in one batch
    network, x = make(task), image()
    last = "third_act" if task == "classifier" else "join_act"
    act = network.get_submodule(last)
    fuse = Fuse()
    setattr(network, last, nn.Sequential(act, fuse))
    network.train()
    network.get_submodule("norm").eval()
    network(x).sum().backward()
    fuse.arm(**{f"{where}_at": at})
    before = snapshot(network)
    with pytest.raises(FloatingPointError, match=where):
        explain(name, network, x)
    assert snapshot(network) == before
    fuse.arm()
    assert torch.isfinite(explain(name, network, x).values).all()


@every_method
def test_the_input_may_want_gradients_and_grad_mode_may_be_off(name: str) -> None:
    network, x = make("segmenter"), image()
    expected = explain(name, network, x).values
    leaf = x.clone().requires_grad_()
    got = explain(name, network, leaf)
    assert torch.equal(got.values, expected)
    assert leaf.grad is None
    assert not got.values.requires_grad
    with torch.no_grad():
        assert torch.equal(explain(name, network, x).values, expected)


@every_method
def test_a_network_that_works_in_place_on_its_input_does_not_spoil_it(name: str) -> None:
    class Shifted(nn.Module):
        def __init__(self, inner: nn.Module, in_place: bool) -> None:
            super().__init__()
            self.inner, self.in_place = inner, in_place

        def forward(self, x: Tensor) -> Tensor:
            x = x.sub_(0.5) if self.in_place else x - 0.5
            out: Tensor = self.inner(x)
            return out

    inner, x = make("classifier"), image()
    before = x.clone()
    got = explain(name, Shifted(inner, in_place=True), x)
    assert torch.equal(x, before)
    assert torch.equal(got.values, explain(name, Shifted(inner, in_place=False), x).values)


@every_method
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.zeros(2, 4, 8, 10, dtype=torch.int64), "floating point"),
        (torch.zeros(8, 10), r"\(8, 10\)"),
        (torch.full((2, 4, 8, 10), torch.nan), "NaN"),
        (torch.full((2, 4, 8, 10), torch.inf), "infinite"),
        (torch.zeros(0, 4, 8, 10), "empty"),
        (torch.zeros(2, 4, 0, 10), "empty"),
    ],
    ids=["integers", "no channels", "nan", "infinite", "no samples", "no voxels"],
)
def test_an_unusable_input_is_refused(name: str, x: Tensor, says: str) -> None:
    with pytest.raises(MethodError, match=says):
        explain(name, make("classifier"), x)


@every_method
def test_a_network_that_overflows_is_refused(name: str) -> None:
    network = make("segmenter")
    with torch.no_grad():
        network.get_submodule("join").weight.fill_(torch.nan)  # type: ignore[operator]
    with pytest.raises(MethodError, match="NaN or infinite"):
        explain(name, network, image())


@every_method
def test_a_wrong_shape_is_refused(name: str) -> None:
    method = quick(name)
    with pytest.raises(MethodError, match=f"{name} returned the shape"):
        method._check_output(torch.zeros(3, 2, 10, 14), image())


def test_the_table_begins_with_the_papers_methods() -> None:
    assert list(PAPER) == [
        "vanilla_gradient",
        "guided_backprop",
        "integrated_gradients",
        "guided_integrated_gradients",
        "smoothgrad",
        "grad_cam",
        "guided_grad_cam",
    ]
    assert tuple(METHODS)[: len(PAPER)] == PAPER
    assert set(METHODS) <= set(all_methods())
    for name, method in METHODS.items():
        assert method.name == name
        assert method.title
        assert method.citation.startswith(("arXiv:", "doi:"))
        assert method().parameters().keys() == {field.name for field in dataclasses.fields(method)}


def test_methods_by_word() -> None:
    with pytest.raises(MethodError, match="did you mean 'grad_cam'"):
        make_method("gradcam")
    with pytest.raises(MethodError, match="has no parameter 'step': did you mean 'steps'"):
        make_method("integrated_gradients", {"step": 3})
    with pytest.raises(MethodError, match="it has no parameters"):
        make_method("vanilla_gradient", {"steps": 3})
    with pytest.raises(MethodError, match="no method"):
        make_methods([])
    usual = [name for name, method in all_methods().items() if not method.on_request]
    assert [m.name for m in make_methods("all")] == usual
    assert {*all_methods()} - {*usual} >= PERTURBATION
    assert {*PAPER} <= {*usual}
    made = make_methods(["grad_cam", METHODS["smoothgrad"]()], layer="enter")
    assert made[0].parameters() == {"layer": "enter"}
    assert [m.name for m in make_methods("vanilla_gradient")] == ["vanilla_gradient"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("integrated_gradients", {"steps": 0}),
        ("integrated_gradients", {"steps": 1, "rule": "trapezoid"}),
        ("integrated_gradients", {"rule": "simpson"}),
        ("integrated_gradients", {"tolerance": 0}),
        ("guided_integrated_gradients", {"steps": 0}),
        ("guided_integrated_gradients", {"fraction": 0}),
        ("guided_integrated_gradients", {"fraction": 1.5}),
        ("guided_integrated_gradients", {"max_distance": -0.1}),
        ("smoothgrad", {"samples": 0}),
        ("smoothgrad", {"noise": -1}),
        ("smoothgrad", {"aggregation": "median"}),
        ("smoothgrad", {"aggregation": "variance", "samples": 1}),
        ("smoothgrad", {"tolerance": -1.0}),
        ("smoothgrad", {"samples": 2.5}),
        ("smoothgrad", {"noise": float("nan")}),
        ("integrated_gradients", {"steps": 2.5}),
        ("integrated_gradients", {"steps": True}),
        ("integrated_gradients", {"tolerance": "1 %"}),
        ("guided_integrated_gradients", {"steps": "12"}),
        ("guided_integrated_gradients", {"fraction": float("nan")}),
    ],
    ids=str,
)
def test_a_bad_parameter_is_refused_when_it_is_given(
    name: str, parameters: dict[str, object]
) -> None:
    with pytest.raises(MethodError, match=f"^{name}|variance"):
        make_method(name, parameters)


def test_coarse_cells_are_told() -> None:
    """Eight by nine voxels, as behind three poolings; of four by five nobody needs to know."""
    network = nn.Sequential(nn.Conv2d(4, 6, (8, 9), stride=(8, 9)), nn.ReLU(), nn.Conv2d(6, 3, 1))
    found = explain("grad_cam", network, torch.rand(1, 4, 24, 36))
    assert found.diagnostics["cell_voxels"] == [8, 9]
    assert any(
        f"resolution: one cell of layer {found.layer} covers 8 x 9 voxels" in note
        for note in found.notes
    )
    finer = nn.Sequential(nn.Conv2d(4, 6, (4, 5), stride=(4, 5)), nn.ReLU(), nn.Conv2d(6, 3, 1))
    assert not any(
        "one cell" in n for n in explain("grad_cam", finer, torch.rand(1, 4, 24, 36)).notes
    )


def test_an_explanation_ready_for_json_leaves_out_time() -> None:
    explanation: Explanation = explain("vanilla_gradient", make("classifier"), image())
    assert "seconds" not in explanation.describe()
    assert explanation.describe()["use"].startswith("Research use only")


@every_method
def test_progress_counts_what_the_method_announces(name: str) -> None:
    method: Method = quick(name)
    probe = WholeVolume(make("segmenter"), Class(2))
    method.explain(probe, image())
    assert probe.passes.gradients == BATCH * method.gradients
    if name in PERTURBATION:
        assert method.forwards_at(image()) > 0
