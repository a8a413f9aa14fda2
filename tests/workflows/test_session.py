"""Sessions: the same maps as separate runs, fewer passes, and everything left as it was found."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cases
import neuroxai as nx
from networks import relative
from neuroxai.core.errors import CancelledError, MethodError, ModelError, NoTargetError, TargetError
from neuroxai.core.explanation import network_hash, tensor_hash
from neuroxai.core.probe.windows import Windows
from neuroxai.methods import make_method
from neuroxai.methods.base import Method
from neuroxai.methods.paths.mirror import mirror_image
from neuroxai.models.deepseg import DeepSeg
from neuroxai.workflows import answer
from neuroxai.workflows import device as devices
from neuroxai.workflows import session as session_module
from neuroxai.workflows.device import on_device
from neuroxai.workflows.session import Session
from neuroxai.workflows.tensor_session import TensorSession

QUICK: list[str | Method] = [
    "vanilla_gradient", "guided_backprop", "grad_cam", "guided_grad_cam",
    make_method("integrated_gradients", {"steps": 3}), make_method("smoothgrad", {"samples": 2}),
]  # fmt: skip
TARGETS = ["WT", "TC", "ET"]


@pytest.fixture(scope="module")
def small(room: object, tmp_path_factory: pytest.TempPathFactory) -> nx.Model:
    """An untrained segmenter of two filters."""
    folder = tmp_path_factory.mktemp("small")
    return nx.load_model(str(cases.segmenter(folder, (32, 64, 32), filters=2)))


@contextmanager
def counted(network: nn.Module) -> Iterator[list[bool]]:
    """Yield one entry for each forward pass with values: whether it recorded a graph."""
    passes: list[bool] = []

    def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        if given[0].device.type != "meta":
            passes.append(torch.is_grad_enabled())

    handle = network.register_forward_pre_hook(count)
    try:
        yield passes
    finally:
        handle.remove()


def in_windows(model: nx.Model) -> nx.Model:
    """Return the model as one that is made for windows."""
    size = (32, 32, 32)
    return dataclasses.replace(model, windows=Windows(size, torch.ones(size), 0.5, divisor=32))


@pytest.mark.parametrize("how", ["whole", "windows", "checkpointed"])
def test_targets_together_have_the_maps_of_separate_runs(
    how: str, study: nx.Case, small: nx.Model
) -> None:
    model = in_windows(small) if how == "windows" else small
    session = nx.open(model, study)
    if how == "checkpointed":
        _choose(session, "checkpointed")
    together = session.explain(QUICK, TARGETS, seed=3)
    assert list(together) == TARGETS
    for name in TARGETS:
        alone_session = nx.open(model, study)
        if how == "checkpointed":
            _choose(alone_session, "checkpointed")
        alone = alone_session.explain(QUICK, name, seed=3)
        assert together[name].memory.strategy == (
            "checkpointed" if how == "checkpointed" else "whole"
        )
        assert list(together[name]) == list(alone)
        for method, found in together[name].items():
            assert found.explanation.score == alone[method].explanation.score
            assert found.explanation.target == alone[method].explanation.target
            # The same operations on the same numbers; only sums over windows are reordered.
            assert relative(found.values, alone[method].values) <= 1e-6, (name, method)
            if how == "whole":
                assert torch.equal(found.values, alone[method].values), (name, method)


def _choose(session: Session, name: str) -> None:
    """Make a session start with a strategy."""
    plan = session._planner.plan(measure=True)
    strategies = [each for each in (*plan.rejected, *plan.strategies) if each.name == name]
    session._planner._plans[True] = dataclasses.replace(plan, strategies=tuple(strategies))


def test_targets_share_one_forward_pass(study: nx.Case, small: nx.Model) -> None:
    session = nx.open(small, study)
    with counted(small.network) as passes:
        session.explain(["vanilla_gradient", "guided_backprop", "grad_cam"], TARGETS)
    assert passes == [True]
    with counted(small.network) as passes:
        assert session.prediction.labels is not None
    assert not passes, "the prediction comes from the pass that was explained"


def test_windows_take_three_sweeps_for_any_number_of_targets(
    study: nx.Case, small: nx.Model
) -> None:
    session = nx.open(in_windows(small), study)
    sweep = len(in_windows(small).windows.place(session.x.shape[2:]))  # type: ignore[union-attr]
    assert sweep > 1
    for targets in (["WT"], TARGETS):
        with counted(small.network) as passes:
            session.explain(["vanilla_gradient", "grad_cam"], targets)
        # For the blended output, the gradients, and the blended layer maps; two passes find "auto".
        assert len(passes) == 3 * sweep + 2


def test_checkpointed_targets_share_a_forward_pass(study: nx.Case, small: nx.Model) -> None:
    session = nx.open(small, study)
    _choose(session, "checkpointed")
    with counted(small.network) as passes:
        session.explain(["vanilla_gradient", "guided_backprop"], TARGETS)
    assert len(passes) == 1


def test_targets_share_passes_as_far_as_memory_goes(study: nx.Case, small: nx.Model) -> None:
    """Each target holds one gradient, and one more volume for layer maps."""
    session = nx.open(small, study)
    needed = session.estimate("vanilla_gradient").memory.expected_bytes
    assert needed is not None
    whole = nx.open(small, study).explain("vanilla_gradient", TARGETS)
    for room, forward in ((0, 3), (1, 3), (2, 2), (3, 1)):
        budget = needed + room * 2 * session.x.nbytes + 1
        tight = nx.open(small, study, memory=budget)
        tight.estimate("vanilla_gradient")
        with counted(small.network) as passes:
            found = tight.explain("vanilla_gradient", TARGETS)
        assert len(passes) == forward
        for name in TARGETS:
            values = found[name]["vanilla_gradient"].values
            assert torch.equal(values, whole[name]["vanilla_gradient"].values)


def test_a_later_call_knows_which_activations_to_copy() -> None:
    """The first pass finds out that a layer is overwritten in place; later ones copy it at once."""
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 2, 1))
    session = nx.open(network, torch.rand(2, 1, 9, 7))
    for count in (2, 1):
        with counted(network) as passes:
            session.explain(["vanilla_gradient", "grad_cam"], [0, 1], layer="0")
        assert len(passes) == count


def test_the_case_is_prepared_hashed_and_read_once(
    study: nx.Case, small: nx.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for module, name in ((session_module, "prepare"), (session_module, "describe_model"),
                         (answer, "read_output")):  # fmt: skip
        monkeypatch.setattr(module, name, _recording(name, getattr(module, name), calls))
    session = nx.open(small, study)
    for targets in (["WT", "ET"], ["TC"]):
        for maps in session.explain(["vanilla_gradient", "grad_cam"], targets).values():
            provenance = maps["grad_cam"].explanation.provenance
            assert provenance["input_sha256"] == tensor_hash(session.prepared.x)
            assert maps["grad_cam"].model["state_sha256"] == network_hash(small.network)
    assert session.prediction is session.prediction
    session.inspect("WT")
    assert sorted(calls) == ["describe_model", "prepare", "read_output"]


def _recording(
    name: str, function: Callable[..., object], calls: list[str]
) -> Callable[..., object]:
    def call(*arguments: object, **named: object) -> object:
        calls.append(name)
        return function(*arguments, **named)

    return call


def test_memory_is_measured_where_it_is_short_or_asked_for_alone(
    study: nx.Case, small: nx.Model
) -> None:
    ample = nx.open(small, study, memory="64GB")
    with counted(small.network) as passes:
        maps = ample.explain("vanilla_gradient")
    assert len(passes) == 1
    assert maps.memory.describe() == {
        "strategy": "whole", "expected_mb": None, "budget_mb": 64_000
    }  # fmt: skip
    estimate = ample.estimate("vanilla_gradient")
    assert estimate.memory.expected_bytes is not None
    assert ample.explain("vanilla_gradient").memory == estimate.memory
    short = nx.open(small, study, memory=estimate.memory.expected_bytes)
    assert short.explain("vanilla_gradient").memory.expected_bytes is not None


def test_the_short_form_and_a_session_agree(study: nx.Case, small: nx.Model) -> None:
    session = nx.open(small, study)
    short = nx.explain(small, study, "vanilla_gradient", "ET", within="truth")
    found = session.explain("vanilla_gradient", "ET", within="truth")
    assert torch.equal(short["vanilla_gradient"].values, found["vanilla_gradient"].values)
    assert short.warnings == found.warnings
    predicted, kept = nx.predict(small, study), nx.open(small, study).prediction
    assert predicted.labels is not None
    assert kept.labels is not None
    np.testing.assert_array_equal(predicted.labels, kept.labels)


def test_values_are_read_the_same_way_of_a_case_and_of_a_tensor(
    study: nx.Case, small: nx.Model
) -> None:
    of_case = nx.open(small, study).explain("vanilla_gradient", "WT")["vanilla_gradient"]
    x = nx.open(small, study).x
    outputs = nx.Outputs(small.card.classes, small.card.regions, "softmax")
    session = nx.open(small.network, x, outputs=outputs)
    of_tensor = session.explain("vanilla_gradient", "WT")["vanilla_gradient"]
    for found in (of_case, of_tensor):
        np.testing.assert_array_equal(np.asarray(found), found.values.numpy())
        assert np.asarray(found, dtype=np.float64).dtype == np.float64
        assert found.explanation.values is found.values
        assert isinstance(found.notes, tuple)
    np.testing.assert_array_equal(np.asarray(of_case), np.asarray(of_tensor))


def test_everything_is_shown_in_a_line(study: nx.Case, small: nx.Model) -> None:
    session = nx.open(small, study)
    found = session.explain("grad_cam", TARGETS)
    tensors = nx.open(nn.Conv2d(1, 2, 3), torch.rand(1, 1, 9, 7))
    for each in (
        session, tensors, found, found["ET"], found["ET"]["grad_cam"], session.inspect(["WT"]),
        session.estimate("grad_cam"),
    ):  # fmt: skip
        assert "\n" not in repr(each)
        assert len(repr(each)) < 400, type(each)
    assert "WT, TC, ET" in repr(found)
    assert "tiny" not in repr(session)
    assert repr(session).startswith("<Session: untrained-segmenter on BraTS2021_00007")


def test_layers_are_inspected_for_one_target_or_for_all(study: nx.Case, small: nx.Model) -> None:
    session = nx.open(small, study)
    for targets, names in (
        ("ET", ["ET"]), (0, ["0"]), (["TC", "WT"], ["TC", "WT"]),
        (None, ["WT", "TC", "ET", "background", "NCR", "ED"]),
    ):  # fmt: skip
        inspection = session.inspect(targets)
        assert [target.name for target in inspection.flow.targets] == names


def test_one_target_or_several(study: nx.Case, small: nx.Model) -> None:
    session = nx.open(small, study)
    assert session.explain("grad_cam", "ET").target == "ET"
    assert session.explain("grad_cam").target == "WT"
    assert list(session.explain("grad_cam", ["ET"])) == ["ET"]
    assert list(session.explain("grad_cam", [nx.Class("ET"), nx.Region("ET")])) == ["ET"]
    with pytest.raises(TargetError, match="two different targets are named 'ET'"):
        session.explain("grad_cam", [nx.Region("ET"), nx.Region("ET", scale="probability")])
    with pytest.raises(NoTargetError, match="did you mean 'ET'"):
        session.explain("grad_cam", ["ET"])["et"]
    assert session.explain("grad_cam", ["ET"]).get("TC") is None


class Passes:
    """Cancels when a number of passes was started."""

    def __init__(self, allowed: int) -> None:
        self.left = allowed

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


def looks(network: nn.Module) -> list[object]:
    """Return what a caller may see of a network: weights, flags and hooks."""
    return [
        network_hash(network),
        [module.training for module in network.modules()],
        [parameter.requires_grad for parameter in network.parameters()],
        [parameter.device for parameter in network.parameters()],
        [
            len(module._forward_hooks) + len(module._forward_pre_hooks)
            for module in network.modules()
        ],
    ]


@pytest.mark.parametrize("allowed", [0, 1, 3, 6])
def test_cancelling_stops_and_leaves_the_network_as_found(
    allowed: int, study: nx.Case, small: nx.Model
) -> None:
    small.network.train()
    before = looks(small.network)
    session = nx.open(in_windows(small), study, cancel=Passes(allowed))
    with counted(small.network) as passes, pytest.raises(CancelledError, match="cancelled"):
        session.explain(QUICK, TARGETS)
    small.network.eval()
    assert len(passes) <= allowed
    small.network.train()
    assert looks(small.network) == before
    small.network.eval()


def test_an_event_cancels(study: nx.Case, small: nx.Model) -> None:
    event = threading.Event()
    session = nx.open(small, study, cancel=event)
    session.explain("grad_cam")
    event.set()
    for work in (
        lambda: session.explain("grad_cam"),
        lambda: session.inspect(["WT"]),
        lambda: nx.open(small, study, cancel=event).prediction,
    ):
        with pytest.raises(CancelledError, match="cancelled"):
            work()


def test_a_failing_network_is_left_as_found(study: nx.Case, small: nx.Model) -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = small.network, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 2:
                raise ValueError("no more")
            out: Tensor = self.inner(x)
            return out

    network = Fails()
    before = looks(network)
    session = nx.open(dataclasses.replace(small, network=network), study)
    with pytest.raises(ModelError, match="no more"):
        session.explain(QUICK, TARGETS)
    assert looks(network) == before


def test_progress_is_reported_to_the_end(study: nx.Case, small: nx.Model) -> None:
    told: list[tuple[str, float, float]] = []
    session = nx.open(small, study, progress=lambda *stage: told.append(stage))
    session.explain(QUICK, TARGETS)
    done = [each[1] for each in told]
    assert done == sorted(done)
    assert told[-1][1] == told[-1][2]
    assert len({total for _, _, total in told}) == 1
    assert {"TC: Grad-CAM", "ET: SmoothGrad"} <= {stage for stage, _, _ in told}


def test_a_network_returns_to_its_device(
    study: nx.Case, small: nx.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device ``meta`` stands in for a GPU; its tensors hold no values, so nothing runs."""
    meta = torch.device("meta")
    parameters = {name: (p, p.data_ptr()) for name, p in small.network.named_parameters()}
    buffers = dict(small.network.named_buffers())
    seen: list[torch.device | None] = []

    def runs(network: nn.Module, settings: object) -> None:
        seen.append(devices.device_of(network))
        raise ValueError("no values")

    def restored() -> bool:
        return all(
            (p, p.data_ptr()) == parameters[name] for name, p in small.network.named_parameters()
        ) and all(buffers[name] is each for name, each in small.network.named_buffers())

    monkeypatch.setattr("neuroxai.workflows.session.choose_device", lambda name: meta)
    monkeypatch.setattr("neuroxai.core.probe.probe.untouched", runs)
    session = nx.open(small, study, memory="64GB")
    with pytest.raises(ValueError, match="no values"):
        assert session.prediction
    assert seen == [meta]
    assert restored(), "outside a context each call moves the network there and back"
    with session:
        assert devices.device_of(small.network) == meta
    assert restored()


