"""Reading of valid and invalid NIfTI files, and writing, against nibabel."""

from __future__ import annotations

import gzip
import itertools
import os
import struct
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError, OutputError
from neuroxai.data.nifti import read_labels, read_nifti, write_nifti

SHAPE = (5, 6, 7)
OBLIQUE = np.array(
    [[1.1, 0.2, 0.05, -40.0], [-0.2, 0.9, 0.1, 12.5], [-0.03, -0.1, 2.0, 7.25], [0, 0, 0, 1]]
)


def numbers(dtype: Any = np.int16) -> NDArray[Any]:
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 120).astype(dtype)


def saved(
    path: Path, data: NDArray[Any] | None = None, affine: NDArray[Any] = OBLIQUE, **header: Any
) -> Path:
    """Write with nibabel, then set raw header fields past its checks."""
    data = numbers() if data is None else data
    raw = bytearray(nib.Nifti1Image(data, affine).to_bytes())
    offsets = {
        "dim": (40, "<8h"), "datatype": (70, "<h"), "bitpix": (72, "<h"), "vox_offset": (108, "<f"),
        "scl_slope": (112, "<f"), "scl_inter": (116, "<f"), "qform_code": (252, "<h"),
        "sform_code": (254, "<h"), "quatern_b": (256, "<f"), "srow_x": (280, "<4f"),
        "magic": (344, "<4s"),
    }  # fmt: skip
    for name, value in header.items():
        offset, form = offsets[name]
        struct.pack_into(form, raw, offset, *(value if isinstance(value, tuple) else (value,)))
    path.write_bytes(gzip.compress(bytes(raw)) if path.name.endswith(".gz") else bytes(raw))
    return path


# --- valid files are read ---


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("code", ["u1", "i1", "i2", "u2", "i4", "f4", "f8"])
def test_good_files_read_as_nibabel_reads_them(
    tmp_path: Path, name: str, order: str, image_class: Any, code: str
) -> None:
    data = numbers(code)
    header = image_class.header_class(endianness=order)
    header.set_data_dtype(np.dtype(order + code))
    image_class(data, OBLIQUE, header).to_filename(tmp_path / name)
    oracle = nib.load(tmp_path / name)
    assert oracle.header.endianness == order
    volume = read_nifti(tmp_path / name)
    np.testing.assert_array_equal(volume.data, oracle.get_fdata(dtype=np.float32))
    np.testing.assert_array_equal(volume.affine, oracle.affine)
    assert volume.data.dtype == np.float32
    assert volume.warnings == ()


