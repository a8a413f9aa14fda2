"""Transforms of bundles: images, grids and ways back equal those of MONAI's own transforms."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import monai.transforms
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from neuroxai.core.errors import CaseError, ModelError
from neuroxai.data.case import Case
from neuroxai.data.layouts import LAYOUTS
from neuroxai.data.preparation import Prepared
from neuroxai.data.preprocessing import Preprocessing
from neuroxai.models.monai_transforms import read_transforms

NAMES = ("T1", "T2")
SHAPE = (19, 23, 14)
COS, SIN = np.cos(0.1), np.sin(0.1)
AFFINE = np.eye(4)
AFFINE[:3, :3] = np.array([[-COS, SIN, 0], [SIN, COS, 0], [0, 0, 1]]) @ np.diag([1.2, 0.9, 2.1])
AFFINE[:3, 3] = 30, -20, 5


def scan() -> NDArray[np.float32]:
    """Two oblique volumes whose background is 0."""
    rng = np.random.default_rng(0)
    image = (rng.integers(1, 300, (2, *SHAPE)) * (rng.random((2, *SHAPE)) > 0.3)).astype(np.float32)
    image[:, :2], image[:, :, -3:] = 0, 0
    return image


def prepared(chain: list[dict[str, Any]], image: NDArray[np.float32], **more: Any) -> Prepared:
    found = read_transforms(chain, Path("inference.json"), len(image), **more)
    names = NAMES[: len(image)]
    recipe = Preprocessing.from_dict({"modalities": list(names), "divisor": 1, **found.settings})
    volumes = dict(zip(names, image, strict=True))
    return recipe.prepare(Case("a", volumes, AFFINE, LAYOUTS["plain"]))


def monai_image(chain: list[dict[str, Any]], image: NDArray[np.float32]) -> MetaTensor:
    """Return what MONAI's dictionary transforms return."""
    data: dict[str, Any] = {"image": MetaTensor(torch.tensor(image), affine=torch.tensor(AFFINE))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table in chain:
            options = {key: value for key, value in table.items() if key != "_target_"}
            if isinstance(options.get("select_fn"), str):
                options["select_fn"] = lambda v: v > 250
            data = getattr(monai.transforms, table["_target_"])(**{"keys": "image", **options})(
                data
            )
    image_made: MetaTensor = data["image"]
    return image_made


def t(target: str, **options: Any) -> dict[str, Any]:
    return {"_target_": target, **options}


LINE = {"a_min": 10, "a_max": 200}
CHAINS: dict[str, list[dict[str, Any]]] = {
    "normalize": [t("NormalizeIntensityd")],
    "normalize by channel": [t("NormalizeIntensityd", channel_wise=True)],
    "normalize nonzero": [t("NormalizeIntensityd", nonzero=True, channel_wise=True)],
    "normalize nonzero jointly": [t("NormalizeIntensityd", nonzero=True)],
    "normalize by numbers": [t("NormalizeIntensityd", subtrahend=3.0, divisor=7, nonzero=True)],
    "normalize by numbers of channels": [
        t("NormalizeIntensityd", subtrahend=[3.0, 5.0], divisor=[2.0, 0.0], channel_wise=True)
    ],
    "scale": [t("ScaleIntensityd")],
    "scale to a range": [t("ScaleIntensityd", minv=-1.0, maxv=2.0, channel_wise=True)],
    "scale by a factor": [t("ScaleIntensityd", minv=None, maxv=None, factor=0.5)],
    "range": [t("ScaleIntensityRanged", **LINE)],
    "range clipped": [t("ScaleIntensityRanged", **LINE, b_min=-1.0, b_max=1.0, clip=True)],
    "range clipped above": [t("ScaleIntensityRanged", **LINE, b_max=0.5, clip=True)],
    "percentiles": [
        t("ScaleIntensityRangePercentilesd", lower=1, upper=99, b_min=0, b_max=1, clip=True)
    ],
    "percentiles by channel": [
        t("ScaleIntensityRangePercentilesd", lower=5, upper=90, b_min=-1, b_max=3, relative=True,
          channel_wise=True)
    ],
    "clip": [t("ClipIntensityPercentilesd", lower=2, upper=None, channel_wise=True)],
    "closest axes": [t("Orientationd", as_closest_canonical=True)],
    **{f"axes {axes}": [t("Orientationd", axcodes=axes)] for axes in ("LPS", "SPR", "AIL")},
    "spacing": [t("Spacingd", pixdim=[1.0, 1.0, 1.0])],
    "spacing of two axes": [t("Spacingd", pixdim=[2.0, 2.5, -1.0])],
    "spacing of 1 mm": [t("Spacingd", pixdim=1.0, mode="bilinear", align_corners=True)],
    "spacing nearest": [t("Spacingd", pixdim=[2.0, 0.7, 3.0], mode="nearest")],
    "spacing zeros": [t("Spacingd", pixdim=[1.0, 1.0, 1.0], padding_mode="zeros")],
    "spacing cubic": [t("Spacingd", pixdim=[1.0, 1.0, 1.0], mode=3)],
    "spacing within limits": [
        t("Spacingd", pixdim=[1.0, 1.0, 1.0], min_pixdim=[0.8, 0.95, 0.8],
          max_pixdim=[1.3, 1.2, 1.2])
    ],
    "spacing, then axes": [
        t("Spacingd", pixdim=[1.0, 1.5, 3.0]), t("Orientationd", axcodes="SAL")
    ],
    **{f"resize {mode}": [t("Resized", spatial_size=[24, 11, 17], mode=mode)]
       for mode in ("area", "trilinear", "nearest", "nearest-exact")},
    "resize corners": [
        t("Resized", spatial_size=[24, 11, -1], mode="trilinear", align_corners=True)
    ],
    "resize longest": [t("Resized", spatial_size=16, size_mode="longest", mode="trilinear")],
    "foreground": [t("CropForegroundd", source_key="image")],
    "foreground of a channel": [
        t("CropForegroundd", source_key="image", channel_indices=1, margin=[1, 2, 3],
          k_divisible=[4, 8, 4])
    ],
    "foreground above": [
        t("CropForegroundd", source_key="image", select_fn="$lambda x: x > 250", margin=3,
          allow_smaller=True)
    ],
    "pad": [t("SpatialPadd", spatial_size=[24, 20, 19])],
    "pad at the end": [t("SpatialPadd", spatial_size=[24, -1, 19], method="end", value=7)],
    "multiple": [t("DivisiblePadd", k=[8, 16, 4])],
    "center": [t("CenterSpatialCropd", roi_size=[10, 40, 9])],
    "crop or pad": [t("ResizeWithPadOrCropd", spatial_size=[16, 32, 11])],
    "all": [
        t("Orientationd", axcodes="RAS"), t("Spacingd", pixdim=[1.5, 1.5, 1.5]),
        t("CropForegroundd", source_key="image", margin=2),
        t("ScaleIntensityRangePercentilesd", lower=1, upper=99, b_min=0, b_max=1),
        t("Resized", spatial_size=[16, 20, 12], mode="trilinear"),
        t("SpatialPadd", spatial_size=[20, 20, 20]),
        t("NormalizeIntensityd", nonzero=True, channel_wise=True),
    ],
}  # fmt: skip


@pytest.mark.parametrize("word", CHAINS)
def test_image_and_grid_equal_monais(word: str) -> None:
    want, got = monai_image(CHAINS[word], scan()), prepared(CHAINS[word], scan())
    assert got.x.shape[1:] == want.shape
    scale = float(want.abs().max())
    np.testing.assert_allclose(got.x[0].numpy(), want.numpy(), atol=3e-6 * scale)
    np.testing.assert_allclose(got.placement.network_affine, want.affine, atol=1e-9)


@pytest.mark.parametrize("word", CHAINS)
def test_maps_return_to_the_patients_grid(word: str) -> None:
    """A map that is linear in mm comes back as the same function; amounts keep their sum."""
    placement = prepared(CHAINS[word], scan()).placement
    direction = np.array([0.3, -0.7, 0.5])

    def linear(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
        index = np.moveaxis(np.indices(shape), 0, -1)
        values: NDArray[np.float64] = (index @ affine[:3, :3].T + affine[:3, 3]) @ direction
        return values

    mapped = placement.to_patient(linear(placement.grid, placement.network_affine), fill=np.nan)
    expected = linear(SHAPE, AFFINE)
    inside = ~np.isnan(mapped)
    # At the rim of a grid, positions outside take its edge.
    world = np.moveaxis(np.indices(SHAPE), 0, -1) @ AFFINE[:3, :3].T + AFFINE[:3, 3]
    affine = placement.reoriented_affine
    for move in placement.further:
        affine = affine @ move.matrix
        on_grid = (world - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
        inside &= ((on_grid > -1e-6) & (on_grid < np.array(move.grid) - 1 + 1e-6)).all(axis=-1)
    assert inside.sum() > 100
    np.testing.assert_allclose(mapped[inside], expected[inside], atol=1e-8)
    amounts = np.random.default_rng(1).random(placement.grid)
    if placement.padded:
        within = placement.to_network(np.ones(SHAPE, np.uint8))
        amounts *= within if not placement.resampled else 0
    total = placement.to_patient(amounts, amounts=True).sum()
    assert total == pytest.approx(amounts.sum(), rel=1e-9)


def test_concatenated_modalities() -> None:
    """Against MONAI's ConcatItemsd, with transforms of single modalities before and after."""
    image = scan()
    chain = [
        t("LoadImaged", keys=["a", "b", "label"]),
        t("Orientationd", keys=["a", "b", "label"], axcodes="RAS"),
        t("NormalizeIntensityd", keys=["a"], nonzero=True),
        t("ScaleIntensityd", keys="b"),
        t("CropForegroundd", keys=["a", "b"], source_key="b", margin=1, allow_smaller=True),
        t("ConcatItemsd", keys=["a", "b"], name="image"),
        t("DeleteItemsd", keys=["a", "b"]),
        t("ScaleIntensityd", keys="image", maxv=3.0),
    ]
    data: Any = {
        key: MetaTensor(torch.tensor(volume[None]), affine=torch.tensor(AFFINE))
        for key, volume in zip("ab", image, strict=True)
    }
    for table in chain[1:6]:
        options = {key: value for key, value in table.items() if key != "_target_"}
        if isinstance(options["keys"], list):
            options["keys"] = [key for key in options["keys"] if key != "label"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            data = getattr(monai.transforms, table["_target_"])(**options)(data)
    want = monai.transforms.ScaleIntensityd(keys="image", maxv=3.0)(data)["image"]
    got = prepared(chain, image)
    np.testing.assert_allclose(got.x[0].numpy(), want.numpy(), atol=1e-5)
    np.testing.assert_allclose(got.placement.network_affine, want.affine, atol=1e-9)


def test_the_margin_of_older_releases_ends_at_the_image() -> None:
    chain = [t("CropForegroundd", source_key="image", margin=4)]
    sizes = {
        version: tuple(prepared(chain, scan(), version=version).x.shape[2:])
        for version in ((1, 4, 0), (1, 5, 0), ())
    }
    assert sizes[1, 5, 0] == sizes[()] != sizes[1, 4, 0]
    assert all(a <= b for a, b in zip(sizes[1, 4, 0], SHAPE, strict=True))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (t("Lambdad", func="$lambda x: x"), "transform Lambdad is not supported; supported: "),
        (t("HistogramNormalized"), "HistogramNormalized is not supported"),
        (t("RandFlipd", prob=0.5), "RandFlipd is not supported"),
        (t("Spacingd", pixdim=[1, 1, 1], mode="bicubic"), "mode is 'bicubic', expected one of"),
        (t("Spacingd", pixdim=[1, 1]), r"pixdim is \[1, 1\], expected three"),
        (t("Spacingd", pixdim=[1, 1, 1], diagonal=True), "diagonal is True, expected False"),
        (t("Resized", spatial_size=[8, 8, 8], anti_aliasing=True), "anti_aliasing is True"),
        (
            t("SpatialPadd", spatial_size=[64] * 3, mode="edge"),
            "mode is 'edge', expected 'constant'",
        ),
        (t("NormalizeIntensityd", subtrahend=[1.0, 2.0]), "with channel_wise one per channel"),
        (t("CropForegroundd", source_key="image", select_fn="$f"), "expected a threshold"),
        (t("CropForegroundd", source_key="label"), "source_key is 'label'"),
        (t("ScaleIntensityRanged", a_min=1), "a_max is missing"),
        (t("ScaleIntensityd", keys=["t1c"]), "uses the keys t1c; expected image"),
        (t("ScaleIntensityd", new=1), "the option 'new' is not supported"),
        (t("ConcatItemsd", keys=["a", "b", "c"], name="image"), "joins a, b, c, but .* 2 channels"),
    ],
)
def test_what_cannot_be_translated_is_refused_by_name(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        read_transforms([table], Path("inference.json"), 2)


def test_grids_of_single_modalities_cannot_differ() -> None:
    chain = [
        t("Resized", keys="a", spatial_size=[8, 8, 8]),
        t("ConcatItemsd", keys=["a", "b"], name="image"),
    ]
    with pytest.raises(ModelError, match="changes the grid of a only; expected all of a, b"):
        read_transforms(chain, Path("inference.json"), 2)


def test_an_image_without_foreground_is_refused() -> None:
    with pytest.raises(CaseError, match="no voxel is above 500"):
        prepared([t("CropForegroundd", source_key="image", select_fn="$lambda v: v > 500")], scan())
