"""Windows: their answer, its exact gradient and maps, against MONAI's windows differentiated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import sliding_window_inference
from monai.inferers.utils import _get_scan_interval
from torch import Tensor, nn

from networks import CONV, image, make, quick, quick_methods, relative, seeded, snapshot
from neuroxai.core.errors import LayerError, ModelError, TargetError
from neuroxai.core.layers.reduction import MEAN_GRADIENT_WEIGHTS, LayerReduction
from neuroxai.core.probe.ensemble import Ensemble
from neuroxai.core.probe.requests import InputGradient, LayerMap
from neuroxai.core.probe.sliding_window import SlidingWindow
from neuroxai.core.probe.whole_volume import WholeVolume
from neuroxai.core.probe.windows import Windows
from neuroxai.core.rules.guided import GUIDED
from neuroxai.core.spatial import upsample
from neuroxai.core.target.contrast import Contrast
from neuroxai.core.target.outputs import Outputs
from neuroxai.core.target.restriction import Box
from neuroxai.core.target.score import Score
from neuroxai.core.target.target import Class, Region, Target
from neuroxai.methods import METHODS, make_method
from neuroxai.methods.hirescam import ActivationTimesGradient
from neuroxai.methods.layercam import ActivationTimesPositiveGradient

SIZES = {2: (6, 8), 3: (4, 4, 6)}
IMAGES = {2: (13, 11), 3: (7, 9, 5)}  # the last axis in 3D is smaller than a window
OUTPUTS = Outputs(
    ("air", "a", "b", "c", "d"), {"ab": ("a", "b"), "c": ("c",)}, activation="softmax"
)


ON_THE_WHOLE_IMAGE = ("cam", "grad_cam_plus_plus")
"""Methods whose weights of a layer are not defined over windows."""


class Blended(nn.Module):
    """MONAI's windows as one big graph."""

    def __init__(self, network: nn.Module, windows: Windows) -> None:
        super().__init__()
        self.network = network
        self.windows = windows

    def forward(self, x: Tensor) -> Tensor:
        found = sliding_window_inference(
            x, self.windows.size, 1, self.network, overlap=self.windows.overlap,
            roi_weight_map=self.windows.weights,
        )  # fmt: skip
        assert isinstance(found, Tensor)
        return found


def some_windows(dims: int, mode: str = "gaussian", overlap: float = 0.5) -> Windows:
    weights = compute_importance_map(SIZES[dims], mode=mode, sigma_scale=0.25)
    return Windows(SIZES[dims], weights.clamp(min=1e-3), overlap)


def an_image(dims: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(batch, 4, *IMAGES[dims], generator=generator)


REDUCTIONS: tuple[LayerReduction, ...] = (
    MEAN_GRADIENT_WEIGHTS, ActivationTimesGradient(), ActivationTimesPositiveGradient(),
)  # fmt: skip

TARGETS: dict[str, Target] = {
    "class": Class(2),
    "probability": Class(2, scale="probability"),
    "region": Region("ab"),
    "restricted": Region("ab", within=Box((1, 2), (5, 5))),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5])
def test_the_answer_is_monais(dims: int, mode: str, overlap: float) -> None:
    network, x = make("segmenter", dims), an_image(dims)
    windows = some_windows(dims, mode, overlap)
    probe = SlidingWindow(network, Class(2), windows=windows)
    with probe.at(x):
        found = probe.output()
    assert relative(found, Blended(network.eval(), windows)(x).detach()) <= 1e-5


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("word", TARGETS)
def test_the_gradients_are_those_through_one_big_graph(dims: int, word: str) -> None:
    network, x, target = make("segmenter", dims), an_image(dims), TARGETS[word]
    if word == "restricted" and dims == 3:
        target = Region("ab", within=Box((1, 2, 0), (6, 4, 3)))
    windows = some_windows(dims)
    probe = SlidingWindow(network, target, OUTPUTS, windows=windows)
    whole = WholeVolume(Blended(network, windows), target, OUTPUTS)
    requests, other = [InputGradient(), InputGradient(GUIDED)], x.flip(-1) * 0.7
    with probe.at(x, requests), whole.at(x, requests):
        assert relative(probe.gradient(x), whole.gradient(x)) <= 1e-5
        assert relative(probe.gradient(x, GUIDED), whole.gradient(x, GUIDED)) <= 1e-5
        assert torch.allclose(probe.score(x), whole.score(x), atol=1e-5)
        assert relative(probe.gradient(other), whole.gradient(other)) <= 1e-5
        assert relative(probe.gradient(other, GUIDED), whole.gradient(other, GUIDED)) <= 1e-5
        assert torch.allclose(probe.score(other), whole.score(other), atol=1e-5)


