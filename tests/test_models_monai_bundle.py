"""MONAI bundles: the same answer as MONAI's own pipeline, and nothing executed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, LoadImaged, NormalizeIntensityd
from safetensors.torch import load_file, save_file

import bundles
from neuroxai.core.errors import ModelError
from neuroxai.data.brats import read_case
from neuroxai.data.phantom.cohort import write_cohort
from neuroxai.explainer import explain, predict, prepare
from neuroxai.models import load_model

SUFFIX = {"T1c": "t1ce", "T1": "t1", "T2": "t2", "FLAIR": "flair"}


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (folder,) = write_cohort(tmp_path_factory.mktemp("cohort"), [600_003], spacing=3.0)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundles.write_bundle(tmp_path / "brats_mri_segmentation")


def monai_logits(patient: Path) -> torch.Tensor:
    """What MONAI itself makes of the files, on the patient's grid."""
    files = [str(patient / f"{patient.name}_{SUFFIX[name]}.nii.gz") for name in bundles.CHANNELS]
    pipeline = Compose([
        LoadImaged(keys="image"),
        NormalizeIntensityd(keys="image", nonzero=True, channel_wise=True),
    ])  # fmt: skip
    image = torch.as_tensor(np.asarray(pipeline({"image": files})["image"]))
    inferer = SlidingWindowInferer(roi_size=(64, 64, 56), overlap=0.5)
    with torch.no_grad():
        found: torch.Tensor = inferer(image[None].float(), bundles.network())
    return found[0]


def test_the_card_says_what_the_configurations_say(bundle: Path) -> None:
    model = load_model(bundle)
    card = model.card
    assert card.name == "brats_mri_segmentation"
    assert card.architecture == "monai.networks.nets.SegResNet"
    assert card.modalities == ("T1ce", "T1", "T2", "FLAIR")
    assert card.classes == ("TC", "WT", "ET")
    assert card.activation == "sigmoid"
    assert card.regions == {"TC": ("TC",), "WT": ("WT",), "ET": ("ET",)}
    assert card.preprocessing["intensity"] == "zscore_nonzero"
    assert card.preprocessing["divisor"] == 8
    assert card.metrics == {"val_mean_dice": 0.85}
    assert "diagnostic" in card.use
    assert model.kind == "MONAI bundle"
    assert any("[64, 64, 56]" in note for note in model.notes)
    assert any("as they are stored" in note for note in model.notes)
    for name, value in bundles.network().state_dict().items():
        assert torch.equal(model.network.state_dict()[name], value)


def test_the_answer_is_that_of_monais_own_pipeline(bundle: Path, patient: Path) -> None:
    model = load_model(bundle)
    case = read_case(patient)
    prepared = prepare(model, case, None)
    assert tuple(prepared.x.shape[2:]) == (64, 64, 56)
    with torch.no_grad():
        ours = prepared.placement.to_patient(model.network(prepared.x)[0].numpy())
    theirs = monai_logits(patient).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    tc, wt, et = theirs > 0
    expected = np.where(et, 3, np.where(tc, 1, np.where(wt, 2, 0)))
    labels = predict(model, case).labels
    assert labels is not None
    unsure = (np.abs(theirs) < 1e-3).any(axis=0)
    np.testing.assert_array_equal(labels[~unsure], expected[~unsure])
    assert len(np.unique(expected)) > 1


def test_maps_lie_on_the_side_that_was_changed(bundle: Path, patient: Path) -> None:
    """The gradient of one voxel's output is largest near that voxel, on the patient's own grid."""
    model = load_model(bundle)
    case = read_case(patient)
    mask = np.zeros(case.shape, bool)
    mask[14:17, 40:43, 30:33] = True
    maps = explain(model, case, "vanilla_gradient", "WT", within=mask)
    seen = np.abs(maps["vanilla_gradient"].volume()).sum(axis=0)
    peak = np.unravel_index(seen.argmax(), seen.shape)
    assert np.abs(np.array(peak) - [15, 41, 31]).max() <= 6
    assert maps.warnings[-1] == model.notes[-1]


