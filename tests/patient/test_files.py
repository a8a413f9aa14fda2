"""Names, label tables and precision of the files of a case."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st

import cases
import neuroxai as nx
from neuroxai.data.nifti import read_nifti, write_nifti
from neuroxai.data.quantization import quantize
from neuroxai.files.names import bids_stem, entity_value
from neuroxai.methods import make_method
from neuroxai.methods.table import TABLE
from neuroxai.patient.label_table import write_label_tables

LABELS = {"background": 0, "NCR": 1, "ED": 2, "ET": 4}


@pytest.fixture(scope="module")
def schema() -> Any:
    from bidsschematools.schema import load_schema

    return load_schema()


def check_names(names: Iterable[str], schema: Any) -> None:
    """Check keys, order and values of the entities, and the suffix and extension of ``dseg``."""
    order = [schema.objects.entities[each].name for each in schema.rules.entities]
    segmentation = schema.rules.files.deriv.imaging.anat_discrete_segmentation
    for name in names:
        stem, _, extension = name.partition(".")
        *pairs, suffix = stem.split("_")
        keys = []
        for pair in pairs:
            key, value = pair.split("-")
            entity = next(e for e in schema.objects.entities.values() if e.name == key)
            pattern = schema.objects.formats[entity.format].pattern
            assert re.fullmatch(pattern, value), name
            keys.append(key)
        assert keys == sorted(keys, key=order.index), name
        assert keys[0] == "sub"
        assert len({*keys}) == len(keys)
        if suffix == "dseg" and extension not in ("txt", "ctbl"):
            assert f".{extension}" in segmentation.extensions
            assert suffix in segmentation.suffixes


@pytest.mark.parametrize(
    "case", ["BraTS2021_00007", "UPENN-GBM-00001_11", "Größe 3", "sub-01_ses-2", "中", ".."]
)
def test_names_of_maps_follow_the_schema(case: str, schema: Any) -> None:
    labels = ("ET", "enhancing tumour", "GD-enhancing", "<3 cm", "ET within lesion:2")
    check_names(
        (f"{bids_stem(case, 'statmap', label=x, desc=m)}.nii.gz" for x in labels for m in TABLE),
        schema,
    )


def test_names_of_a_run_follow_the_schema(tmp_path: Path, schema: Any) -> None:
    study = nx.read_case(cases.write_study(tmp_path))
    model = nx.load_model(cases.segmenter(tmp_path))
    found = nx.explain(model, study, ["grad_cam", "vanilla_gradient"], "ET", within="truth")
    for each in found.values():
        each.save(tmp_path / "out")
    assert found.prediction is not None
    found.prediction.save(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").glob("sub-*")}
    assert "sub-BraTS2021+00007_label-ETWithinTruth_desc-gradCam_statmap.nii.gz" in names
    assert len(names) == 8
    check_names(names, schema)


@given(numbers=st.lists(st.integers(0, 99), min_size=1, max_size=4))
def test_layers_of_different_numbers_have_different_names(numbers: list[int]) -> None:
    words = re.split(r"[^0-9]+", entity_value(".".join(map(str, numbers))))
    assert words == [str(number) for number in numbers]


def test_label_tables(tmp_path: Path) -> None:
    tsv, itksnap, slicer = write_label_tables(tmp_path / "sub-1_dseg.nii.gz", LABELS)
    rows = [line.split("\t") for line in tsv.read_text().splitlines()]
    assert rows[0] == ["index", "name", "color"]
    assert [(row[1], int(row[0])) for row in rows[1:]] == list(LABELS.items())
    assert rows[4] == ["4", "ET", "#F0E442"]
    line = re.fullmatch(r'(\d+)((?: \d+){6}) "(.*)"', itksnap.read_text().splitlines()[4])
    assert line is not None
    assert (line[1], line[2].split(), line[3]) == ("4", ["240", "228", "66", "1", "1", "1"], "ET")
    assert slicer.read_text().splitlines()[3] == "4 ET 240 228 66 255"
    assert slicer.read_text().splitlines()[0] == "0 background 0 0 0 0"


def test_classes_of_other_networks_have_colors_of_their_own(tmp_path: Path) -> None:
    names = {"background": 0, "hippocampus left": 1, "b": 2, "c": 3}
    tsv, _, slicer = write_label_tables(tmp_path / "a_dseg.nii.gz", names)
    colors = [line.split("\t")[2] for line in tsv.read_text().splitlines()[1:]]
    assert len({*colors}) == 4
    assert slicer.read_text().splitlines()[1].split()[1] == "hippocampus_left"


def heavy_tailed(channels: int = 2) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.default_rng(0)
    size = (channels, 13, 11, 7)
    signs = np.sign(random.standard_normal(size))
    values = (np.exp(2 * random.standard_normal(size)) * signs).astype(np.float32) * 1e-7
    return np.where(random.random(size) < 0.5, 0, values).astype(np.float32)


@pytest.mark.parametrize("amounts", [False, True])
def test_a_map_is_within_its_stated_precision_in_other_readers(
    tmp_path: Path, amounts: bool
) -> None:
    values = heavy_tailed()
    stored = quantize(values, amounts=amounts)
    assert stored.step is not None
    path = write_nifti(
        tmp_path / "a.nii.gz", np.moveaxis(stored.data, 0, -1), np.eye(4), step=stored.step
    )
    image = nib.load(path)
    assert image.get_data_dtype() == np.int16
    peak = float(np.abs(values).max())
    np.testing.assert_allclose(image.header["cal_max"], peak, rtol=1e-4)
    assert image.header["cal_min"] == -image.header["cal_max"]
    allowed = stored.describe()["largest_error"] * (1 + 1e-6)
    assert allowed < (3.1e-5 if amounts else 1.6e-5) * peak
    itk = np.moveaxis(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))), 0, 0).transpose(
        0, 3, 2, 1
    )
    for read, extra in ((np.moveaxis(image.get_fdata(), -1, 0), 0.0), (itk, 1e-7 * peak)):
        assert np.abs(read - values).max() <= allowed + extra
        assert not (read[values == 0]).any()
        assert (np.sign(read) * np.sign(values) >= 0).all()
        assert (np.sign(read) == np.sign(values))[np.abs(values) > allowed].all()
        sums = read.reshape(2, -1).sum(axis=1, dtype=np.float64)
        np.testing.assert_allclose(sums, stored.sums(), rtol=1e-5, atol=1e-6 * peak)
        within = stored.step / 2 + extra * 10 if amounts else allowed * np.sqrt(values[0].size)
        np.testing.assert_allclose(sums, values.reshape(2, -1).sum(1, dtype=float), atol=within)
    one = write_nifti(tmp_path / "b.nii", stored.data[0], np.eye(4), step=stored.step)
    np.testing.assert_allclose(read_nifti(one).data, values[0], atol=allowed, rtol=1e-6)


@pytest.mark.parametrize("fault", [np.nan, np.inf, 0.0, 1e-38])
def test_maps_without_a_step_remain_float(fault: float) -> None:
    values = np.zeros((1, 3, 4, 5), np.float32)
    values[0, 1] = fault
    stored = quantize(values)
    assert stored.step is None
    assert stored.data is values
    assert stored.describe() == {"type": "float32"}


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30), st.integers(1, 9), st.booleans()
)
def test_amounts_keep_their_sum_to_half_a_step(
    numbers: list[float], repeats: int, constant: bool
) -> None:
    """Equal values have equal remainders, whose sum grows with their number."""
    values = np.array([[2.0, *numbers * repeats]], np.float32)
    if constant:
        values[0, 1:] = numbers[0]
    stored = quantize(values, amounts=True)
    assert stored.step is not None
    assert abs(stored.sums()[0] - values.sum(dtype=float)) <= stored.step / 2 * (1 + 1e-6)
    restored = stored.data.astype(float) * stored.step
    assert np.abs(restored - values).max() <= stored.step * (1 + 1e-6)
    assert (np.sign(restored) * np.sign(values) >= 0).all()
    assert not restored[values == 0].any()


def test_the_largest_values_do_not_overflow() -> None:
    for peak in np.random.default_rng(1).uniform(1e-30, 1e30, 200).astype(np.float32):
        stored = quantize(np.array([[-peak, peak, peak / 3]], np.float32))
        assert stored.data.dtype == np.int16
        assert stored.data[0, 0] == -stored.data[0, 1] < 0
    top = np.finfo(np.float32).max
    assert quantize(np.array([[top, -top]], np.float32)).data[0, 0] > 32000


def test_the_sidecar_states_the_precision(tmp_path: Path) -> None:
    study = nx.read_case(cases.write_study(tmp_path))
    model = nx.load_model(cases.segmenter(tmp_path))
    found = nx.explain(model, study, "vanilla_gradient", "ET")["vanilla_gradient"]
    path = found.save(tmp_path / "out")
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    precision = sidecar["precision"]
    values = np.moveaxis(nib.load(path).get_fdata(), -1, 0)
    assert np.abs(values - found.volume()).max() <= precision["largest_error"] * (1 + 1e-6)
    sums = values.reshape(len(values), -1).sum(axis=1)
    np.testing.assert_allclose(sidecar["quantity"]["sum_in_file"], sums, rtol=1e-9)


@pytest.mark.parametrize("method", ["vanilla_gradient", "integrated_gradients", "grad_cam"])
def test_a_file_per_modality_has_the_volume_of_the_4d_file(
    tmp_path: Path, schema: Any, method: str
) -> None:
    study = nx.read_case(cases.write_study(tmp_path))
    model = nx.load_model(cases.segmenter(tmp_path, (32, 64, 32), filters=2))
    made = make_method(method, {"steps": 2} if method == "integrated_gradients" else {})
    found = nx.explain(model, study, [made], "ET", within="truth")[method]
    (whole,) = (nib.load(found.save(tmp_path / "4d")),)
    paths = found.save_modalities(tmp_path / "3d")
    check_names((path.name for path in (tmp_path / "3d").glob("sub-*")), schema)
    if method == "grad_cam":
        assert [path.name for path in paths] == [f"{found.stem}.nii.gz"]
        return
    names = [path.name.rpartition("_")[0].removeprefix(found.stem.rpartition("_")[0])
             for path in paths]  # fmt: skip
    assert names == ["T1", "T1ce", "T2", "FLAIR"]
    together = json.loads((tmp_path / "4d" / f"{found.stem}.json").read_text())
    for number, path in enumerate(paths):
        image = nib.load(path)
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert image.shape == study.shape
        assert sidecar["channels"] == [cases.MODALITIES[number]]
        error = together["precision"]["largest_error"] + sidecar["precision"]["largest_error"]
        expected = np.asarray(whole.dataobj)[..., number]
        np.testing.assert_allclose(np.asarray(image.dataobj), expected, rtol=0, atol=error)
        sums, own = together["quantity"]["sum_in_file"], sidecar["quantity"]["sum_in_file"]
        assert len(own) == 1
        if method == "integrated_gradients":
            assert own[0] == pytest.approx(sums[number], abs=error)


def test_channels_of_one_modality_share_a_file(tmp_path: Path) -> None:
    import dataclasses

    study = nx.read_case(cases.write_study(tmp_path))
    model = nx.load_model(cases.segmenter(tmp_path, (32, 64, 32), filters=2))
    found = nx.explain(model, study, "vanilla_gradient", "ET", within="truth")["vanilla_gradient"]
    copied = dataclasses.replace(found, channels=("FLAIR", "T1ce", "FLAIR", "FLAIR"))
    flair, t1ce = (np.asarray(nib.load(path).dataobj) for path in copied.save_modalities(tmp_path))
    volume = found.volume()
    step = np.abs(volume).max() / 30000
    np.testing.assert_allclose(flair, volume[[0, 2, 3]].sum(axis=0), atol=2 * step)
    np.testing.assert_allclose(t1ce, volume[1], atol=2 * step)
