"""Figures: orientation, colors and aspect ratio, read from the pixels of the PNG."""

from __future__ import annotations

import dataclasses
import functools
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from neuroxai.core.errors import OutputError
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.render import HeatMap, Scan, draw_modalities, draw_planes
from neuroxai.render.focus import axial_slice, center_point
from neuroxai.render.montage import Montage
from neuroxai.render.planes import brain_box

SHAPE = (30, 36, 24)
SPACING = (2.0, 1.5, 3.0)


def brain() -> np.ndarray:
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    return ((x**2 + y**2 + z**2) < 0.9).astype(np.float32)


def scan(**more: Any) -> Scan:
    volume = brain()
    gray = volume * np.linspace(0.4, 1.0, SHAPE[0], dtype=np.float32)[:, None, None]
    return Scan("case", {"T1": gray, "FLAIR": 2 * gray}, SPACING, **more)


def blob(at: tuple[int, int, int], size: int = 2) -> np.ndarray:
    values = np.zeros(SHAPE, dtype=np.float32)
    values[tuple(slice(v - size, v + size + 1) for v in at)] = 1
    return values


def cam(values: np.ndarray) -> HeatMap:
    return HeatMap("grad_cam", "Grad-CAM", values[None], "evidence", quantity="activation")


def pixels(path: Path) -> np.ndarray:
    return np.round(imread(path)[..., :3] * 255).astype(int)


def near(picture: np.ndarray, color: tuple[int, ...], tolerance: int = 6) -> np.ndarray:
    hit: np.ndarray = (np.abs(picture - np.array(color)) <= tolerance).all(axis=-1)
    return hit


ENDS = "against", "for"
RED, BLUE, YELLOW, WHITE = (255, 59, 48), (46, 134, 255), (255, 230, 0), (255, 255, 255)


def drawn(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], object]) -> Montage:
    """Return the montage that a drawing function was about to save."""
    kept: list[Montage] = []
    monkeypatch.setattr(Montage, "save", lambda self, path: kept.append(self))
    draw()
    monkeypatch.undo()
    return kept[0]


def panels(montage: Montage, path: Path, column: str) -> list[np.ndarray]:
    """Return the pixels of a column's panels, cut out of the PNG."""
    montage.save(path)
    picture = pixels(path)
    height, width, _ = picture.shape
    found, axes = [], iter(montage.figure().axes)
    for block in montage.blocks:
        for each in block.columns:
            for _ in each.panels:
                box = next(axes).get_position()
                if each.title == column:
                    rows = slice(round((1 - box.y1) * height), round((1 - box.y0) * height))
                    found.append(picture[rows, round(box.x0 * width) : round(box.x1 * width)])
            if each.limits:
                next(axes)  # the color bar
    return found


def hot(panel: np.ndarray) -> tuple[float, float]:
    """Center of red, as fractions of the panel from the top and the left."""
    rows, columns = np.nonzero(near(panel, RED))
    return rows.mean() / panel.shape[0], columns.mean() / panel.shape[1]


@pytest.mark.parametrize("corner", list(np.ndindex(2, 2, 2)), ids=str)
def test_left_of_the_patient_is_on_the_right_of_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, corner: tuple[int, ...]
) -> None:
    x, y, z = (round(n * (0.68 if c else 0.3)) for c, n in zip(corner, SHAPE, strict=True))
    right, front, head = corner
    heat = [cam(blob((x, y, z)))]
    montage = drawn(
        monkeypatch, lambda: draw_planes(scan(), heat, "HGG", Path("p.png"), modality="T1")
    )
    axial, coronal, sagittal = map(hot, panels(montage, tmp_path / "p.png", "Grad-CAM"))
    assert (axial[1] < 0.5) == bool(right)
    assert (coronal[1] < 0.5) == bool(right)
    assert (axial[0] < 0.5) == bool(front)
    assert (sagittal[1] < 0.5) == bool(front)
    assert (coronal[0] < 0.5) == bool(head)
    assert (sagittal[0] < 0.5) == bool(head)
    montage = drawn(monkeypatch, lambda: draw_modalities(scan(), heat, "HGG", Path("m.png")))
    (panel,) = panels(montage, tmp_path / "m.png", "Grad-CAM")
    assert (hot(panel)[1] < 0.5) == bool(right)


