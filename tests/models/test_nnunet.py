"""nnU-Net models: outputs equal nnU-Net's, gradients are exact, and no code is executed."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import ndimage
from torch.nn import functional

import nnunets
from networks import relative
from neuroxai.core.engine.fast_path import run_fast
from neuroxai.core.engine.settings import stock_torch
from neuroxai.core.errors import CaseError, ModelError
from neuroxai.core.probe.ensemble import Ensemble
from neuroxai.data.brats import read_case
from neuroxai.data.case import Case
from neuroxai.files.folder import Results
from neuroxai.methods.smoothgrad import SmoothGrad
from neuroxai.models import load_model
from neuroxai.models.model import Model
from neuroxai.models.torch_weights import convert_torch
from neuroxai.render.flow import FlowPanel
from neuroxai.reports.inspect import InspectionReport
from neuroxai.workflows.check import check_model
from neuroxai.workflows.explain import explain
from neuroxai.workflows.inspect import inspect
from neuroxai.workflows.predict import predict
from neuroxai.workflows.preparation import prepare

REFERENCE = Path(__file__).parents[1] / "references" / "nnunet.npz"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return read_case(nnunets.write_case(tmp_path_factory.mktemp("cases") / "BraTS2021_01"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(nnunets.write_nnunet(tmp_path_factory.mktemp("nnunet")))


def test_the_card_matches_dataset_and_plans(model: Model) -> None:
    card = model.card
    assert card.modalities == ("T1", "T1ce", "T2", "FLAIR")
    assert card.classes == ("WT", "TC", "ET")
    assert card.activation == "sigmoid"
    assert card.regions == {name: (name,) for name in ("WT", "TC", "ET")}
    assert card.training == {"configuration": "3d_fullres", "folds": ["fold_0", "fold_1"]}
    assert card.preprocessing["axis_order"] == [1, 2, 0]
    assert model.windows is not None
    assert model.windows.size == (12, 16, 20)
    assert isinstance(model.network, Ensemble)
    assert model.kind == "a trained nnU-Net v2, the mean of 2 folds"
    assert any("mirroring" in note for note in model.notes)


@pytest.mark.parametrize("word", nnunets.KINDS)
def test_output_equals_nnunet(tmp_path: Path, word: str) -> None:
    kind = nnunets.KINDS[word]
    case = read_case(nnunets.write_case(tmp_path / "BraTS2021_01", kind.edges))
    folder = nnunets.write_nnunet(
        tmp_path, about=nnunets.dataset(kind.labels), folds=kind.folds,
        kind=kind.network, axes=kind.axes, pickled=word == "regions",
    )  # fmt: skip
    loaded = load_model(folder, trust=word == "regions")
    with np.load(REFERENCE) as kept:
        expected, expected_labels = kept[f"{word}_logits"], kept[f"{word}_labels"]
    maps = explain(loaded, case, "vanilla_gradient", "ET")
    placement = maps["vanilla_gradient"].placement
    logits = placement.to_patient(maps.output[0].numpy(), fill=np.nan)[:, ::3, ::3, ::3]
    if kind.axes == 2:
        # Repeating every slice four times would give the same output.
        slices = np.flatnonzero(case.brain().any(axis=(0, 2)))
        assert maps.output.shape[2] == slices[-1] - slices[0] + 1
    seen = ~np.isnan(expected)
    assert 0.2 < seen.mean() < 0.8
    np.testing.assert_array_equal(~np.isnan(logits), seen)
    np.testing.assert_allclose(logits[seen], expected[seen], atol=2e-4)
    found = predict(loaded, case).labels
    assert found is not None
    # nnU-Net labels edema 1, necrosis 2, enhancing tumor 3; here they are 2, 1, 3.
    in_theirs = np.array([0, 2, 1, 3])[found]
    values = placement.to_patient(maps.output[0].numpy(), fill=9.0)
    if loaded.card.activation == "softmax":
        ordered = np.sort(values, axis=0)
        sure = (ordered[-1] - ordered[-2] > 0.05) | (values == 9.0).all(axis=0)
    else:
        sure = (np.abs(values) > 0.05).all(axis=0)
    # nnU-Net sums logits in float16. In the corners of the image the weights are the smallest
    # numbers of float16, so its labels there are determined by rounding.
    assert loaded.windows is not None
    weight = loaded.windows.place(maps.output.shape[2:])._total.numpy()
    sure &= placement.to_patient(weight, fill=1.0) > 1e-4
    assert sure.mean() > 0.75
    np.testing.assert_array_equal(in_theirs[sure], expected_labels[sure])
    assert set(np.unique(expected_labels)) == {0, 1, 2, 3}


def test_the_oracle_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resampling thick slices like thin ones changes the output."""
    monkeypatch.setattr("neuroxai.data.resampling._ANISOTROPIC", 9.0)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        test_output_equals_nnunet(tmp_path, "thick")


