"""Explanations of a case and of a tensor, in one call."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine

import cases
import neuroxai as nx
from neuroxai.core.errors import MethodError, ModelError, TargetError
from neuroxai.methods import make_method
from session_cache import phantom


def test_the_example_of_the_readme(study: nx.Case, segmenter: nx.Model, tmp_path: Path) -> None:
    maps = nx.explain(
        segmenter, study, methods=["grad_cam", "vanilla_gradient"], target=nx.Region("ET")
    )
    path = maps["grad_cam"].save(tmp_path)
    image = nib.load(path)
    assert image.shape == cases.SHAPE
    np.testing.assert_allclose(image.affine, cases.LPS, atol=1e-6)
    assert path.name == "sub-BraTS2021+00007_label-ET_desc-gradCam_statmap.nii.gz"
    by_modality = nib.load(maps["vanilla_gradient"].save(tmp_path))
    assert by_modality.shape == (*cases.SHAPE, 4)
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert sidecar["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sidecar["layer"] == "output:input"
    assert "not for clinical use" in sidecar["use"]
    assert (tmp_path / "dataset_description.json").is_file()


def test_a_map_equals_a_gradient_that_is_placed_by_hand(
    study: nx.Case, segmenter: nx.Model
) -> None:
    """Preprocess, differentiate and place by hand, without the package's spatial code."""
    maps = nx.explain(segmenter, study, "vanilla_gradient", nx.Class("ET"), within="image")
    images, _ = cases.volumes()
    channels = []
    brain = np.any([v != 0 for v in images.values()], axis=0)
    for name in cases.MODALITIES:
        values = images[name][brain].astype(float)
        z = np.clip((values - values.mean()) / values.std(), -5, 5)
        scaled = np.zeros(cases.SHAPE)
        scaled[brain] = (z - z.min()) / (z.max() - z.min())
        channels.append(scaled[::-1, ::-1, :])  # LPS to RAS
    x = np.zeros((1, 4, 32, 64, 32), np.float32)
    starts = [(32 - 26) // 2, (64 - 45) // 2, (32 - 30) // 2]
    i, j, k = (slice(s, s + n) for s, n in zip(starts, cases.SHAPE, strict=True))
    x[0, :, i, j, k] = np.stack(channels)
    tensor = torch.from_numpy(x).requires_grad_(True)
    network = segmenter.network.eval()
    network(tensor)[0, 3].mean().backward()
    assert tensor.grad is not None
    expected = tensor.grad[0].numpy()[:, i, j, k][:, ::-1, ::-1, :]
    got = maps["vanilla_gradient"].volume()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, atol=1e-5 * scale)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.soak)])
def test_every_orientation_gives_the_same_map_in_the_world(tmp_path: Path, every: int) -> None:
    """The worst possible bug is an overlay on the wrong side.

    Every seventh orientation has each order of the axes; the placement tests have all 48.
    """
    classes = ("background", "NCR", "ED", "ET")
    segmenter = nx.load_model(str(cases.tiny(tmp_path / "tiny", classes, {"ET": ("ET",)})))
    oblique = cases.LPS.copy()
    angle = 0.2
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    oblique[:3, :3] = turn @ oblique[:3, :3] * 1.3
    reference: dict[tuple[float, ...], float] = {}
    for number, orientation in enumerate(list(cases.orientations())[::every]):
        folder = cases.write_study(tmp_path / str(number), affine=oblique, turn=orientation)
        case = nx.read_case(folder)
        found = nx.explain(segmenter, case, "vanilla_gradient", "ET")["vanilla_gradient"]
        image = nib.load(found.save(tmp_path / f"out{number}"))
        source = nib.load(folder / f"{folder.name}_t1.nii.gz")
        assert image.shape[:3] == source.shape
        np.testing.assert_allclose(image.affine, source.affine, atol=1e-4)
        values = image.get_fdata()[..., 3]
        strongest = np.argsort(np.abs(values).ravel())[-40:]
        indices = np.stack(np.unravel_index(strongest, values.shape), axis=1)
        world = np.round(apply_affine(image.affine, indices), 2) + 0.0
        here = {tuple(w): values[tuple(i)] for w, i in zip(world, indices, strict=True)}
        if not reference:
            reference = here
        assert here.keys() == reference.keys(), f"orientation {number} moved the map"
        for place, value in here.items():
            assert value == pytest.approx(reference[place], rel=1e-3)  # of the stored precision