def test_a_linear_target_takes_one_sweep_along_a_path() -> None:
    network, x, windows = make("segmenter", 2), an_image(2), some_windows(2)
    count = len(windows.place(IMAGES[2]))
    for target, sweeps in ((Class(1), 1), (Region("ab"), 2)):
        probe = SlidingWindow(network, target, OUTPUTS, windows=windows)
        with probe.at(x):
            probe.output()
            before = probe.passes.forward
            probe.gradient(x * 0.5)
        assert probe.passes.forward - before == sweeps * count
        assert probe.passes.gradients == len(x)
        fresh = SlidingWindow(network, target, OUTPUTS, windows=windows)
        with fresh.at(x, [InputGradient()]):
            fresh.gradient(x)
            assert torch.equal(fresh.output(), probe.run(x))
        assert fresh.passes.forward == sweeps * count


@pytest.mark.parametrize("word", TARGETS)
def test_progress_moves_with_each_window_and_ends_at_one_step_a_gradient(word: str) -> None:
    network, x, windows = make("segmenter", 2), an_image(2), some_windows(2)
    count = len(windows.place(IMAGES[2]))
    probe = SlidingWindow(network, TARGETS[word], OUTPUTS, windows=windows)
    gradients: list[float] = []
    outputs: list[float] = []
    probe.on_gradient, probe.on_output = gradients.append, outputs.append
    with probe.at(x, [InputGradient(), InputGradient(GUIDED)]):
        probe.gradient(x)
        assert len(gradients) in (count, 2 * count)
        assert sum(gradients) == pytest.approx(2 * len(x))
        assert min(gradients) > 0
        probe.score(x * 0.5)
    # The windows that the mask does not touch are not run for the score.
    assert len(outputs) == count if word != "restricted" else len(outputs) < count
    assert outputs == pytest.approx([len(x) / len(outputs)] * len(outputs))
    assert count > 3


LOCAL: dict[str, Target] = {
    "class": Class(2, within=Box((8, 7), (10, 9))),
    "region": Region("ab", within=Box((0, 0), (2, 2))),
    "probability": Class(2, scale="probability", within=Box((8, 7), (10, 9))),
    "contrast": Contrast(2, 1, within=Box((8, 7), (10, 9))),
}


@pytest.mark.parametrize("word", LOCAL)
@pytest.mark.parametrize("method", ["vanilla_gradient", "guided_backprop", "integrated_gradients",
                                    "grad_cam", "hirescam", "layercam"])  # fmt: skip