def test_gradient_of_blended_windows_and_folds(model: Model, case: Case) -> None:
    """Against a single graph through preprocessing, windows and folds, written by hand."""
    with stock_torch():
        maps = explain(model, case, "vanilla_gradient", "ET", within="image")
    x = prepare(model, case, None).x.requires_grad_()
    assert model.windows is not None
    starts = [
        [round(i * (n - k) / (count - 1)) if count > 1 else 0 for i in range(count)]
        for n, k, count in (
            (n, k, int(np.ceil((n - k) / (k / 2))) + 1)
            for n, k in zip(x.shape[2:], model.windows.size, strict=True)
        )
    ]
    total, blended = torch.zeros(x.shape[2:]), torch.zeros(1, 3, *x.shape[2:])
    for a in starts[0]:
        for b in starts[1]:
            for c in starts[2]:
                cut = (..., slice(a, a + 12), slice(b, b + 16), slice(c, c + 20))
                folds = [nnunets.network(fold=fold)(x[cut].clone()) for fold in (0, 1)]
                part = torch.zeros_like(blended)
                part[cut] = model.windows.weights * (folds[0] + folds[1]) / 2
                blended = blended + part
                total[cut] += model.windows.weights
    (gradient,) = torch.autograd.grad((blended / total)[:, 2].mean(), [x])
    assert relative(maps["vanilla_gradient"].explanation.values, gradient) <= 1e-5


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("slices")
    return load_model(nnunets.write_nnunet(folder, folds=(0,), axes=2))


@pytest.fixture(scope="module")
def thin(case: Case) -> Case:
    """Nine of the case's slices across its second axis, which a 2D network reads one by one."""
    volumes = {name: volume[:, 9:18].copy() for name, volume in case.volumes.items()}
    return dataclasses.replace(case, volumes=volumes)


@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_2d_networks_process_slices_independently(tmp_path: Path, kind: str) -> None:
    folder = nnunets.write_nnunet(tmp_path, folds=(0,), kind=kind, axes=2)
    thick = load_model(folder)
    assert thick.card.training["configuration"] == "2d"
    x = torch.randn(2, 4, 3, 16, 20)
    flat = nnunets.network(kind, axes=2)
    for with_stock in (True, False):
        with stock_torch() if with_stock else contextlib.nullcontext(), torch.no_grad():
            whole = run_fast(thick.network, x, thick.network)
        for number in range(x.shape[2]):
            with torch.no_grad():
                expected = flat(x[:, :, number].clone())
            torch.testing.assert_close(whole[:, :, number], expected, rtol=1e-4, atol=1e-4)


def test_gradient_of_slices_equals_the_2d_network(slices: Model, thin: Case) -> None:
    """Against a single graph through the windows of every slice and the 2D network."""
    with stock_torch():
        maps = explain(slices, thin, "vanilla_gradient", "ET", within="image")
    x = prepare(slices, thin, None).x.requires_grad_()
    assert slices.windows is not None
    assert slices.windows.size == (1, 16, 20)
    starts = [
        [round(i * (n - k) / (count - 1)) if count > 1 else 0 for i in range(count)]
        for n, k, count in (
            (n, k, int(np.ceil((n - k) / (k / 2))) + 1)
            for n, k in zip(x.shape[3:], (16, 20), strict=True)
        )
    ]
    flat = nnunets.network(axes=2)
    weights = slices.windows.weights[0]
    total, blended = torch.zeros(x.shape[2:]), torch.zeros(1, 3, *x.shape[2:])
    for number in range(x.shape[2]):
        for a in starts[0]:
            for b in starts[1]:
                cut = (..., number, slice(a, a + 16), slice(b, b + 20))
                part = torch.zeros_like(blended)
                part[cut] = weights * flat(x[cut].clone())
                blended = blended + part
                total[cut] += weights
    (gradient,) = torch.autograd.grad((blended / total)[:, 2].mean(), [x])
    assert relative(maps["vanilla_gradient"].explanation.values, gradient) <= 1e-5