def test_the_prediction_is_written_with_the_label_values_of_the_layout(
    study: nx.Case, segmenter: nx.Model, tmp_path: Path
) -> None:
    prediction = nx.predict(segmenter, study)
    path = prediction.save(tmp_path)
    assert path is not None
    image = nib.load(path)
    assert image.shape == cases.SHAPE
    found = set(np.unique(np.asarray(image.dataobj)).tolist())
    assert found <= {0, 1, 2, 4}
    assert prediction.labels is not None
    indices = set(np.unique(prediction.labels).tolist())
    assert found == {{0: 0, 1: 1, 2: 2, 3: 4}[index] for index in indices}


def test_a_classifiers_map_is_zero_outside_its_slice(
    study: nx.Case, classifier: nx.Model, tmp_path: Path
) -> None:
    maps = nx.explain(classifier, study, ["vanilla_gradient", "grad_cam"])
    found = maps["vanilla_gradient"]
    _, labels = cases.volumes()
    expected = int((labels > 0).sum(axis=(0, 1)).argmax())
    volume = found.volume()
    assert volume.shape == (3, *cases.SHAPE)
    filled = np.flatnonzero(np.abs(volume).sum(axis=(0, 1, 2)))
    assert filled.tolist() == [expected]
    assert maps.prediction is not None
    assert set(maps.prediction.probabilities) == {"LGG", "HGG"}
    assert sum(maps.prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert found.explanation.target["classes"] == [[maps.prediction.label]]
    assert found.explanation.target["name"] == maps.prediction.label
    chosen = nx.explain(classifier, study, "grad_cam", slice_index=9)["grad_cam"]
    assert np.flatnonzero(chosen.volume().sum(axis=(0, 1, 2))).tolist() in ([9], [])


def test_within_truth_differs_from_the_mean_over_the_image_and_follows_the_side(
    study: nx.Case, segmenter: nx.Model
) -> None:
    whole = nx.explain(segmenter, study, "vanilla_gradient", "WT", within="image")
    plain = whole["vanilla_gradient"].volume()
    inside = nx.explain(segmenter, study, "vanilla_gradient", "WT", within="truth")
    _, labels = cases.volumes()
    near = labels > 0
    volume = np.abs(inside["vanilla_gradient"].volume()).sum(axis=0)
    assert volume[near].mean() > 3 * volume[~near].mean()
    assert not np.allclose(plain, inside["vanilla_gradient"].volume())
    by_mask = nx.explain(segmenter, study, "vanilla_gradient", "WT", within=near.astype(np.uint8))
    np.testing.assert_array_equal(
        by_mask["vanilla_gradient"].volume(), inside["vanilla_gradient"].volume()
    )


def test_lesion_out_of_range_is_refused(study: nx.Case, segmenter: nx.Model) -> None:
    with pytest.raises(TargetError, match="lesion 999 does not exist"):
        nx.explain(segmenter, study, "vanilla_gradient", "WT", within="lesion:999")


def test_modules_and_tensors_need_no_case() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 5, 3), torch.nn.Tanh())
    x = torch.randn(3, 2, 9, 7)
    maps = nx.explain(network, x, "all", nx.Class(4))
    assert set(maps) == {
        "vanilla_gradient", "integrated_gradients", "guided_integrated_gradients", "smoothgrad",
        "input_x_gradient",
    }  # fmt: skip
    assert "no rectifier" in maps.refused["guided_backprop"]
    assert "convolution" in maps.refused["grad_cam"]
    with pytest.raises(MethodError, match="no rectifier"):
        maps["guided_backprop"]
    assert "grad_cam" not in maps
    assert maps.get("saliency") is None
    with pytest.raises(MethodError, match="did you mean 'smoothgrad'"):
        maps["smooth_grad"]
    with pytest.raises(MethodError, match="no rectifier"):
        nx.explain(network, x, "guided_backprop", nx.Class(4))


def test_a_case_needs_a_model_with_a_card(study: nx.Case) -> None:
    with pytest.raises(ModelError, match="needs a model with a card"):
        nx.explain(torch.nn.Conv3d(4, 2, 1), study)  # type: ignore[call-overload]


