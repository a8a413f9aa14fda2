"""MONAI bundles: outputs equal MONAI's own pipeline, and no code is executed."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, DivisiblePadd, LoadImaged, NormalizeIntensityd, Spacingd
from safetensors.torch import load_file, save_file

import bundles
from networks import quick_methods
from neuroxai.core.errors import ModelError
from neuroxai.data.brats import read_case
from neuroxai.data.phantom.cohort import write_cohort
from neuroxai.models import load_model
from neuroxai.workflows.explain import explain
from neuroxai.workflows.predict import predict
from neuroxai.workflows.preparation import prepare
from session_cache import shared_folder

SUFFIX = {"T1c": "t1ce", "T1": "t1", "T2": "t2", "FLAIR": "flair"}


@pytest.fixture(scope="module")
def patient() -> Path:
    """A phantom whose files are cut to 44 × 52 × 38 voxels."""

    def build(folder: Path) -> None:
        (place,) = write_cohort(folder, [600_003], spacing=3.0)
        for file in place.glob("*.nii.gz"):
            image = nib.load(file)
            cut = nib.Nifti1Image(
                np.asarray(image.dataobj)[8:52, 6:58, 4:42], image.slicer[8:52, 6:58, 4:42].affine
            )
            nib.save(cut, file)

    (place,) = shared_folder("cut-phantom", build).glob("BraTS*")
    return place


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.write_bundle(tmp_path / "brats_mri_segmentation")


SMALL: dict[str, Any] = {"roi_size": [40, 48, 32], "overlap": 0.5, "mode": "gaussian"}
"""Windows smaller than the patient's grid."""


def with_inferer(folder: Path, **inferer: Any) -> Path:
    config = bundles.inference()
    config["inferer"] = {"_target_": "SlidingWindowInferer", "device": "@device", **inferer}
    return bundles.write_bundle(folder, config=config)


def monai_logits(patient: Path, **inferer: Any) -> torch.Tensor:
    """Return the logits of MONAI's own pipeline on the patient's grid."""
    files = [str(patient / f"{patient.name}_{SUFFIX[name]}.nii.gz") for name in bundles.CHANNELS]
    pipeline = Compose([
        LoadImaged(keys="image"),
        NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
    ])  # fmt: skip
    image = torch.as_tensor(np.asarray(pipeline({"image": files})["image"]))
    made = SlidingWindowInferer(**(inferer or {"roi_size": (64, 64, 56), "overlap": 0.5}))
    with torch.no_grad():
        found: torch.Tensor = made(image[None].float(), bundles.network())
    return found[0]


def test_the_card_matches_the_configuration(bundle: Path) -> None:
    model = load_model(bundle)
    card = model.card
    assert card.name == "brats_mri_segmentation"
    assert card.architecture == "monai.networks.nets.SegResNet"
    assert card.modalities == ("T1ce", "T1", "T2", "FLAIR")
    assert card.classes == ("TC", "WT", "ET")
    assert card.activation == "sigmoid"
    assert card.regions == {"TC": ("TC",), "WT": ("WT",), "ET": ("ET",)}
    assert card.preprocessing["steps"] == [{"step": "normalize", "nonzero": True, "joint": False}]
    assert card.preprocessing["divisor"] == 8
    assert card.metrics == {"val_mean_dice": 0.85}
    assert "diagnostic" in card.use
    assert model.kind == "a MONAI bundle"
    assert model.windows is not None
    assert model.windows.describe() == {
        "size": [64, 64, 56], "overlap": 0.5, "placed": "stepped", "weights": "constant",
    }  # fmt: skip
    assert any("so they are used as stored" in note for note in model.notes)
    for name, value in bundles.network().state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value)


@pytest.mark.parametrize("inferer", [{}, SMALL], ids=["one window", "many windows"])
def test_output_equals_monais_pipeline(
    tmp_path: Path, patient: Path, inferer: dict[str, Any]
) -> None:
    folder = tmp_path / "b"
    model = load_model(with_inferer(folder, **inferer) if inferer else bundles.write_bundle(folder))
    case = read_case(patient)
    maps = explain(model, case, "vanilla_gradient", "WT")
    ours = maps["vanilla_gradient"].placement.to_patient(maps.output[0].numpy())
    theirs = monai_logits(patient, **inferer).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    tc, wt, et = theirs > 0
    expected = np.where(et, 3, np.where(tc, 1, np.where(wt, 2, 0)))
    labels = predict(model, case).labels
    assert labels is not None
    unsure = (np.abs(theirs) < 1e-3).any(axis=0)
    np.testing.assert_array_equal(labels[~unsure], expected[~unsure])
    assert len(np.unique(expected)) > 1