def test_methods_and_layers_of_a_2d_network(slices: Model, thin: Case) -> None:
    mask = np.zeros(thin.shape, bool)
    mask[6:9, 3:6, 8:11] = True
    quick = ["vanilla_gradient", "guided_backprop", "grad_cam", "guided_grad_cam"]
    maps = explain(slices, thin, [*quick, SmoothGrad(samples=2)], "WT", within=mask)
    assert not maps.refused
    seen = np.abs(maps["vanilla_gradient"].volume()).sum(axis=0)
    # The network's slices are perpendicular to the patient's second axis.
    assert set(np.flatnonzero(seen.any(axis=(0, 2)))) == {3, 4, 5}
    peak = np.unravel_index(seen.argmax(), seen.shape)
    assert np.abs(np.array(peak) - [7, 4, 9]).max() <= 3
    assert maps["grad_cam"].volume().shape == (1, *thin.shape)
    found = check_model(slices)
    assert all(reason is None for reason in found.refused.values()), found.refused


def test_layers_before_a_norm_report_why_there_is_no_map(
    slices: Model, thin: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = inspect(slices, thin, ["WT"])
    drawn: list[FlowPanel] = []
    monkeypatch.setattr(
        "neuroxai.reports.inspect.draw_flow", lambda scan, panels, *_, **__: drawn.extend(panels)
    )
    monkeypatch.setattr(Results, "add", lambda self, *paths: paths[0])
    InspectionReport(seen, Results(tmp_path / "out")).write_flow(seen.flow.targets[0])
    flow = seen.flow.targets[0]
    for panel in drawn:
        convolution = panel.name.endswith(".conv")
        assert (panel.picture is None) == convolution
        assert (panel.name in flow.cancelled) == convolution
        if convolution:
            assert panel.missing == "cancels out: see\nthe norm behind"
    assert {panel.name for panel in drawn if panel.picture is not None} == set(flow.maps)


def test_every_method_returns_a_map_on_the_patients_grid(model: Model, case: Case) -> None:
    mask = np.zeros(case.shape, bool)
    mask[6:9, 12:15, 8:11] = True
    quick = ["vanilla_gradient", "guided_backprop", "grad_cam", "guided_grad_cam", "smoothgrad"]
    maps = explain(model, case, quick, "WT", within=mask)
    assert not maps.refused
    seen = np.abs(maps["vanilla_gradient"].volume()).sum(axis=0)
    assert seen.shape == case.shape
    peak = np.unravel_index(seen.argmax(), seen.shape)
    assert np.abs(np.array(peak) - [7, 13, 9]).max() <= 3
    layer = maps["grad_cam"].explanation.layer
    assert layer is not None
    assert layer.startswith("members.*.decoder")
    provenance = maps["vanilla_gradient"].explanation.provenance
    assert provenance["windows"]["placed"] == "evenly"


def test_methods_that_apply(model: Model) -> None:
    found = check_model(model)
    assert all(reason is None for reason in found.refused.values()), found.refused
    assert found.output_shape[1] == 3


def test_maps_do_not_depend_on_the_files_orientation(tmp_path: Path) -> None:
    """A network that reorients scans to RAS gets the same input in every orientation."""
    planned = nnunets.plans() | {"image_reader_writer": "NibabelIOWithReorient"}
    loaded = load_model(nnunets.write_nnunet(tmp_path, planned=planned, folds=(0,)))
    straight = read_case(nnunets.write_case(tmp_path / "BraTS2021_01"))
    turned, turn = tmp_path / "turned" / "BraTS2021_01", np.array([[2, 1], [0, -1], [1, -1]])
    turned.mkdir(parents=True)
    for file in (tmp_path / "BraTS2021_01").iterdir():
        nib.save(nib.load(file).as_reoriented(turn), turned / file.name)
    other = read_case(turned)
    maps = [
        explain(loaded, each, "vanilla_gradient", "ET")["vanilla_gradient"]
        for each in (straight, other)
    ]
    assert other.shape != straight.shape
    image = nib.Nifti1Image(maps[0].volume().sum(axis=0), straight.affine).as_reoriented(turn)
    np.testing.assert_allclose(
        image.get_fdata(), maps[1].volume().sum(axis=0), rtol=1e-4, atol=1e-9
    )
    np.testing.assert_allclose(image.affine, other.affine)


def test_pickles_need_trust_and_safetensors_do_not(tmp_path: Path) -> None:
    folder = nnunets.write_nnunet(tmp_path, folds=(0,), pickled=True)
    pickled = folder / "fold_0" / "checkpoint_final.pth"
    with pytest.raises(ModelError, match=r"neuroxai convert torch .*checkpoint_final\.pth --entry"):
        load_model(folder)
    trusted = load_model(folder, trust=True)
    convert_torch(pickled, pickled.with_suffix(".safetensors"), trust=True, entry="network_weights")
    pickled.unlink()
    ready = load_model(folder)
    for name, value in trusted.network.state_dict().items():
        assert torch.equal(ready.network.state_dict()[name], value)
    assert ready.kind == "a trained nnU-Net v2, one fold"


def test_malicious_checkpoints_execute_nothing(tmp_path: Path) -> None:
    folder = nnunets.write_nnunet(tmp_path, folds=(0,), pickled=True)
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (mark,)

    path = folder / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": Evil()}, path)
    with pytest.raises(ModelError, match="cannot be converted"):
        load_model(folder, trust=True)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelError, match="cannot be converted"):
        load_model(folder, trust=True)
    assert not mark.exists()