def test_repeated_runs_write_the_same_files(
    study: nx.Case, segmenter: nx.Model, tmp_path: Path
) -> None:
    method = nx.METHODS["smoothgrad"](samples=2)  # type: ignore[call-arg]
    for out in ("a", "b"):
        nx.explain(segmenter, study, method, "TC", seed=3)["smoothgrad"].save(tmp_path / out)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_import_is_light() -> None:
    """Importing the package imports neither torch nor anything that draws or trains."""
    import subprocess
    import sys

    code = "import sys, neuroxai; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "matplotlib", "monai", "nilearn", "lightning", "scipy", "nibabel"}
    assert not heavy & set(loaded.stdout.split())


def test_a_method_may_be_requested_only_once() -> None:
    """Results are stored by method name, so that two of one name would overwrite each other."""
    network, x = torch.nn.Conv2d(2, 5, 3), torch.rand(1, 2, 9, 7)
    twice = [make_method("integrated_gradients", {"steps": steps}) for steps in (2, 3)]
    with pytest.raises(MethodError, match="integrated_gradients is requested twice"):
        nx.explain(network, x, twice, 1)
    with pytest.raises(MethodError, match="is requested twice"):
        nx.explain(network, x, ["integrated_gradients", twice[0]], 1)
    assert list(nx.explain(network, x, ["vanilla_gradient"] * 2, 1)) == ["vanilla_gradient"]


def test_a_warning_has_the_share_of_the_image_that_the_target_is_predicted_in() -> None:
    model, case = nx.load_model("deepseg-phantom"), phantom(7).case
    whole = nx.explain(model, case, "vanilla_gradient", "WT", within="image")
    share = float((whole.output.argmax(dim=1) > 0).float().mean())
    assert 0 < share < 0.5
    (note,) = [each for each in whole.warnings if "the mean over the whole image" in each]
    assert f"of which {share:.1%} is predicted to be WT" in note
    inside = nx.explain(model, case, "vanilla_gradient", "WT")
    assert not any("the mean over" in each for each in inside.warnings)
    mask = (whole.output.argmax(dim=1) > 0)[0]
    explanation = inside["vanilla_gradient"].explanation
    assert explanation.within is not None
    assert torch.equal(explanation.within[0], mask)
    assert (explanation.target["within"], explanation.target["within_by_default"]) == (
        "prediction", True,
    )  # fmt: skip
    stems = [each["vanilla_gradient"].stem for each in (inside, whole)]
    assert [stem.split("_label-")[1].split("_")[0] for stem in stems] == ["WT", "WTWithinImage"]


def test_inputs_that_are_not_images_raise_an_error() -> None:
    network, x = torch.nn.Conv2d(2, 5, 3), torch.rand(1, 2, 9, 7)
    for wrong in ((9 * x).int().numpy(), (9 * x).int(), x[0, 0], x[:0]):
        with pytest.raises(MethodError, match="the input"):
            nx.explain(network, wrong, "vanilla_gradient", 1)


def test_inference_mode_raises_an_error() -> None:
    network = torch.nn.Conv2d(2, 5, 3)
    with torch.inference_mode():
        x = torch.rand(1, 2, 9, 7)
        with pytest.raises(MethodError, match="which disables gradients"):
            nx.explain(network, x, "vanilla_gradient", 1)
    with pytest.raises(MethodError, match=r"pass x\.clone\(\)"):
        nx.explain(network, x, "vanilla_gradient", 1)
    assert nx.explain(network, x.clone(), "vanilla_gradient", 1)["vanilla_gradient"].values.any()


def test_results_have_a_short_repr() -> None:
    maps = nx.explain(torch.nn.Conv2d(2, 5, 3), torch.rand(1, 2, 9, 7), "all", 1)
    assert "vanilla_gradient" in repr(maps)
    assert "no map: guided_backprop" in repr(maps)
    assert repr(maps["vanilla_gradient"]).startswith("<Vanilla gradient of 1: (1, 2, 9, 7)")
    assert all("not for clinical use" in repr(each) for each in (maps, maps["vanilla_gradient"]))
    assert max(len(repr(each)) for each in (maps, maps["vanilla_gradient"])) < 250