@pytest.mark.parametrize("divisor", [32, 16])
def test_padding_before_windows_equals_monais(tmp_path: Path, patient: Path, divisor: int) -> None:
    config = bundles.inference()
    config["inferer"] = {"_target_": "SlidingWindowInferer", **SMALL}
    pad = {"_target_": "DivisiblePadd", "keys": "image", "k": divisor}
    config["preprocessing"]["transforms"].append(pad)
    model = load_model(bundles.write_bundle(tmp_path / "b", config=config))
    case = read_case(patient)
    maps = explain(model, case, "vanilla_gradient", "WT")
    ours = maps["vanilla_gradient"].placement.to_patient(maps.output[0].numpy())
    files = [str(patient / f"{patient.name}_{SUFFIX[name]}.nii.gz") for name in bundles.CHANNELS]
    pipeline = Compose([
        LoadImaged(keys="image"),
        NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
        DivisiblePadd(keys="image", k=divisor),
    ])  # fmt: skip
    image = pipeline({"image": files})["image"]
    with torch.no_grad():
        made = SlidingWindowInferer(**SMALL)(torch.as_tensor(image)[None], bundles.network())[0]
    low = [(p - n) // 2 for p, n in zip(made.shape[1:], case.shape, strict=True)]
    i, j, k = (slice(a, a + n) for a, n in zip(low, case.shape, strict=True))
    np.testing.assert_allclose(ours, made[:, i, j, k].numpy(), atol=1e-4)


def test_gradients_peak_at_the_explained_voxel(bundle: Path, patient: Path) -> None:
    """The gradient of a voxel's logit is largest near that voxel, on the patient's grid."""
    model = load_model(bundle)
    case = read_case(patient)
    mask = np.zeros(case.shape, bool)
    mask[6:9, 34:37, 26:29] = True
    maps = explain(model, case, "vanilla_gradient", "WT", within=mask)
    seen = np.abs(maps["vanilla_gradient"].volume()).sum(axis=0)
    peak = np.unravel_index(seen.argmax(), seen.shape)
    assert np.abs(np.array(peak) - [7, 35, 27]).max() <= 6
    assert maps.warnings[-1] == model.notes[-1]


def test_every_method_returns_a_map_or_a_reason(bundle: Path) -> None:
    model = load_model(bundle)
    x = torch.rand(2, 4, 16, 24, 8, generator=torch.Generator().manual_seed(1))
    maps = explain(model.network, x, quick_methods(), target=1)
    assert not maps.refused
    assert len(maps) == len(quick_methods())
    assert all(np.isfinite(maps[name].values.numpy()).all() for name in maps)


@pytest.mark.parametrize(
    ("spelling", "name"), [("T1Gd", "T1ce"), ("t1_post", "T1ce"), ("T2-FLAIR", "FLAIR")]
)
def test_channels_are_matched_by_name(tmp_path: Path, spelling: str, name: str) -> None:
    about = bundles.metadata()
    channels = about["network_data_format"]["inputs"]["image"]["channel_def"]
    position = "0" if name == "T1ce" else "3"
    channels[position] = spelling
    model = load_model(bundles.write_bundle(tmp_path / "b", about=about))
    assert model.card.modalities[int(position)] == name


def test_orientation_is_applied(tmp_path: Path, patient: Path) -> None:
    config = bundles.inference()
    config["preprocessing"]["transforms"].insert(
        1, {"_target_": "Orientationd", "keys": "image", "axcodes": "SPR"}
    )
    model = load_model(bundles.write_bundle(tmp_path / "b", config=config))
    case = read_case(patient)
    prepared = prepare(model, case, None)
    affine = prepared.placement.network_affine
    assert nib.aff2axcodes(affine) == ("S", "P", "R")
    volume = case.volumes["FLAIR"]
    np.testing.assert_array_equal(
        prepared.placement.to_patient(prepared.placement.to_network(volume)), volume
    )


def test_inspection_uses_the_whole_image_and_warns(tmp_path: Path, patient: Path) -> None:
    model = load_model(with_inferer(tmp_path / "b", **SMALL))
    case = read_case(patient)
    prepared = prepare(model, case, whole=True)
    assert all(n % 8 == 0 for n in prepared.x.shape[2:])
    assert "from windows of 40×48×32 voxels" in prepared.warnings[-1]
    seen = prepare(model, case, None)
    assert tuple(seen.x.shape[2:]) == case.shape
    assert not any("windows" in warning for warning in seen.warnings)


@pytest.mark.parametrize(
    ("inferer", "words"),
    [
        ({"_target_": "PatchInferer"}, "PatchInferer, which is not supported"),
        ({"roi_size": [-1, 8, 8]}, "roi_size is"),
        ({"overlap": 1}, "overlap is 1"),
        ({"mode": "cosine"}, "importance maps"),
        ({"padding_mode": "reflect"}, "padding_mode is 'reflect'"),
        ({"inner_size": 4}, "option 'inner_size' is not supported"),
    ],
)
def test_unsupported_inferers_are_rejected(
    tmp_path: Path, inferer: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        load_model(with_inferer(tmp_path / "b", **{**SMALL, **inferer}))


def test_other_voxel_sizes_are_resampled(tmp_path: Path, patient: Path) -> None:
    """Against MONAI's transforms and its inverse by linear interpolation."""
    config = bundles.inference()
    del config["inferer"]
    spacing = {"_target_": "Spacingd", "keys": "image", "pixdim": [4.0, 4.0, 4.0]}
    pad = {"_target_": "DivisiblePadd", "keys": "image", "k": 8}
    config["preprocessing"]["transforms"] += [spacing, pad]
    model = load_model(bundles.write_bundle(tmp_path / "b", config=config))
    case = read_case(patient)
    maps = explain(model, case, "vanilla_gradient", "WT")
    files = [str(patient / f"{patient.name}_{SUFFIX[name]}.nii.gz") for name in bundles.CHANNELS]
    pipeline = Compose([
        LoadImaged(keys="image"),
        NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
        Spacingd(keys="image", pixdim=[4.0, 4.0, 4.0]),
        DivisiblePadd(keys="image", k=8),
    ])  # fmt: skip
    image = torch.as_tensor(np.asarray(pipeline({"image": files})["image"]))[None]
    with torch.no_grad():
        expected = bundles.network()(image)
    torch.testing.assert_close(maps.output, expected, rtol=1e-4, atol=1e-4)
    assert any("resampled from voxels of 3 x 3 x 3 mm to 4 x 4 x 4 mm" in w for w in maps.warnings)
    labels = predict(model, case).labels
    assert labels is not None
    assert labels.shape == case.shape
    volume = maps["vanilla_gradient"].volume()
    assert volume.shape == (4, *case.shape)
    assert np.isfinite(volume).all()


def test_expressions_need_trust(tmp_path: Path) -> None:
    config = bundles.inference()
    config["network_def"]["init_filters"] = "$4 * 2"
    folder = bundles.write_bundle(tmp_path / "b", config=config)
    with pytest.raises(ModelError, match=r"network_def::init_filters is the expression '\$4 \* 2'"):
        load_model(folder)
    assert load_model(folder, trust=True).card.arguments["init_filters"] == 8


def test_references_are_resolved(tmp_path: Path) -> None:
    config = bundles.inference()
    config["sizes"] = {"filters": [16, 8]}
    config["network_def"]["init_filters"] = "@sizes#filters#1"
    model = load_model(bundles.write_bundle(tmp_path / "b", config=config))
    assert model.card.arguments["init_filters"] == 8


def _code(config: dict[str, Any], mark: Path) -> None:
    config["network_def"]["in_channels"] = f"$__import__('pathlib').Path({str(mark)!r}).touch()"


def _target(config: dict[str, Any], mark: Path) -> None:
    config["network_def"] = {"_target_": "pathlib.Path.touch", "self": str(mark)}


def _inside(config: dict[str, Any], mark: Path) -> None:
    config["network_def"]["_target_"] = "monai.networks.nets.torch.hub.load"


def _again(config: dict[str, Any], mark: Path) -> None:
    config["network_def"] = "@network_def"


def _file(config: dict[str, Any], mark: Path) -> None:
    config["network_def"] = "%../../secret.json::network"


def _gone(config: dict[str, Any], mark: Path) -> None:
    config["network_def"]["in_channels"] = "@nowhere::x"


def _transform(config: dict[str, Any], mark: Path) -> None:
    config["preprocessing"]["transforms"].append({"_target_": "Lambdad", "keys": "image"})


def _outputs(config: dict[str, Any], mark: Path) -> None:
    config["postprocessing"] = {"_target_": "Compose", "transforms": []}


def _width(config: dict[str, Any], mark: Path) -> None:
    config["network_def"]["init_filters"] = 16


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_code, "network_def::in_channels is the expression"),
        (_target, "expected a network of monai.networks.nets"),
        (_inside, "expected a network of monai.networks.nets"),
        (_again, "refers to itself"),
        (_file, "refers to another file"),
        (_gone, "refers to 'nowhere::x', which does not exist"),
        (_transform, "the transform Lambdad is not supported"),
        (_outputs, "neither sigmoid nor softmax"),
        (_width, "has shape"),
    ],
)
def test_unsupported_configurations_are_rejected(
    tmp_path: Path, spoil: Callable[[dict[str, Any], Path], None], words: str
) -> None:
    mark, config = tmp_path / "ran", bundles.inference()
    spoil(config, mark)
    folder = bundles.write_bundle(tmp_path / "b", config=config)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert not mark.exists()