Spoil = Callable[[dict[str, Any], dict[str, Any]], None]


def _set(table: str, *keys: str, to: Any) -> Spoil:
    def spoil(about: dict[str, Any], planned: dict[str, Any]) -> None:
        at = about if table == "dataset" else planned
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = to

    return spoil


BASE = ("configurations", "base")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_set("plans", *BASE, "architecture", "network_class_name", to="os.system"), "os.system"),
        (
            _set("plans", *BASE, "architecture", "arch_kwargs", "conv_op", to="os.system"),
            "conv_op is 'os.system', expected a class of torch.nn",
        ),
        (
            _set("plans", *BASE, "architecture", "arch_kwargs", "nonlin", to="torch.nn.init"),
            "nonlin is 'torch.nn.init'",
        ),
        (
            _set("plans", *BASE, "architecture", "arch_kwargs", "features_per_stage", to=[6]),
            "cannot be built",
        ),
        (
            _set(
                "plans", *BASE, "architecture", "arch_kwargs", "features_per_stage", to=[6, 8, 12]
            ),
            "has shape",
        ),
        (_set("plans", *BASE, "patch_size", to=[16]), "three lengths in voxels, or two for slices"),
        (_set("plans", *BASE, "patch_size", to=[16, 16]), "expected 2 lengths in mm"),
        (_set("plans", *BASE, "previous_stage", to="3d_lowres"), "cascade.*first stage, 3d_lowres"),
        (_set("plans", *BASE, "inherits_from", to="3d_fullres"), "inherits from itself"),
        (_set("plans", *BASE, "normalization_schemes", to=["CTNormalization"] * 4), "CTNorm"),
        (_set("plans", *BASE, "preprocessor_name", to="MyPreprocessor"), "MyPreprocessor"),
        (_set("plans", "image_reader_writer", to="Tiff3DIO"), "Tiff3DIO"),
        (_set("plans", "transpose_forward", to=[0, 0, 2]), "transpose_forward"),
        (_set("plans", "configurations", to={}), "expected at least one"),
        (_set("dataset", "channel_names", to={"1": "T1"}), "channel_names"),
        (_set("dataset", "labels", to={"edema": 1}), "background 0"),
        (_set("dataset", "labels", to={"background": 0, "edema": 4}), "expected the numbers"),
    ],
)
def test_unsupported_plans_are_rejected(tmp_path: Path, spoil: Spoil, words: str) -> None:
    about, planned = nnunets.dataset(), copy.deepcopy(nnunets.plans())
    spoil(about, planned)
    folder = nnunets.write_nnunet(tmp_path, folds=(0,))
    (folder / "dataset.json").write_text(json.dumps(about))
    (folder / "plans.json").write_text(json.dumps(planned))
    with pytest.raises(ModelError, match=words) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