def test_a_module_stays_where_it_is_and_gradients_move_with_it() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    network(torch.rand(2, 1, 5, 6)).sum().backward()
    gradients = [p.grad for p in network.parameters()]
    with on_device(network, torch.device("meta")):
        assert {p.device.type for p in network.parameters()} == {"meta"}
    assert all(p.grad is g for p, g in zip(network.parameters(), gradients, strict=True))
    assert nx.open(network, torch.rand(1, 1, 5, 6)).x.device.type == "cpu"


SEVERAL: list[str | Method] = [
    "vanilla_gradient", "grad_cam", make_method("smoothgrad", {"samples": 3}),
]  # fmt: skip


def test_an_estimate_counts_gradients_of_all_methods_and_targets() -> None:
    session = nx.open(DeepSeg(2, 3, filters=2, depth=2), torch.rand(1, 2, 16, 24, 20))
    estimate = session.estimate(SEVERAL, [1, 2])
    assert estimate.gradients == 2 * (1 + 3)
    assert estimate.fits
    assert session.estimate("vanilla_gradient", 1).gradients == 1
    assert session.estimate("vanilla_gradient", 1).memory == estimate.memory


def test_an_estimate_and_progress_count_the_passes_that_choose_a_baseline(
    study: nx.Case, small: nx.Model
) -> None:
    """The difference of the estimates is the time of the seven additional forward passes."""
    told: list[tuple[float, float]] = []
    session = nx.open(small, study, progress=lambda _, *steps: told.append(steps))
    auto, zero = (
        make_method("integrated_gradients", {"steps": 2, "rule": "left", "baseline": name})
        for name in ("auto", "zero")
    )
    times = [session.estimate([each], "WT").seconds for each in (auto, zero)]
    passes = session._pass_seconds
    assert passes is not None
    assert times[0] - times[1] == pytest.approx((8 - 1) * passes.forward)
    maps = session.explain([auto], "WT")
    assert told[-1] == pytest.approx((2 + 8 / 3, 2 + 8 / 3))
    tried = maps["integrated_gradients"].explanation.diagnostics["tried_baselines"]
    assert list(tried) in (["zero"], ["zero", "brain", "blur", "mirror"])