def test_pickled_weights_are_rejected_with_the_conversion_command(bundle: Path) -> None:
    weights = bundle / "models" / "model.safetensors"
    torch.save(load_file(weights), bundle / "models" / "model.pt")
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.pt: .*can contain code.*neuroxai convert torch"):
        load_model(bundle)


@pytest.mark.parametrize("fault", ["nan", "missing", "extra"])
def test_weights_must_match_the_network(bundle: Path, fault: str) -> None:
    path = bundle / "models" / "model.safetensors"
    state = load_file(path)
    name = next(iter(state))
    if fault == "nan":
        state[name][...] = torch.nan
    elif fault == "missing":
        del state[name]
    else:
        state["more"] = torch.zeros(2)
    save_file(state, path)
    words = {"nan": "not finite", "missing": "missing tensor", "extra": "unknown tensor 'more'"}
    with pytest.raises(ModelError, match=words[fault]):
        load_model(bundle)


@pytest.mark.parametrize(
    "channels", [{}, {"0": "T1", "2": "T2"}, {"a": "T1"}, {"0": "T1", "1": "t1w"}]
)
def test_channels_need_names(tmp_path: Path, channels: dict[str, str]) -> None:
    about = bundles.metadata()
    image = about["network_data_format"]["inputs"]["image"]
    image["channel_def"], image["num_channels"] = channels, len(channels)
    folder = bundles.write_bundle(tmp_path / "b", about=about)
    with pytest.raises(ModelError, match=r"metadata\.json: network_data_format\.inputs\.image"):
        load_model(folder)