def test_plans_before_version_2_4(tmp_path: Path) -> None:
    planned = copy.deepcopy(nnunets.plans())
    base = planned["configurations"]["base"]
    arguments = base.pop("architecture")["arch_kwargs"]
    base |= {
        "UNet_class_name": "PlainConvUNet", "UNet_base_num_features": 6,
        "unet_max_num_features": 10, "conv_kernel_sizes": arguments["kernel_sizes"],
        "pool_op_kernel_sizes": arguments["strides"], "n_conv_per_stage_encoder": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2], "num_pool_per_axis": [1, 2, 2],
    }  # fmt: skip
    folder = nnunets.write_nnunet(tmp_path, folds=())
    # Widths of 6, 12 and 24, limited to 10.
    planned["configurations"]["base"] = base
    (folder / "plans.json").write_text(json.dumps(planned))
    with pytest.raises(ModelError, match="no fold_X"):
        load_model(folder)
    (folder / "fold_all").mkdir()
    state = nnunets.network().state_dict()
    save_file(
        {name: value.clone() for name, value in state.items()},
        folder / "fold_all" / "checkpoint_best.safetensors",
    )
    with pytest.raises(ModelError, match=r"has shape \(8,.*expected \(10,"):
        load_model(folder)


def test_gradients_of_resampled_scans_peak_at_the_explained_voxel(
    model: Model, tmp_path: Path
) -> None:
    """The gradient of a voxel's logit peaks at that voxel, on the patient's grid."""
    case = read_case(nnunets.write_case(tmp_path / "BraTS2021_02", (1.3, 0.8, 1.1)))
    prepared = prepare(model, case, None)
    assert any("resampled from voxels of 0.8 x 1.1 x 1.3 mm" in w for w in prepared.warnings)
    mask = np.zeros(case.shape, bool)
    mask[6:9, 12:15, 8:11] = True
    maps = explain(model, case, "vanilla_gradient", "WT", within=mask)
    seen = np.abs(maps["vanilla_gradient"].volume()).sum(axis=0)
    assert seen.shape == case.shape
    peak = np.unravel_index(seen.argmax(), seen.shape)
    assert np.abs(np.array(peak) - [7, 13, 9]).max() <= 3
    # Both grids cover the same box, so their centers coincide.
    placement = prepared.placement
    middle = (np.array(placement.grid) - 1) / 2
    low = placement.reoriented_affine @ [*(np.array(placement.start)), 1]
    high = placement.reoriented_affine @ [*(np.array(placement.start) + placement.size - 1.0), 1]
    np.testing.assert_allclose(
        (placement.network_affine @ [*middle, 1])[:3], ((low + high) / 2)[:3]
    )
    whole = prepare(model, case, whole=True)
    assert all(n % 4 == 0 for n in whole.x.shape[2:])


def test_other_resampling_is_rejected(tmp_path: Path) -> None:
    planned = copy.deepcopy(nnunets.plans())
    planned["configurations"]["base"]["resampling_fn_data"] = "no_resampling_data_or_seg_hack"
    loaded = load_model(nnunets.write_nnunet(tmp_path, planned=planned, folds=(0,)))
    same = read_case(nnunets.write_case(tmp_path / "BraTS2021_01"))
    assert prepare(loaded, same, None).placement.resampling is None
    other = read_case(nnunets.write_case(tmp_path / "BraTS2021_02", (1, 1, 2)))
    with pytest.raises(CaseError, match=r"voxels of 1 x 2 x 1 mm .* expected 1 x 1 x 1 mm"):
        prepare(loaded, other, None)