def test_windows_that_the_mask_does_not_touch_change_no_bit(
    word: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = make("segmenter", 2).eval(), an_image(2)
    windows = Windows((4, 4), torch.rand(4, 4) + 0.1, 0.5)
    options = {"steps": 6, "baseline": "blur"} if method == "integrated_gradients" else {}
    made = make_method(method, options)
    probe = SlidingWindow(network, LOCAL[word], OUTPUTS, windows=windows)
    fewer = made.explain(probe, x)
    monkeypatch.setattr(SlidingWindow, "_touched", lambda *_: None)
    everything = SlidingWindow(network, LOCAL[word], OUTPUTS, windows=windows)
    plain = made.explain(everything, x)
    assert torch.equal(fewer.values, plain.values)
    assert fewer.score == plain.score
    assert fewer.diagnostics == plain.diagnostics
    assert probe.passes.backward < everything.passes.backward
    assert probe.passes.gradients == everything.passes.gradients
    if method == "integrated_gradients":
        assert probe.passes.forward < 0.5 * everything.passes.forward


def test_the_output_at_the_explained_point_stays_complete() -> None:
    network, x, windows = make("segmenter", 2).eval(), an_image(2), some_windows(2)
    whole = SlidingWindow(network, Class(2), OUTPUTS, windows=windows).run(x)
    for target in LOCAL.values():
        probe = SlidingWindow(network, target, OUTPUTS, windows=windows)
        with probe.at(x, [InputGradient()]):
            probe.gradient(x)
            assert torch.equal(probe.output(), whole)
            assert torch.equal(probe.output_at(x + 0.0), whole)


def test_what_depends_on_the_whole_output_runs_every_window() -> None:
    network, x, windows = make("segmenter", 2).eval(), an_image(2), some_windows(2)
    count = len(windows.place(IMAGES[2]))
    for target in (Class(2), Score(lambda z: z[:, 2].flatten(1).amax(dim=1))):
        probe = SlidingWindow(network, target, OUTPUTS, windows=windows)
        with probe.at(x):
            probe.output()
            before = probe.passes.forward
            probe.score(x * 0.5)
            assert probe.passes.forward - before == count
    stateful = SlidingWindow(network, LOCAL["class"], OUTPUTS, windows=windows)
    stateful.facts.keeps_state = True
    with stateful.at(x):
        stateful.output()
        before = stateful.passes.forward
        stateful.score(x * 0.5)
        assert stateful.passes.forward - before == count


@pytest.mark.parametrize("dims", [2, 3])
def test_one_window_is_the_whole_volume(dims: int) -> None:
    network, x = make("segmenter", dims), image(dims)
    windows = Windows(tuple(x.shape[2:]), torch.full(x.shape[2:], 2.0), overlap=0.25)
    for method in quick_methods():
        if method.name in ON_THE_WHOLE_IMAGE:
            continue
        found, expected = (
            method.explain(probe, x, seed=1)
            for probe in (
                SlidingWindow(network, Region("ab"), OUTPUTS, windows=windows),
                WholeVolume(network, Region("ab"), OUTPUTS),
            )
        )
        assert relative(found.values, expected.values) <= 1e-5, method.name
        assert found.layer == expected.layer
        assert found.provenance["windows"]["size"] == list(x.shape[2:])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("layer", ["down", "join_act"])
@pytest.mark.parametrize("reduction", REDUCTIONS, ids=lambda each: type(each).__name__)
def test_a_layer_map_from_the_definition(dims: int, layer: str, reduction: LayerReduction) -> None:
    # A batch of one, because MONAI takes the samples of a batch one at a time.
    network, x, windows = make("segmenter", dims).eval(), an_image(dims, 1), some_windows(dims)
    laid = windows.place(IMAGES[dims])
    seen: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    )
    z = Blended(network, windows)(x)
    handle.remove()
    score = z[:, 1:3].logsumexp(dim=1).flatten(1).mean(dim=1)
    gradients = torch.autograd.grad(score.sum(), seen)
    # What the layer has of the padded image, if it kept the grid it has in a window.
    cells = seen[0][0, 0].numel() * torch.zeros(laid.padded).numel() / windows.weights.numel()
    weights = torch.stack([g.flatten(2).sum(dim=2) for g in gradients]).sum(dim=0) / cells
    blended, total = torch.zeros(len(x), 1, *laid.padded), torch.zeros(laid.padded)
    for cut, activation, gradient in zip(laid, seen, gradients, strict=True):
        if reduction == MEAN_GRADIENT_WEIGHTS:
            small = torch.einsum("bk,bk...->b...", weights, activation.detach()).unsqueeze(1)
            blended[cut] += windows.weights * upsample(small, windows.size)
            total[cut] += windows.weights
            continue
        # The gradient holds the window's share of the weights already: contributions add up.
        positive = reduction == ActivationTimesPositiveGradient()
        slope = gradient.relu() if positive else gradient
        small = torch.einsum("bk...,bk...->b...", slope, activation.detach()).unsqueeze(1)
        blended[cut] += upsample(small, windows.size)
        total[cut] = 1
    probe = SlidingWindow(network, Region("ab"), OUTPUTS, windows=windows)
    with probe.at(x, [InputGradient(), LayerMap(layer, reduction)]):
        found, signed = probe.layer_map(x, layer, reduction)
    assert relative(signed, laid.crop(blended / total)) <= 1e-5
    assert found.name == layer


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("within", [False, True], ids=["image", "box"])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_hirescam_over_windows_adds_up_to_the_target(
    dims: int, within: bool, overlap: float
) -> None:
    """Blended twice, by the gradients' shares and once more, it would not."""
    layers = [CONV[dims](4, 6, 3, padding=1), nn.Tanh(), CONV[dims](6, 5, 1, bias=False)]
    network, x = seeded(2, lambda: nn.Sequential(*layers)).double(), an_image(dims).double()
    box = Box((1,) * dims, tuple(n - 1 for n in IMAGES[dims])) if within else None
    windows = some_windows(dims, overlap=overlap)
    windows = Windows(windows.size, windows.weights.double(), overlap)
    probe = SlidingWindow(network, Class(2, within=box), OUTPUTS, windows=windows)
    got = make_method("hirescam", {"layer": "1"}).explain(probe, x)
    score = torch.tensor(got.score, dtype=torch.double)
    assert relative(got.values.flatten(1).sum(dim=1), score) <= 1e-6
    assert any("zero outside box" in note for note in got.notes) is within