def test_invalid_json_is_named(bundle: Path) -> None:
    path = bundle / "configs" / "inference.json"
    for text in ("{", "[]", json.dumps({"network_def": 3})):
        path.write_text(text)
        with pytest.raises(ModelError, match=r"inference\.json"):
            load_model(bundle)


def as_yaml(bundle: Path, text: str) -> Path:
    (bundle / "configs" / "inference.json").unlink()
    path = bundle / "configs" / "inference.yaml"
    path.write_text(text)
    return path


def test_yaml_equals_json(bundle: Path, patient: Path) -> None:
    case = read_case(patient)
    expected = predict(load_model(bundle), case).labels
    as_yaml(bundle, yaml.safe_dump(bundles.inference()))
    np.testing.assert_array_equal(predict(load_model(bundle), case).labels, expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network_def: !!python/object/apply:pathlib.Path.touch [{mark}]", "YAML of plain values"),
        ("a: &a [1, 1]\nb: [*a, *a]", "anchors"),
        ("- 1\n- 2", "contains a list"),
        ("a: [1", "YAML of plain values"),
        ("[" * 1200, "YAML of plain values"),
    ],
)
def test_yaml_with_tags_or_anchors_is_rejected(bundle: Path, text: str, words: str) -> None:
    mark = bundle / "ran"
    path = as_yaml(bundle, text.replace("{mark}", str(mark)))
    with pytest.raises(ModelError, match=words) as caught:
        load_model(bundle)
    assert str(path) in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["bundle.zip", "bundle.tar", "bundle.tar.gz", "fold.tgz"])
def test_archives_are_rejected(tmp_path: Path, name: str) -> None:
    path = tmp_path / "in" / name
    path.parent.mkdir()
    if name.endswith("zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../evil.txt", "x")
    else:
        with tarfile.open(path, "w") as tar:
            member = tarfile.TarInfo("../evil.txt")
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(ModelError, match="archives are not supported"):
        load_model(path)
    assert not (tmp_path / "evil.txt").exists()