@pytest.mark.parametrize(("known", "axis"), [(True, 0), (False, None)])
def test_the_mirror_of_a_case_is_in_patient_space(
    study: nx.Case, small: nx.Model, known: bool, axis: int | None
) -> None:
    """The network's grid is RAS+, so left and right are along its first axis."""
    case = dataclasses.replace(study, laterality_known=known)
    session = nx.open(small, case)
    assert session.left_right_axis == axis
    method = make_method("integrated_gradients", {"steps": 2, "baseline": "mirror"})
    if axis is None:
        with pytest.raises(MethodError, match="left-right axis"):
            session.explain([method], "WT")
        return
    found = session.explain([method], "WT")["integrated_gradients"].explanation
    with torch.no_grad():
        mirrored = mirror_image(session.x, axis)
        output = small.network.eval()(mirrored)
    classes = [k for k, name in enumerate(session.outputs.names) if name != "background"]
    score = output[:, classes].logsumexp(dim=1).double().mean()
    assert found.diagnostics["score_at_baseline"][0] == pytest.approx(float(score), rel=1e-4)


@pytest.mark.soak
def test_an_estimate_is_within_a_factor_of_four() -> None:
    """Other work shares the machine, so the factor is wide; the estimate is of a small part."""
    torch.manual_seed(0)
    network, x = DeepSeg(2, 3, filters=8, depth=3), torch.rand(1, 2, 64, 96, 72)
    session = nx.open(network, x)
    session.explain(SEVERAL, [1, 2])  # warms up
    estimate = session.estimate(SEVERAL, [1, 2])
    started = time.perf_counter()
    session.explain(SEVERAL, [1, 2])
    seconds = time.perf_counter() - started
    assert seconds / 4 < estimate.seconds < 4 * seconds
    assert session.estimate("vanilla_gradient", 1).seconds < estimate.seconds / 4