def test_slope_and_intercept_as_nibabel(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii.gz", scl_slope=0.25, scl_inter=-3.0)
    oracle = nib.load(path).get_fdata(dtype=np.float64)
    np.testing.assert_allclose(read_nifti(path).data, oracle, rtol=1e-6)
    assert read_nifti(path).data[0, 0, 1] == -2.75
    assert read_labels(saved(tmp_path / "l.nii", scl_slope=2.0)).data[0, 0, 1] == 2


def test_one_time_point_is_a_volume(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", numbers()[..., None])
    assert read_nifti(path).data.shape == SHAPE


def test_the_format_is_detected_from_the_content(tmp_path: Path) -> None:
    packed = saved(tmp_path / "a.nii.gz")
    misnamed = tmp_path / "b.nii"
    misnamed.write_bytes(packed.read_bytes())
    np.testing.assert_array_equal(read_nifti(misnamed).data, numbers())


@pytest.mark.parametrize("name", ["Gehirn_größe_脳.nii.gz", "x" * 230 + ".nii.gz", "a b'\".nii"])
def test_any_name(tmp_path: Path, name: str) -> None:
    assert read_nifti(saved(tmp_path / name)).path == str(tmp_path / name)


def test_the_hash_is_of_the_bytes_on_disk(tmp_path: Path) -> None:
    import hashlib

    path = saved(tmp_path / "a.nii.gz")
    assert read_nifti(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_spacing_in_mm(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", affine=np.diag([-1.5, 2.0, 0.75, 1]))
    assert read_nifti(path).spacing == (1.5, 2.0, 0.75)


# --- irregularities give a warning that names the file ---


def test_different_forms_warn_and_the_sform_is_used(tmp_path: Path) -> None:
    image = nib.Nifti1Image(numbers(), np.diag([1, 1, 1, 1]))
    image.set_sform(np.diag([-1.0, 1, 1, 1]), code=1)
    image.set_qform(np.diag([1.0, 1, 1, 1]), code=1)
    image.to_filename(tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.affine[0, 0] == -1
    assert "a.nii" in volume.warnings[0]
    assert "8.0 mm" in volume.warnings[0]


def test_an_invalid_qform_with_a_sform_warns(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", sform_code=1, qform_code=1, quatern_b=9.0)
    assert "qform is not a rotation" in read_nifti(path).warnings[0]


def test_unlikely_voxels_warn(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", affine=np.diag([1e-3, 1e-3, 1e-3, 1]))
    assert "unlikely" in read_nifti(path).warnings[0]


# --- invalid files are refused in one sentence that names the file ---


def refused(path: Path, *words: str, read: Any = read_nifti) -> None:
    with pytest.raises(CaseError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    for word in words:
        assert word in message


def test_paths_that_are_not_regular_files(tmp_path: Path) -> None:
    refused(tmp_path / "none.nii", "No such file")
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "fifo.nii")
    refused(tmp_path / "fifo.nii", "not a regular file")
    refused(Path("/dev/zero"), "not a regular file")
    refused(tmp_path / ("y" * 300 + ".nii"), "cannot be read")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    refused(tmp_path / "loop.nii", "cannot be read")
    with pytest.raises(CaseError, match="null"):
        read_nifti("a\0b.nii")


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.nii")

    def denied(*_: object) -> None:  # file rights would not stop a test that runs as root
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(path, "cannot be read (Permission denied)")


def test_files_that_are_not_nifti(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    for content, word in (
        (b"", "empty"),
        (b"hello", "5 bytes"),
        (b"\x89PNG" + bytes(1000), "not NIfTI"),
        (bytes(128) + b"DICM" + bytes(1000), "dcm2niix"),
        (gzip.compress(b""), "0 bytes"),
        (b"\x1f\x8b", "damaged"),
        (b"\x1f\x8bnonsense" * 9, "damaged"),
    ):
        path.write_bytes(content)
        refused(path, word)
    refused(saved(path, magic=b"ni1\0"), "pair")
    refused(saved(path, magic=b"\0\0\0\0"), "not NIfTI")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_truncated_files_are_refused(tmp_path: Path, name: str) -> None:
    whole = saved(tmp_path / name).read_bytes()
    cut = tmp_path / ("cut-" + name)
    for length in [*range(1, len(whole), 37), len(whole) - 4, len(whole) - 1]:
        cut.write_bytes(whole[:length])
        refused(cut)


def test_every_damaged_byte_of_a_gzip_file_is_detected(tmp_path: Path) -> None:
    whole = bytearray(saved(tmp_path / "a.nii.gz").read_bytes())
    for position in [*range(10, len(whole), 11), *range(len(whole) - 8, len(whole))]:
        damaged = whole.copy()
        damaged[position] ^= 0x10
        path = tmp_path / "damaged.nii.gz"
        path.write_bytes(damaged)
        refused(path)


@pytest.mark.parametrize(
    ("lie", "word"),
    [
        ({"dim": (3, 5, 6, 8, 1, 1, 1, 1)}, "truncated"),
        ({"dim": (3, 5, 6, 6, 1, 1, 1, 1)}, "more data"),
        ({"dim": (3, 0, 6, 7, 1, 1, 1, 1)}, "invalid dimensions"),
        ({"dim": (3, -5, 6, 7, 1, 1, 1, 1)}, "invalid dimensions"),
        ({"dim": (0, 5, 6, 7, 1, 1, 1, 1)}, ""),
        ({"dim": (2, 5, 42, 1, 1, 1, 1, 1)}, "2 dimensions"),
        ({"dim": (4, 5, 6, 1, 7, 1, 1, 1)}, "(5, 6, 1, 7)"),
        ({"dim": (3, 30000, 30000, 30000, 1, 1, 1, 1)}, "30000 x 30000"),
        ({"vox_offset": 0.0}, "offset"),
        ({"vox_offset": 360.0}, "truncated"),
        ({"vox_offset": float("nan")}, "offset"),
        ({"vox_offset": 1e30}, "offset"),
        ({"datatype": 16, "bitpix": 32}, "truncated"),
        ({"datatype": 2, "bitpix": 8}, "more data"),
        ({"datatype": 32}, "complex"),
        ({"datatype": 128}, "color"),
        ({"datatype": 2304}, "color"),
        ({"datatype": 1536}, "datatype 1536"),
        ({"datatype": 999}, "unknown datatype"),
        ({"scl_slope": float("inf")}, "scaling"),
        ({"scl_slope": 1.0, "scl_inter": float("inf")}, "scaling"),
        ({"sform_code": 0, "qform_code": 0}, "left and right"),
        ({"srow_x": (0.0, 0.0, 0.0, 0.0), "sform_code": 2}, "singular"),
        ({"srow_x": (-0.2, 0.9, 0.1, 0.0), "sform_code": 2}, "singular"),
        ({"srow_x": (float("nan"), 0.0, 0.0, 0.0), "sform_code": 2}, "not finite"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 9.0}, "not a rotation"),
    ],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_invalid_headers_are_refused(
    tmp_path: Path, name: str, lie: dict[str, Any], word: str
) -> None:
    refused(saved(tmp_path / name, **lie), word)


def test_nan_and_infinite_voxels_are_refused(tmp_path: Path) -> None:
    data = numbers(np.float32)
    data[0, 1, 2:5] = np.nan
    data[3, 3, 3] = -np.inf
    refused(saved(tmp_path / "a.nii", data), "4 of 210 voxels")
    big = numbers(np.float64)
    big[1, 1, 1] = 1e300  # finite on disk, not in float32
    refused(saved(tmp_path / "b.nii", big), "1 of 210 voxels")


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_is_refused_and_constant_labels_are_not(
    tmp_path: Path, value: int
) -> None:
    path = saved(tmp_path / "a.nii.gz", np.full(SHAPE, value, np.int16))
    refused(path, "constant", str(value))
    assert read_nifti(path, allow_constant=True).data.max() == value
    assert (read_labels(path).data == value).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_rounding_noise_of_labels_is_rounded(tmp_path: Path, dtype: type) -> None:
    """nibabel scales floats into integers, with a float32 slope: 2 comes back as 2.00003."""
    numbers = np.arange(24).reshape(2, 3, 4) % 5
    path = tmp_path / "seg.nii"
    nib.save(nib.Nifti1Image(numbers.astype(float), np.eye(4), dtype=dtype), path)
    stored = nib.load(path).get_fdata()
    off = np.abs(stored - numbers).max()
    assert 0 < off < (0.008 if dtype is np.uint8 else 1e-3)
    volume = read_labels(path)
    np.testing.assert_array_equal(volume.data, numbers)
    (warning,) = volume.warnings
    assert str(path) in warning
    assert f"up to {off:.2g}" in warning
    for noise, fits in ((9e-4, True), (1.1e-3, False), (0.5, False)):
        moved = saved(path, (numbers - noise * (numbers == 3)).astype(np.float64))
        if fits:
            np.testing.assert_array_equal(read_labels(moved).data, numbers)
        else:
            refused(moved, "integers", "nearest-neighbor", read=read_labels)
    assert read_labels(saved(path, numbers.astype(dtype))).warnings == ()


def test_labels_are_integers(tmp_path: Path) -> None:
    assert read_labels(saved(tmp_path / "a.nii", numbers(np.float64))).data.dtype == np.int32
    half = numbers(np.float32)
    half[1, 2, 3] = 2.5
    refused(saved(tmp_path / "b.nii", half), "2.5", read=read_labels)
    half[1, 2, 3] = np.nan
    refused(saved(tmp_path / "c.nii", half), "nan", read=read_labels)
    half[1, 2, 3] = 1e12
    refused(saved(tmp_path / "d.nii", half), "integers", read=read_labels)


def test_decompression_bombs_are_refused_quickly_and_in_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    honest_header = saved(tmp_path / "a.nii", dim=(3, 512, 512, 511, 1, 1, 1, 1)).read_bytes()[:352]
    bomb = tmp_path / "bomb.nii.gz"
    with gzip.GzipFile(bomb, "wb", compresslevel=1) as stream:  # 300 MB of zeros in 1.3 MB
        stream.write(honest_header)
        for _ in range(300):
            stream.write(bytes(2**20))
    tracemalloc.start()
    started = time.process_time()
    refused(bomb)
    # CPU time, which other work on the machine does not stretch.
    seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 10
    assert peak < 6e8

    tiny = saved(tmp_path / "tiny.nii.gz", dim=(3, 500, 500, 500, 1, 1, 1, 1))
    tracemalloc.start()
    refused(tiny, "the header gives 250000352 bytes")
    assert tracemalloc.get_traced_memory()[1] < 1e7  # refused before anything is allocated
    tracemalloc.stop()


# --- writing ---


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.sampled_from([np.float32, np.uint8, np.int16, np.int32]).flatmap(
        lambda dtype: hnp.arrays(
            dtype, st.tuples(*[st.integers(1, 5)] * 3),
            elements=st.floats(-(2.0**99), 2.0**99, width=32) if dtype is np.float32 else None,
        )
    ),
    packed=st.booleans(),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_written_is_read_back(tmp_path: Path, data: NDArray[Any], packed: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    affine[:3] = np.c_[rotation * rng.uniform(0.5, 3, 3), rng.normal(size=3) * 50]
    path = write_nifti(tmp_path / ("a.nii.gz" if packed else "a.nii"), data, affine)
    oracle = nib.load(path)
    assert oracle.get_data_dtype() == data.dtype
    np.testing.assert_array_equal(np.asarray(oracle.dataobj), data)
    for form, code in (oracle.get_sform(coded=True), oracle.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(form, affine, atol=1e-4)
    volume = read_nifti(path, allow_constant=True)
    np.testing.assert_array_equal(volume.data, data.astype(np.float32))
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


def test_a_shear_has_no_qform(tmp_path: Path) -> None:
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    image = nib.load(write_nifti(tmp_path / "a.nii.gz", numbers(), sheared))
    assert int(image.header["qform_code"]) == 0
    np.testing.assert_allclose(image.affine, sheared, atol=1e-7)
    np.testing.assert_allclose(image.header.get_zooms(), (1, np.hypot(1, 0.3), 1), rtol=1e-6)


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    one = write_nifti(tmp_path / "a.nii.gz", numbers(np.float32), OBLIQUE).read_bytes()
    time.sleep(1.1)  # gzip keeps whole seconds
    assert write_nifti(tmp_path / "b.nii.gz", numbers(np.float32), OBLIQUE).read_bytes() == one


def test_channel_names_and_description_are_stored(tmp_path: Path) -> None:
    data = np.stack([numbers(np.float32), numbers(np.float32) * 2], axis=-1)
    path = write_nifti(
        tmp_path / "a.nii.gz", data, OBLIQUE, description="größe" * 30, modalities=["T1", "FLAIR"]
    )
    image = nib.load(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), data)
    assert image.header.extensions[0].get_content() == b"modalities: T1, FLAIR"
    assert bytes(image.header["descrip"]).rstrip(b"\0").decode().startswith("größe")
    assert image.header.get_xyzt_units()[0] == "mm"


@pytest.mark.parametrize(
    ("data", "name", "word"),
    [
        (np.full(SHAPE, np.nan, np.float32), "a.nii", "210 voxels are NaN"),
        (np.ones((2, 3)), "a.nii", "shape"),
        (np.ones((0, 2, 3)), "a.nii", "shape"),
        (np.ones(SHAPE, complex), "a.nii", "complex"),
        (np.ones(SHAPE), "a.png", "rename"),
    ],
)
def test_arrays_that_cannot_be_stored_are_refused(
    tmp_path: Path, data: Any, name: str, word: str
) -> None:
    with pytest.raises(OutputError, match=word):
        write_nifti(tmp_path / name, data, np.eye(4))
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_names_must_match_the_channels(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="modality names"):
        write_nifti(tmp_path / "a.nii", np.ones((2, 3, 4, 2)), np.eye(4), modalities=["T1"])


def test_an_older_file_survives_a_failed_write(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", numbers(), OBLIQUE)
    before = path.read_bytes()
    with pytest.raises(OutputError):
        write_nifti(path, np.full(SHAPE, np.inf), OBLIQUE)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii.gz"]


def test_all_orientations_are_written_and_read_again(tmp_path: Path) -> None:
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.zeros((4, 4))
            affine[list(order), range(3)] = np.array(signs) * (1.0, 1.5, 2.0)
            affine[:, 3] = (-10, 20, 30, 1)
            path = write_nifti(tmp_path / "a.nii", numbers(), affine)
            np.testing.assert_array_equal(read_nifti(path).affine, affine)
            assert int(nib.load(path).header["qform_code"]) == 1