@pytest.mark.parametrize(
    ("function", "options", "there", "back"),
    [
        ("resample_torch_fornnunet", {"memefficient_seg_resampling": False}, 1, 1),
        ("resample_data_or_seg_to_shape", {"order": 1, "order_z": 0}, 1, 1),
        ("resample_data_or_seg_to_shape", {"order": 3, "order_z": 0}, 3, 3),
        ("resample_data_or_seg_to_shape", {"order": 0, "order_z": 0}, 0, 0),
    ],
)
def test_orders_of_resampling_are_those_of_the_plans(
    tmp_path: Path, function: str, options: dict[str, Any], there: int, back: int
) -> None:
    """Against SciPy and PyTorch, on scans and outputs."""
    planned = copy.deepcopy(nnunets.plans())
    base = planned["configurations"]["base"]
    for kind in ("data", "probabilities"):
        base[f"resampling_fn_{kind}"] = function
        base[f"resampling_fn_{kind}_kwargs"] = {
            "is_seg": False,
            "force_separate_z": None,
            **options,
        }
    base["normalization_schemes"] = ["NoNormalization"] * 4
    loaded = load_model(nnunets.write_nnunet(tmp_path, planned=planned, folds=(0,)))
    case = read_case(nnunets.write_case(tmp_path / "BraTS2021_01", (1.3, 0.8, 1.1)))
    prepared = prepare(loaded, case, None)
    resampling = prepared.placement.resampling
    assert resampling is not None
    assert (resampling.order, resampling.order_back) == (there, back)

    def resized(volume: NDArray[Any], shape: tuple[int, ...], order: int) -> NDArray[Any]:
        if order == 1:
            x = torch.from_numpy(volume)[None, None].double()
            return np.asarray(functional.interpolate(x, shape, mode="trilinear")[0, 0])
        factors = [new / old for new, old in zip(shape, volume.shape, strict=True)]
        return np.asarray(
            ndimage.zoom(volume.astype(float), factors, order=order, mode="nearest", grid_mode=True)
        )

    raw = prepared.placement.crop_or_pad(prepared.placement.reorient(case.volumes["T1"]))
    want = np.clip(resized(raw, resampling.grid, there), raw.min(), raw.max())
    np.testing.assert_allclose(prepared.x[0, 0].numpy(), want, atol=1e-3)
    z = np.random.default_rng(0).random(resampling.grid)
    want = np.clip(resized(z, resampling.shape, back), z.min(), z.max())
    np.testing.assert_allclose(resampling.to_shape(z), want, atol=1e-9)


def test_every_channel_has_its_normalization(tmp_path: Path, case: Case) -> None:
    """Against nnU-Net's equations, written by hand."""
    planned = copy.deepcopy(nnunets.plans())
    base = planned["configurations"]["base"]
    base["normalization_schemes"] = [
        "CTNormalization", "RescaleTo01Normalization", "NoNormalization", "ZScoreNormalization",
    ]  # fmt: skip
    base["use_mask_for_norm"] = [False, False, True, True]
    properties = {"mean": 90.0, "std": 30.0, "percentile_00_5": 40.0, "percentile_99_5": 160.0}
    planned["foreground_intensity_properties_per_channel"]["0"] = {**properties, "max": 300.0}
    loaded = load_model(nnunets.write_nnunet(tmp_path, planned=planned, folds=(0,)))
    flat = np.full_like(case.volumes["T2"], 0.25)
    changed = dataclasses.replace(case, volumes={**case.volumes, "T2": flat})
    prepared = prepare(loaded, changed, None)
    place = prepared.placement
    raw = {
        name: place.crop_or_pad(place.reorient(v)).astype(float)
        for name, v in changed.volumes.items()
    }
    t1, t1ce, flair = raw["T1"], raw["T1ce"], raw["FLAIR"]
    box = t1ce[place.crop_or_pad(place.reorient(np.ones(case.shape, np.uint8))) > 0]
    x = prepared.x[0].numpy()
    inside = place.crop_or_pad(place.reorient(np.ones(case.shape, np.uint8))) > 0
    np.testing.assert_allclose(x[0][inside], ((np.clip(t1, 40, 160) - 90) / 30)[inside], atol=1e-4)
    want = (t1ce - box.min()) / (box.max() - box.min())
    np.testing.assert_allclose(x[1][inside], want[inside], atol=1e-5)
    assert (x[2][inside] == 0.25).all()
    assert np.abs(x[3][inside].mean()) < 0.5
    assert x[3][inside].std() == pytest.approx(1, abs=0.3)
    assert np.corrcoef(x[3][flair != 0], flair[flair != 0])[0, 1] == pytest.approx(1, abs=1e-6)