def test_an_estimate_of_windows_counts_them(study: nx.Case, small: nx.Model) -> None:
    windowed, whole = nx.open(in_windows(small), study), nx.open(small, study)
    count = len(in_windows(small).windows.place(windowed.x.shape[2:]))  # type: ignore[union-attr]
    one = windowed.estimate("vanilla_gradient").gradient_seconds
    assert one > 0
    assert count > 1
    assert whole.estimate("vanilla_gradient").gradient_seconds > 0


def test_each_target_is_yielded_before_the_next_is_computed(
    study: nx.Case, small: nx.Model
) -> None:
    small.network.train()
    before = looks(small.network)
    steps: list[float] = []
    session = nx.open(small, study, progress=lambda stage, done, total: steps.append(done))
    counts = []
    for found in session.explain_each(make_method("smoothgrad", {"samples": 2}), TARGETS):
        assert looks(small.network) == before, "between two targets the network is as it was"
        counts.append(steps[-1])
        assert found.target == TARGETS[len(counts) - 1]
    assert counts == [2, 4, 6]
    small.network.eval()


def test_options_are_checked_when_a_session_is_opened(study: nx.Case, small: nx.Model) -> None:
    with pytest.raises(ModelError, match="precision"):
        nx.open(small, study, precision="fp8")
    with pytest.raises(ModelError, match="memory"):
        nx.open(small, study, memory="much")
    with pytest.raises(ModelError, match="device"):
        nx.open(small, study, device="tpu")
    with pytest.raises(ModelError, match="needs a model with a card"):
        nx.open(small.network, study)  # type: ignore[call-overload]
    with pytest.raises(MethodError, match="the input"):
        nx.open(small.network, torch.rand(3))