def test_panels_have_the_aspect_of_the_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heat = [cam(blob((9, 12, 8)))]
    montage = drawn(
        monkeypatch, lambda: draw_planes(scan(), heat, "HGG", Path("p.png"), modality="T1")
    )
    inside = np.argwhere(brain() > 0)
    low = np.maximum(inside.min(axis=0) - np.ceil(6 / np.array(SPACING)), 0)
    high = np.minimum(inside.max(axis=0) + np.ceil(6 / np.array(SPACING)) + 1, SHAPE)
    x, y, z = (high - low) * SPACING
    shapes = [panel.shape for panel in panels(montage, tmp_path / "p.png", "Grad-CAM")]
    for (rows, columns, _), (high_mm, wide_mm) in zip(
        shapes, ((y, x), (z, x), (z, y)), strict=True
    ):
        assert columns / rows == pytest.approx(wide_mm / high_mm, rel=0.03)


def test_red_is_for_the_target_and_blue_against_it_over_the_faint_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.zeros((1, *SHAPE), dtype=np.float32)
    values[0, :, 24:, 12], values[0, :, :12, 12] = 1.0, -0.5  # front, back
    values.flags.writeable = False
    heat = HeatMap("vanilla_gradient", "Vanilla gradient", values, "signed", ("T1",))
    montage = drawn(monkeypatch, lambda: draw_modalities(scan(), [heat], "HGG", Path("m.png")))
    (panel,) = panels(montage, tmp_path / "m.png", "Vanilla gradient")
    (plain, *_) = panels(montage, tmp_path / "m.png", "Scan")
    height, width, _ = panel.shape
    front = panel[height // 6, width // 2]
    assert near(front, RED, 1), "front is up, and the largest value has the full color"
    # Half of the largest value is half blue over the scan, which has 45 % of its brightness.
    back = panel[5 * height // 6, width // 2]
    faint = 0.45 * plain[5 * height // 6, width // 2]
    np.testing.assert_allclose(back, 0.5 * np.array(BLUE) + 0.5 * faint, atol=3)
    middle = panel[height // 2, width // 2 - 20]
    np.testing.assert_allclose(middle, 0.45 * plain[height // 2, width // 2 - 20], atol=2)
    assert plain[height // 2, width // 2 - 20].min() > 60, "the middle shows the scan"


def test_outlines_of_prediction_and_truth_are_at_the_edges_of_their_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicted, truth = (np.zeros(SHAPE, dtype=np.uint8) for _ in range(2))
    predicted[8:13, 22:29, 9:14] = 3
    truth[18:24, 22:29, 9:14] = 3
    part = scan(prediction=predicted, truth=truth)
    heat = HeatMap("x", "Map", np.full((1, *SHAPE), 1e-9), "signed", ("T1",))
    heat.values[0, 15, 30, 11] = 1.0
    montage = drawn(monkeypatch, lambda: draw_modalities(part, [heat], "ET", Path("m.png")))
    (panel,) = panels(montage, tmp_path / "m.png", "Map")
    box = brain_box(part.modalities.values(), SPACING)
    across = panel.shape[1] / (box[0].stop - box[0].start)
    upward = panel.shape[0] / (box[1].stop - box[1].start)
    for color, (low, high) in ((YELLOW, (8, 13)), (WHITE, (18, 24))):
        # The letters are white too, and at the edges of the panel.
        rows, columns = np.nonzero(near(panel[:, 30:-30], color, 60))
        columns = columns + 30
        # High indices are on the left of the image and at its top.
        left, right = ((box[0].stop - edge) * across for edge in (high, low))
        top, bottom = ((box[1].stop - edge) * upward for edge in (29, 22))
        assert (columns.min(), columns.max()) == pytest.approx((left, right), abs=3)
        assert (rows.min(), rows.max()) == pytest.approx((top, bottom), abs=3)
        edge = panel[round(top) : round(bottom), round(left) - 2 : round(left) + 3]
        at_left = near(edge, color, 60)
        share = at_left.any(axis=1).mean()
        assert share > 0.9 if color == YELLOW else 0.3 < share < 0.9, "solid and dashed"
    assert [name for name, _ in montage.lines] == ["ET in the prediction", "ET in the truth"]


@pytest.mark.parametrize("where", ["prediction", "truth", "lesion 2"])
def test_the_mask_of_a_restricted_target_has_an_outline_or_is_named(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[6:12, 14:22, 9:14] = 2
    asked = labels > 0
    asked[6:8] = False  # the network's grid is coarser
    part = scan(
        prediction=labels, truth=np.roll(labels, 1, axis=0), target_mask=asked,
        target_mask_name=where,
    )  # fmt: skip
    montage = drawn(
        monkeypatch, lambda: draw_modalities(part, [cam(labels * 1.0)], "WT", Path("m.png"))
    )
    (named,) = (name for name, _ in montage.lines if "where the target is averaged" in name)
    assert where in named
    assert len(montage.lines) == (3 if where == "lesion 2" else 2)


def test_each_shared_map_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    own = HeatMap("x", "Gradient", np.ones((2, *SHAPE)), "signed", ("T1", "FLAIR"))
    for background in (None, "T1"):
        draw = functools.partial(draw_modalities, background=background)
        maps = [own, cam(brain())]
        montage = drawn(monkeypatch, functools.partial(draw, scan(), maps, "WT", Path("m.png")))
        upper, lower = montage.blocks
        assert [column.title for column in upper.columns] == ["Scan", "Gradient"]
        assert [row.label for row in upper.rows] == ["T1", "FLAIR"]
        assert [column.title for column in lower.columns] == ["Grad-CAM"]
        assert [row.label for row in lower.rows] == [background or "FLAIR"]
        gray = upper.columns[0].panels[0 if background else 1].gray
        assert gray is not None
        np.testing.assert_array_equal(lower.columns[0].panels[0].gray, gray)
    montage = drawn(monkeypatch, lambda: draw_modalities(scan(), [cam(brain())], "WT", Path("m")))
    assert [[c.title for c in block.columns] for block in montage.blocks] == [
        ["T1", "FLAIR"], ["Grad-CAM"],
    ]  # fmt: skip


def test_a_mark_is_written_across_every_panel_of_its_map(monkeypatch: pytest.MonkeyPatch) -> None:
    marked = dataclasses.replace(cam(brain()), title="Marked", mark="not above chance")
    montage = drawn(
        monkeypatch,
        lambda: draw_planes(scan(), [cam(brain()), marked], "WT", Path("p"), modality="T1"),
    )
    texts = [
        [text for text in axes.texts if text.get_text() == "not above chance"]
        for axes in montage.figure().axes
    ]
    assert sum(map(len, texts)) == 3
    assert [len(found) for found in texts[6 + 1 : 9 + 1]] == [1, 1, 1], "behind a bar"


def words(montage: Montage) -> str:
    figure = montage.figure()
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return "\n".join(text.get_text() for text in texts)


def test_titles_labels_and_notes_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.zeros(SHAPE, dtype=np.uint8)
    truth[10:14, 10:16, 9:12] = 2
    truth[11:13, 11:14, 10] = 3
    heat = HeatMap(
        "smoothgrad", "SmoothGrad", np.ones((2, *SHAPE)), "signed", ("T1", "FLAIR"),
        unit="logit per mm", quantity="gradient", shares={"T1": 0.25, "FLAIR": 0.75},
    )  # fmt: skip
    facts = {"score": "3.2", "model": "deepseg-phantom", "completeness gap": "IG 0.4 %"}
    montage = drawn(
        monkeypatch,
        lambda: draw_modalities(
            scan(truth=truth), [heat, cam(truth * 1.0)], "ET", Path("x.png"), facts=facts
        ),
    )
    said = words(montage)
    for text in (
        "case", "target ET", "score 3.2", "model: deepseg-phantom", "completeness gap: IG 0.4 %",
        "T1", "FLAIR", "SmoothGrad", "Grad-CAM", "Truth", "99.5th percentile", NOT_FOR_CLINICAL_USE,
        "patient's right is on the left of the image", "Axial slice 10 (of 24", "2 x 1.5 x 3 mm",
        "edema (ED)", "enhancing tumor (ET)", "25%", "75%", "logit per mm",
        "Red is evidence for ET", "evidence against it is cut off", "more signal would raise",
    ):  # fmt: skip
        assert text in said, text
    assert "necrosis" not in said
    assert "Prediction" not in said


def test_direction_letters_are_at_the_edges_of_the_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    montage = drawn(
        monkeypatch, lambda: draw_planes(scan(), [], "HGG", Path("x.png"), modality="T1")
    )
    placed = [
        {text.get_text(): text.get_position() for text in axes.texts}
        for axes in montage.figure().axes
    ]
    assert [set(letters) for letters in placed] == [set("RLAP"), set("RLSI"), set("APSI")]
    for letters, sides in zip(placed, ("RLAP", "RLSI", "APSI"), strict=True):
        left, right, top, bottom = list(sides)
        assert letters[left][0] < 0.1 < 0.9 < letters[right][0]
        assert letters[bottom][1] < 0.1 < 0.9 < letters[top][1]


@pytest.mark.parametrize(
    ("spoil", "remark"),
    [
        (lambda v: v * 0, "all zero"),
        (lambda v: np.where(v == v.max(), np.nan, v), "not finite:"),
        (lambda v: np.where(v == v.max(), np.inf, v), "not finite:"),
    ],
)
def test_a_zero_or_nonfinite_map_is_replaced_by_a_remark(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[np.ndarray], np.ndarray], remark: str
) -> None:
    heat = cam(spoil(blob((9, 12, 8))))
    montage = drawn(monkeypatch, lambda: draw_modalities(scan(), [heat], "ET", Path("x.png")))
    (column,) = montage.blocks[1].columns
    assert column.limits is None
    assert all(panel.heat is None and remark in panel.remark for panel in column.panels)
    assert remark in words(montage)


def test_a_zero_slice_next_to_a_nonzero_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.stack([blob((9, 12, 8)), np.zeros(SHAPE)])
    heat = HeatMap("guided_backprop", "GBP", values, "signed", ("T1", "FLAIR"))
    montage = drawn(monkeypatch, lambda: draw_modalities(scan(), [heat], "ET", Path("x.png")))
    remarks = [panel.remark for panel in montage.blocks[0].columns[1].panels]
    assert remarks == ["", "zero in\nthis slice"]


def test_limits_are_computed_from_the_displayed_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    values = blob((9, 12, 8)) * 3
    values[..., 15:] = 0.25  # another slice is not shown; neither is its value
    values[0, 0, 16] = 99
    montage = drawn(
        monkeypatch,
        lambda: draw_modalities(
            scan(truth=(blob((9, 12, 8)) * 3).astype(np.uint8)), [cam(values)], "ET", Path("x.png")
        ),
    )
    *_, column = montage.blocks[1].columns
    assert column.limits is not None
    assert column.limits.vmax == 3.0


def test_rows_are_the_modalities_of_the_network_and_repeated_channels_are_summed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(1).normal(size=(3, *SHAPE[:2], 1))
    heat = HeatMap("vanilla_gradient", "VG", values, "signed", ("FLAIR",) * 3)
    montage = drawn(
        monkeypatch,
        lambda: draw_modalities(
            scan(slice_only=11), [heat], "HGG", Path("x.png"), facts={"probability": "0.97"}
        ),
    )
    assert [row.label for row in montage.blocks[0].rows] == ["FLAIR"]
    shown = montage.blocks[0].columns[1].panels[0].heat
    assert shown is not None
    total = values.sum(axis=0)[::-1, ::-1, 0].T
    assert shown.shape <= total.shape
    assert np.isin(shown, total).all()
    assert "FLAIR is the input of several" in words(montage)
    assert "probability 0.97" in montage.title
    assert "Axial slice 11 (of 24" in words(montage)


@pytest.mark.parametrize("where", ["truth", "prediction"])
def test_the_slice_with_the_largest_area(where: str) -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    rng = np.random.default_rng(5)
    labels[5:15, 5:15, 4:20] = rng.integers(0, 4, size=(10, 10, 16))
    labels[5:15, 5:15, 7] = 2  # the largest whole tumor, no enhancement
    for target, classes in (("ET", (3,)), ("WT", (1, 2, 3)), ("region TC in box", (1, 3))):
        areas = [sum((labels[..., k] == c).sum() for c in classes) for k in range(SHAPE[2])]
        chosen, reason = axial_slice(scan(**{where: labels}), [], target)
        assert chosen == areas.index(max(areas))
        assert where in reason


def test_without_labels_the_slice_with_the_largest_attribution() -> None:
    values = np.zeros((2, *SHAPE))
    values[1, 3, 4, 17], values[0, 5, 5, 6] = -5.0, 3.0
    heat = HeatMap("vanilla_gradient", "VG", values, "signed", ("T1", "FLAIR"))
    assert axial_slice(scan(), [heat], "ET")[0] == 17
    assert axial_slice(scan(), [], "ET") == (12, "center of the volume")
    assert center_point(scan(), [heat], "ET")[0] == (3, 4, 17)
    assert center_point(scan(), [], "ET")[0] == (15, 18, 12)


@pytest.mark.parametrize(
    ("scale", "numbers"),
    [
        (
            2.5e-7,
            ["\N{MINUS SIGN}2.5", "0", "2.5", *ENDS, "\N{MULTIPLICATION SIGN}10⁻⁷ logit per voxel"],
        ),
        (0.125, ["\N{MINUS SIGN}0.125", "0", "0.125", *ENDS, "logit per voxel"]),
        (
            4.2e12,
            ["\N{MINUS SIGN}4.2", "0", "4.2", *ENDS, "\N{MULTIPLICATION SIGN}10¹² logit per voxel"],
        ),
    ],
)
def test_the_color_bar_is_labeled(
    monkeypatch: pytest.MonkeyPatch, scale: float, numbers: list[str]
) -> None:
    heat = HeatMap("x", "Map", np.full((1, *SHAPE), scale), "signed", ("T1",), "logit per voxel")
    montage = drawn(monkeypatch, lambda: draw_modalities(scan(), [heat], "ET", Path("x.png")))
    bars = [text.get_text() for text in montage.figure().texts if text.get_fontsize() == 7.5]
    assert bars == numbers


def chunks(path: Path) -> list[bytes]:
    data, at, names = path.read_bytes(), 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        names.append(data[at + 4 : at + 8])
        at += 12 + length
    return names


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    heat = [cam(blob((9, 12, 8)))]
    one = draw_modalities(scan(), heat, "ET", tmp_path / "1.png")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 40}):
        two = draw_modalities(scan(), heat, "ET", tmp_path / "deep" / "2.png")
    assert one.read_bytes() == two.read_bytes()
    assert set(chunks(one)) == {b"IHDR", b"pHYs", b"IDAT", b"IEND"}
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["1.png", "2.png"]
    assert 1600 <= imread(one).shape[1] <= 2600


@pytest.mark.parametrize("name", ["$x_{", "患者 ä 🧠", "a\nb\tc\x00", "n" * 300, "\\frac{1}{2}"])
def test_awkward_names_are_drawn(tmp_path: Path, name: str) -> None:
    odd = Scan(name, {"T1": brain(), name: brain()}, SPACING)
    heat = HeatMap("x", name, np.ones((1, *SHAPE)), "signed", (name,))
    path = draw_modalities(odd, [heat], name, tmp_path / "m.png", facts={name: name})
    assert path.stat().st_size > 1000


def test_a_failed_drawing_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.backends.backend_agg.FigureCanvasAgg.print_png", broken)
    with pytest.raises(OutputError, match=r"m\.png: cannot be written \(No space left"):
        draw_modalities(scan(), [], "ET", tmp_path / "m.png")
    assert list(tmp_path.iterdir()) == []


SMALL = np.zeros((3, 4, 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modalities": {}}, "no modality to draw"),
        ({"modalities": {"T1": SMALL, "FLAIR": SMALL[1:]}}, "FLAIR has shape"),
        ({"modalities": {"T1": SMALL[0]}}, "three positive sizes"),
        ({"spacing": (1.0, 0.0, 1.0)}, "three positive sizes"),
        ({"truth": SMALL[:, :, :2]}, "truth has shape"),
        ({"prediction": SMALL + 7}, "invalid class indices"),
        ({"slice_only": 5}, "slice 5 is outside"),
    ],
)
def test_an_inconsistent_scan_is_refused(change: Mapping[str, Any], message: str) -> None:
    parts: dict[str, Any] = {"name": "case-7", "modalities": {"T1": SMALL}, **change}
    with pytest.raises(OutputError, match=message) as error:
        draw_modalities(Scan(**parts), [], "ET", Path("never.png"))
    assert str(error.value).startswith("case-7: ")
    assert not Path("never.png").exists()


@pytest.mark.parametrize(
    ("values", "channels", "message"),
    [
        (SMALL, ("T1",), r"expected \(C, X, Y, Z\)"),
        (SMALL[None, :2], ("T1",), "on the grid of the scan"),
        (SMALL[None, ..., :1], ("T1",), "on the grid of the scan"),
        (np.stack([SMALL] * 2), ("T1",), "2 channels and 1 channel names"),
        (SMALL[None], ("t1",), "did you mean 'T1'"),
    ],
)
def test_an_inconsistent_map_is_refused(
    values: np.ndarray, channels: tuple[str, ...], message: str
) -> None:
    heat = HeatMap("smoothgrad", "SmoothGrad", values, "signed", channels)
    with pytest.raises(OutputError, match=message):
        draw_modalities(Scan("c", {"T1": SMALL}), [heat], "ET", Path("never.png"))


def test_planes_need_a_known_modality_and_a_volume() -> None:
    with pytest.raises(OutputError, match="did you mean 'FLAIR'"):
        draw_planes(scan(), [], "ET", Path("never.png"), modality="flair")
    with pytest.raises(OutputError, match="a single plane"):
        draw_planes(scan(slice_only=3), [], "ET", Path("never.png"), modality="FLAIR")


def test_importing_the_package_loads_no_drawing_library() -> None:
    code = (
        "import sys, neuroxai.render; "
        "sys.exit(', '.join({'matplotlib', 'jinja2', 'scipy'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_slices_and_outline_show_the_target_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another lesion of the same class is larger and at a different position."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[18:28, 18:28, 14:20] = 2
    labels[9:12, 12:16, 6:9] = 2
    asked = np.zeros(SHAPE, dtype=bool)
    asked[9:12, 12:16, 6:9] = True
    part = scan(truth=labels, target_mask=asked, target_mask_name="lesion 2")
    heats = [cam(labels.astype(np.float32))]
    index, reason = axial_slice(part, heats, "WT")
    assert (6 <= index < 9, reason) == (True, "largest area of lesion 2")
    point, reason = center_point(part, heats, "WT")
    assert (bool(asked[point]), reason) == (True, "center of lesion 2")
    montage = drawn(
        monkeypatch, lambda: draw_planes(part, heats, "WT", Path("p.png"), modality="T1")
    )
    (outlines,) = (
        column.panels[0].outlines for column in montage.blocks[0].columns
        if column.title == "Grad-CAM"
    )  # fmt: skip
    assert [int(outline.mask.sum()) for outline in outlines] == [3 * 4, 3 * 4], "axial slice"
    assert "lesion 2, where the target is averaged" in words(montage)
    whole = drawn(monkeypatch, lambda: draw_modalities(scan(), heats, "WT", Path("p.png")))
    assert "averaged" not in words(whole)


def test_an_oblique_scan_has_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    upright, tilted = scan(), scan(obliquity=44.3)
    montage = drawn(monkeypatch, lambda: draw_modalities(upright, [], "WT", Path("p.png")))
    assert "tilted" not in words(montage)
    montage = drawn(monkeypatch, lambda: draw_modalities(tilted, [], "WT", Path("p.png")))
    assert "tilted by 44°" in words(montage)