def test_missing_properties_and_other_normalizations_are_refused(tmp_path: Path) -> None:
    planned = copy.deepcopy(nnunets.plans())
    base = planned["configurations"]["base"]
    for number, (scheme, words) in enumerate((
        ("CTNormalization", "CTNormalization needs percentile_00_5, percentile_99_5, mean, std"),
        ("MyNormalization", "'MyNormalization' is not supported; supported: ZScoreNormalization"),
    )):  # fmt: skip
        base["normalization_schemes"] = ["ZScoreNormalization"] * 3 + [scheme]
        with pytest.raises(ModelError, match=words):
            load_model(nnunets.write_nnunet(tmp_path / str(number), planned=planned, folds=(0,)))


def test_regions_are_drawn_in_the_order_of_the_dataset(tmp_path: Path, case: Case) -> None:
    """As nnU-Net's ``convert_logits_to_segmentation``: later regions overwrite earlier ones."""
    labels = {"background": 0, "outer": [1, 2, 3], "left": [2, 3], "core": [3]}
    about = {**nnunets.dataset(labels), "regions_class_order": [2, 3, 1]}
    loaded = load_model(nnunets.write_nnunet(tmp_path / "a", about=about, folds=(0,)))
    maps = explain(loaded, case, "vanilla_gradient", "core")
    logits = maps["vanilla_gradient"].placement.to_patient(maps.output[0].numpy(), fill=-9.0)
    want = np.zeros(case.shape, np.uint8)
    for channel, number in enumerate((2, 3, 1)):
        want[logits[channel] > 0] = number
    prediction = predict(loaded, case)
    np.testing.assert_array_equal(prediction.labels, want)
    assert prediction.classes == ("background", "core", "outer", "left")
    assert len(np.unique(want)) > 2
    about["regions_class_order"] = [1, 2]
    with pytest.raises(ModelError, match=r"regions_class_order is .* the numbers 1 to 3"):
        load_model(nnunets.write_nnunet(tmp_path / "b", about=about, folds=(0,)))


def test_plans_of_pretrained_networks(tmp_path: Path, case: Case) -> None:
    """nnssl writes plans of other names, often without a voxel size."""
    planned = copy.deepcopy(nnunets.plans())
    name = "ptPlans__MAE____Spacing__None_None_None___Norm__Z_Z_Z_Z"
    planned |= {"plans_name": name, "pretrain_info": {"checkpoint_name": "MAE", "citations": []}}
    table = planned["configurations"].pop("base")
    planned["configurations"] = {"3d_fullres": {**table, "spacing": [None] * 3}}
    folder = nnunets.write_nnunet(tmp_path, planned=planned, folds=(0,))
    renamed = folder.rename(tmp_path / f"PretrainedTrainer__{name}__3d_fullres")
    loaded = load_model(renamed)
    thick = read_case(nnunets.write_case(tmp_path / "BraTS2021_02", (1, 1, 2)))
    for each in (case, thick):
        assert prepare(loaded, each, None).placement.resampling is None


def test_normalization_without_a_mask_uses_the_box(tmp_path: Path, case: Case) -> None:
    planned = copy.deepcopy(nnunets.plans())
    planned["configurations"]["base"]["use_mask_for_norm"] = [False] * 4
    loaded = load_model(nnunets.write_nnunet(tmp_path, planned=planned, folds=(0,)))
    x = prepare(loaded, case, None).x[0].flatten(1)
    torch.testing.assert_close(x.mean(dim=1), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(dim=1), torch.ones(4), atol=1e-3, rtol=0)