def test_a_tensor_session_takes_a_model_too(small: nx.Model) -> None:
    session = nx.open(small, torch.rand(1, 4, 32, 64, 32))
    assert isinstance(session, TensorSession)
    maps = session.explain("vanilla_gradient", TARGETS)
    assert maps["TC"]["vanilla_gradient"].values.any()


class Interrupts(nn.Module):
    """A network that is interrupted in one of its passes, as by Ctrl-C."""

    left = 0
    """Passes before the interrupt, of the class: a session restores what a network keeps itself."""

    def __init__(self, inner: nn.Module, at: int) -> None:
        super().__init__()
        self.inner, Interrupts.left = inner, at

    def forward(self, x: Tensor) -> Tensor:
        Interrupts.left -= 1
        if Interrupts.left == 0:
            raise KeyboardInterrupt
        out: Tensor = self.inner(x)
        return out


def test_an_interrupt_yields_the_finished_methods_and_restores_the_network() -> None:
    torch.manual_seed(5)
    inner = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 1))
    x = torch.rand(1, 1, 9, 7)
    methods: list[str | Method] = [
        "vanilla_gradient", make_method("smoothgrad", {"samples": 3}), "grad_cam",
    ]  # fmt: skip
    whole = nx.open(inner, x).explain(methods, 2)
    passes, seen = 0, set[tuple[int, tuple[str, ...]]]()
    while True:
        passes += 1
        network = Interrupts(inner, passes)
        before = {name: each.clone() for name, each in network.state_dict().items()}
        found: list[nx.Explanations[nx.Explanation]] = []
        try:
            for each in nx.open(network, x, memory="64GB").explain_each(methods, [2, 1]):
                found.append(each)  # noqa: PERF402 - what came before the interrupt is kept
        except KeyboardInterrupt:
            pass
        else:
            break
        assert all(torch.equal(before[name], v) for name, v in network.state_dict().items())
        assert all(p.requires_grad for p in network.parameters())
        if not found:
            continue
        done, unfinished = list(found[-1]), found[-1].unfinished
        seen.add((len(found), unfinished))
        assert [*done, *unfinished] == ["vanilla_gradient", "smoothgrad", "grad_cam"]
        for name in done if len(found) == 1 else whole:
            assert torch.equal(found[0][name].values, whole[name].values)
    rest = ("smoothgrad", "grad_cam")
    assert {(1, rest), (1, ()), (2, rest)} >= seen > {(1, rest)}
    with pytest.raises(KeyboardInterrupt):
        nx.open(Interrupts(inner, 2), x, memory="64GB").explain(methods, 2)