def test_maps_of_several_layers_take_one_more_sweep() -> None:
    network, x, windows = make("segmenter", 2), an_image(2), some_windows(2)
    count = len(windows.place(IMAGES[2]))
    probe = SlidingWindow(network, Region("ab"), OUTPUTS, windows=windows)
    averaged = [LayerMap(layer) for layer in ("enter", "down", "join")]
    placed = [LayerMap(layer, ActivationTimesGradient()) for layer in ("enter", "down")]
    with probe.at(x, [*averaged, *placed, InputGradient(), InputGradient(GUIDED)]):
        together = [probe.layer_map(x, each.layer, each.reduction)[1] for each in averaged + placed]
    # The output, the gradients, and the maps with the weights that are known after them.
    assert probe.passes.forward == 3 * count
    assert probe.passes.backward == 2 * count
    for request, values in zip(averaged + placed, together, strict=True):
        alone = SlidingWindow(network, Region("ab"), OUTPUTS, windows=windows)
        with alone.at(x, [request]):
            expected = alone.layer_map(x, request.layer, request.reduction)[1]
        assert relative(values, expected) <= 1e-5


@dataclass(frozen=True)
class Largest(LayerReduction):
    """Of the whole image alone: which cell is the largest cannot be said of a window."""

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient).sum(dim=1, keepdim=True) == gradient.max()


def test_a_reduction_of_the_whole_image_is_refused() -> None:
    probe = SlidingWindow(make("segmenter", 2), Class(1), OUTPUTS, windows=some_windows(2))
    x = an_image(2)
    with probe.at(x, [LayerMap("down", Largest()), InputGradient()]):
        assert probe.gradient(x).any()
        with pytest.raises(LayerError, match="Largest is not defined over windows"):
            probe.layer_map(x, "down", Largest())


def test_cells_are_measured_within_a_window() -> None:
    network, x = make("segmenter", 2), an_image(2)
    found = make_method("grad_cam", {"layer": "down"}).explain(
        SlidingWindow(network, Class(1), OUTPUTS, windows=some_windows(2)), x
    )
    assert found.diagnostics["cell_voxels"] == [2, 2]


def test_the_oracle_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x, windows = make("segmenter", 2), an_image(2), some_windows(2)
    whole = WholeVolume(Blended(network, windows), Class(1), OUTPUTS)
    monkeypatch.setattr(
        "neuroxai.core.probe.windows.PlacedWindows.share", lambda self, cut: windows.weights / 2
    )
    probe = SlidingWindow(network, Class(1), OUTPUTS, windows=windows)
    with probe.at(x), whole.at(x):
        assert relative(probe.gradient(x), whole.gradient(x)) > 0.05