def test_every_method_gives_a_map_or_a_reason(bundle: Path) -> None:
    model = load_model(bundle)
    x = torch.rand(2, 4, 16, 24, 8, generator=torch.Generator().manual_seed(1))
    maps = explain(model.network, x, target=1)
    assert not maps.refused
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


def test_an_orientation_is_followed(tmp_path: Path, patient: Path) -> None:
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


def test_expressions_run_only_when_trusted(tmp_path: Path) -> None:
    config = bundles.inference()
    config["network_def"]["init_filters"] = "$4 * 2"
    folder = bundles.write_bundle(tmp_path / "b", config=config)
    with pytest.raises(ModelError, match=r"network_def::init_filters is the expression '\$4 \* 2'"):
        load_model(folder)
    assert load_model(folder, trust=True).card.arguments["init_filters"] == 8


def test_references_are_followed(tmp_path: Path) -> None:
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


def _mean(config: dict[str, Any], mark: Path) -> None:
    config["preprocessing"]["transforms"][1]["channel_wise"] = False


def _outputs(config: dict[str, Any], mark: Path) -> None:
    config["postprocessing"] = {"_target_": "Compose", "transforms": []}


def _width(config: dict[str, Any], mark: Path) -> None:
    config["network_def"]["init_filters"] = 16


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_code, "network_def::in_channels is the expression"),
        (_target, "no network of monai.networks.nets"),
        (_inside, "no network of monai.networks.nets"),
        (_again, "refers to itself"),
        (_file, "reads another file"),
        (_gone, "refers to 'nowhere::x', which is not there"),
        (_transform, "the transform Lambdad is unknown here"),
        (_mean, "share one mean"),
        (_outputs, "neither sigmoid nor softmax"),
        (_width, "has shape"),
    ],
)
def test_what_cannot_be_read_as_data_is_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Any], Path], None], words: str
) -> None:
    mark, config = tmp_path / "ran", bundles.inference()
    spoil(config, mark)
    folder = bundles.write_bundle(tmp_path / "b", config=config)
    with pytest.raises(ModelError, match=words) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert not mark.exists()


def test_pickled_weights_are_refused_and_the_way_named(bundle: Path) -> None:
    weights = bundle / "models" / "model.safetensors"
    torch.save(load_file(weights), bundle / "models" / "model.pt")
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.pt: .*can carry code.*neuroxai convert torch"):
        load_model(bundle)


@pytest.mark.parametrize("fault", ["nan", "missing", "extra"])
def test_weights_must_fit(bundle: Path, fault: str) -> None:
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
    words = {"nan": "not finite", "missing": "is missing", "extra": "unknown tensor 'more'"}
    with pytest.raises(ModelError, match=words[fault]):
        load_model(bundle)


@pytest.mark.parametrize(
    "channels", [{}, {"0": "T1", "2": "T2"}, {"a": "T1"}, {"0": "T1", "1": "t1w"}]
)
def test_channels_without_names_are_refused(tmp_path: Path, channels: dict[str, str]) -> None:
    about = bundles.metadata()
    image = about["network_data_format"]["inputs"]["image"]
    image["channel_def"], image["num_channels"] = channels, len(channels)
    folder = bundles.write_bundle(tmp_path / "b", about=about)
    with pytest.raises(ModelError, match=r"metadata\.json: network_data_format\.inputs\.image"):
        load_model(folder)


def test_a_broken_configuration_is_named(bundle: Path) -> None:
    path = bundle / "configs" / "inference.json"
    for text in ("{", "[]", json.dumps({"network_def": 3})):
        path.write_text(text)
        with pytest.raises(ModelError, match=r"inference\.json"):
            load_model(bundle)