@pytest.mark.parametrize("method", METHODS)
def test_every_method_over_windows_keeps_its_contract(method: str) -> None:
    network, x = make("segmenter", 3), an_image(3)
    before = snapshot(network)
    made = quick(method)
    if method in ON_THE_WHOLE_IMAGE:
        with pytest.raises(LayerError, match="not defined over windows"):
            made.explain(SlidingWindow(network, Region("c"), OUTPUTS, windows=some_windows(3)), x)
        return
    found = made.explain(SlidingWindow(network, Region("c"), OUTPUTS, windows=some_windows(3)), x)
    assert found.values.shape[2:] == x.shape[2:]
    assert found.values.abs().sum() > 0
    assert snapshot(network) == before


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=lambda each: type(each).__name__)
def test_an_ensemble_answers_with_the_mean_and_maps_with_the_sum(reduction: LayerReduction) -> None:
    members = [make("segmenter", 2, seed=seed).eval() for seed in (0, 7)]
    ensemble, x, windows = Ensemble(members), an_image(2), some_windows(2)
    probe = SlidingWindow(ensemble, Class(2), OUTPUTS, windows=windows)
    with probe.at(x, [LayerMap("auto", each) for each in REDUCTIONS]):
        layer, signed = probe.layer_map(x, "auto", reduction)
        assert layer.name == "members.*.exit:input"
        alone = []
        for number, member in enumerate(members):
            single = SlidingWindow(member, Class(2), OUTPUTS, windows=windows)
            with single.at(x):
                alone.append(single.layer_map(x, "exit:input", reduction)[1])
                if number == 0:
                    gradient, output = single.gradient(x) / 2, single.output() / 2
                else:
                    gradient, output = (
                        gradient + single.gradient(x) / 2,
                        output + single.output() / 2,
                    )
        assert relative(signed, (alone[0] + alone[1]) / 2) <= 1e-5
        assert relative(probe.output(), output) <= 1e-5
        assert relative(probe.gradient(x), gradient) <= 1e-5


def test_work_in_place_and_a_layer_that_never_runs() -> None:
    network = seeded(
        3,
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, padding=1), nn.LeakyReLU(inplace=True), nn.Conv2d(6, 5, 1)
        ),
    )
    out_of_place = nn.Sequential(network[0], nn.LeakyReLU(), network[2])  # type: ignore[index]
    x, windows = an_image(2), some_windows(2)
    maps = []
    for each in (network, out_of_place):
        probe = SlidingWindow(each, Class(1), windows=windows)
        with probe.at(x):
            maps.append(probe.layer_map(x, "0")[1])
    assert relative(maps[0], maps[1]) <= 1e-6
    idle = make("segmenter", 2)
    idle.add_module("idle", nn.Conv2d(1, 1, 1))
    probe = SlidingWindow(idle, Class(1), windows=windows)
    with probe.at(x), pytest.raises(LayerError, match="never ran"):
        probe.layer_map(x, "idle")


def test_refusals() -> None:
    x = an_image(2)
    with pytest.raises(ModelError, match="only segmenters"):
        SlidingWindow(make("classifier", 2), Class(1), windows=some_windows(2)).run(x)
    with pytest.raises(ModelError, match="as many axes"):
        SlidingWindow(make("segmenter", 2), Class(1), windows=some_windows(3)).run(x)
    for bad in ({"overlap": 1.0}, {"weights": torch.zeros(6, 8)}, {"weights": torch.ones(8, 6)}):
        options: dict[str, Any] = {"size": (6, 8), "weights": torch.ones(6, 8), "overlap": 0.5}
        with pytest.raises(ModelError, match="windows of"):
            Windows(**{**options, **bad})
    few = Outputs(("air", "a"), {}, "softmax")
    probe = SlidingWindow(make("segmenter", 2), Class(1), few, windows=some_windows(2))
    with (
        pytest.raises(ModelError, match="returns 5 channels, its outputs name 2"),
        probe.at(x),
    ):
        probe.gradient(x)
    probe = SlidingWindow(make("segmenter", 2), Class(9), windows=some_windows(2))
    with pytest.raises(TargetError, match="class 9"), probe.at(x):
        probe.gradient(x)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(3, 60),
    size=st.integers(1, 40),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.6, 0.75, 0.9]),
    even=st.booleans(),
)
def test_windows_cover_every_voxel(length: int, size: int, overlap: float, even: bool) -> None:
    laid = Windows((size,), torch.ones(size), overlap, even).place((length,))
    seen = torch.zeros(laid.padded)
    for cut in laid:
        assert len(seen[cut]) == size
        seen[cut] += 1
    assert seen.min() >= 1
    starts = Windows((size,), torch.ones(size), overlap, even).starts(laid.padded)
    if not even:
        assert len(set(starts)) == len(starts)
        interval = _get_scan_interval(laid.padded, (size,), 1, (overlap,))
        expected = dense_patch_slices(laid.padded, (size,), interval)
        assert starts == tuple((each[0].start,) for each in expected)


def test_evenly_spread_as_nnunet_documents_it() -> None:
    # 110 voxels in tiles of 64 at half a step: 0, 23, 46.
    assert Windows((64,), torch.ones(64), 0.5, even=True).starts((110,)) == ((0,), (23,), (46,))
