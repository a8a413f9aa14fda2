"""Figures: orientation, colors and aspect ratio, read from the pixels of the PNG."""

from __future__ import annotations

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
from scipy import ndimage

from neuroxai.core.errors import OutputError
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.render import HeatMap, Scan, draw_modalities, draw_planes
from neuroxai.render import figures as room
from neuroxai.render.montage import Montage

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
    return HeatMap("grad_cam", "Grad-CAM", values[None], signed=False)


def pixels(path: Path) -> np.ndarray:
    return np.round(imread(path)[..., :3] * 255).astype(int)


def near(picture: np.ndarray, color: tuple[int, ...], tolerance: int = 6) -> np.ndarray:
    hit: np.ndarray = (np.abs(picture - np.array(color)) <= tolerance).all(axis=-1)
    return hit


def cam_panels(picture: np.ndarray) -> list[np.ndarray]:
    """Cut out the Grad-CAM panels, top to bottom: large rectangles of the map's zero color."""
    parts, _ = ndimage.label(near(picture, (0, 0, 4), 2) & (picture[..., 2] >= 2))
    boxes = [
        box for number, box in enumerate(ndimage.find_objects(parts), start=1)
        if (parts[box] == number).sum() > 8000
    ]  # fmt: skip
    return [picture[box] for box in sorted(boxes, key=lambda box: box[0].start)]


def hot(panel: np.ndarray) -> tuple[float, float]:
    """Center of the brightest color, as fractions of the panel from the top and the left."""
    rows, columns = np.nonzero(near(panel, (252, 255, 164)))
    return rows.mean() / panel.shape[0], columns.mean() / panel.shape[1]


@pytest.mark.parametrize("corner", list(np.ndindex(2, 2, 2)), ids=str)
def test_left_of_the_patient_is_on_the_right_of_the_image(
    tmp_path: Path, corner: tuple[int, ...]
) -> None:
    x, y, z = (round(n * (0.68 if c else 0.3)) for c, n in zip(corner, SHAPE, strict=True))
    right, front, head = corner
    values = blob((x, y, z))
    draw_planes(scan(), [cam(values)], "HGG", tmp_path / "p.png", modality="T1")
    axial, coronal, sagittal = (hot(panel) for panel in cam_panels(pixels(tmp_path / "p.png")))
    assert (axial[1] < 0.5) == bool(right)
    assert (coronal[1] < 0.5) == bool(right)
    assert (axial[0] < 0.5) == bool(front)
    assert (sagittal[1] < 0.5) == bool(front)
    assert (coronal[0] < 0.5) == bool(head)
    assert (sagittal[0] < 0.5) == bool(head)
    draw_modalities(scan(), [cam(values)], "HGG", tmp_path / "m.png")
    panels = cam_panels(pixels(tmp_path / "m.png"))
    assert len(panels) == 2
    assert all((hot(panel)[1] < 0.5) == bool(right) for panel in panels)


def test_panels_have_the_aspect_of_the_patient(tmp_path: Path) -> None:
    draw_planes(scan(), [cam(blob((9, 12, 8)))], "HGG", tmp_path / "p.png", modality="T1")
    inside = np.argwhere(brain() > 0)
    low = np.maximum(inside.min(axis=0) - np.ceil(6 / np.array(SPACING)), 0)
    high = np.minimum(inside.max(axis=0) + np.ceil(6 / np.array(SPACING)) + 1, SHAPE)
    x, y, z = (high - low) * SPACING
    shapes = [panel.shape for panel in cam_panels(pixels(tmp_path / "p.png"))]
    for (rows, columns, _), (high_mm, wide_mm) in zip(
        shapes, ((y, x), (z, x), (z, y)), strict=True
    ):
        assert columns / rows == pytest.approx(wide_mm / high_mm, rel=0.03)


def test_sign_is_kept_and_colors_are_those_of_the_values(tmp_path: Path) -> None:
    values = np.zeros((1, *SHAPE), dtype=np.float32)
    values[0, :, :18, 12], values[0, :, 18:, 12] = -0.5, 1.0  # back half, front half
    values.flags.writeable = False
    heat = HeatMap("vanilla_gradient", "Vanilla gradient", values, signed=True, channels=("T1",))
    draw_modalities(scan(), [heat], "HGG", tmp_path / "m.png")
    picture = pixels(tmp_path / "m.png")
    table = mpl.colormaps["RdBu_r"]
    for value in (1.0, -0.5):
        color = tuple(round(255 * v) for v in table((value + 1) / 2)[:3])
        rows, _ = np.nonzero(near(picture, color, 1))
        assert len(rows) > 5000, value
    red = np.nonzero(near(picture, tuple(round(255 * v) for v in table(1.0)[:3]), 1))[0].mean()
    blue = np.nonzero(near(picture, tuple(round(255 * v) for v in table(0.25)[:3]), 1))[0].mean()
    assert red < blue  # the front is up


def drawn(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], object]) -> Montage:
    """Return the montage that a drawing function was about to save."""
    kept: list[Montage] = []
    monkeypatch.setattr(Montage, "save", lambda self, path: kept.append(self))
    draw()
    monkeypatch.undo()
    return kept[0]


def words(montage: Montage) -> str:
    figure = montage.figure()
    texts = [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]
    return "\n".join(text.get_text() for text in texts)


def test_titles_labels_and_notes_are_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = np.zeros(SHAPE, dtype=np.uint8)
    truth[10:14, 10:16, 9:12] = 2
    truth[11:13, 11:14, 10] = 3
    heat = HeatMap("smoothgrad", "SmoothGrad", np.ones((2, *SHAPE)), True, ("T1", "FLAIR"))
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
        "edema (ED)", "enhancing tumor (ET)",
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
    column = montage.columns[1]
    assert column.limits is None
    assert all(panel.heat is None and remark in panel.remark for panel in column.panels)
    assert all(panel.heat is None for panel in montage.columns[2].panels)  # the overlay
    assert remark in words(montage)


def test_a_zero_slice_next_to_a_nonzero_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.stack([blob((9, 12, 8)), np.zeros(SHAPE)])
    heat = HeatMap("guided_backprop", "GBP", values, True, ("T1", "FLAIR"))
    montage = drawn(monkeypatch, lambda: draw_modalities(scan(), [heat], "ET", Path("x.png")))
    assert [panel.remark for panel in montage.columns[1].panels] == ["", "zero in\nthis slice"]


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
    assert montage.columns[1].limits is not None
    assert montage.columns[1].limits.vmax == 3.0


def test_rows_are_the_modalities_of_the_network_and_repeated_channels_are_summed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(1).normal(size=(3, *SHAPE[:2], 1))
    heat = HeatMap("vanilla_gradient", "VG", values, True, ("FLAIR",) * 3)
    montage = drawn(
        monkeypatch,
        lambda: draw_modalities(
            scan(slice_only=11), [heat], "HGG", Path("x.png"), facts={"probability": "0.97"}
        ),
    )
    assert [row.label for row in montage.rows] == ["FLAIR"]
    shown = montage.columns[1].panels[0].heat
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
        chosen, reason = room.axial_slice(scan(**{where: labels}), [], target)
        assert chosen == areas.index(max(areas))
        assert where in reason


def test_without_labels_the_slice_with_the_largest_attribution() -> None:
    values = np.zeros((2, *SHAPE))
    values[1, 3, 4, 17], values[0, 5, 5, 6] = -5.0, 3.0
    heat = HeatMap("vanilla_gradient", "VG", values, True, ("T1", "FLAIR"))
    assert room.axial_slice(scan(), [heat], "ET")[0] == 17
    assert room.axial_slice(scan(), [], "ET") == (12, "center of the volume")
    assert room._center(scan(), [heat], "ET")[0] == (3, 4, 17)
    assert room._center(scan(), [], "ET")[0] == (15, 18, 12)


@pytest.mark.parametrize(
    ("scale", "numbers"),
    [
        (2.5e-7, ["\N{MINUS SIGN}2.5", "0", "2.5", "\N{MULTIPLICATION SIGN}10⁻⁷"]),
        (0.125, ["\N{MINUS SIGN}0.125", "0", "0.125"]),
        (4.2e12, ["\N{MINUS SIGN}4.2", "0", "4.2", "\N{MULTIPLICATION SIGN}10¹²"]),
    ],
)
def test_the_color_bar_is_labeled(
    monkeypatch: pytest.MonkeyPatch, scale: float, numbers: list[str]
) -> None:
    heat = HeatMap("x", "Map", np.full((1, *SHAPE), scale), True, ("T1",))
    montage = drawn(monkeypatch, lambda: draw_modalities(scan(), [heat], "ET", Path("x.png")))
    bars = [text.get_text() for text in montage.figure().texts if text.get_fontsize() == 7.5]
    assert bars == numbers * 2  # the map's column and the overlay's


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
    heat = HeatMap("x", name, np.ones((1, *SHAPE)), True, (name,))
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
    heat = HeatMap("smoothgrad", "SmoothGrad", values, True, channels)
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


def test_slices_and_column_show_the_target_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another lesion of the same class is larger and at a different position."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[18:28, 18:28, 14:20] = 2
    labels[9:12, 12:16, 6:9] = 2
    asked = np.zeros(SHAPE, dtype=bool)
    asked[9:12, 12:16, 6:9] = True
    part = scan(truth=labels, target_mask=asked, target_mask_name="lesion 2")
    heats = [cam(labels.astype(np.float32))]
    index, reason = room.axial_slice(part, heats, "WT")
    assert (6 <= index < 9, reason) == (True, "largest area of lesion 2")
    point, reason = room._center(part, heats, "WT")
    assert (bool(asked[point]), reason) == (True, "center of lesion 2")
    montage = drawn(
        monkeypatch, lambda: draw_planes(part, heats, "WT", Path("p.png"), modality="T1")
    )
    assert [column.title for column in montage.columns][:2] == ["Input", "Restricted to\nlesion 2"]
    whole, dimmed = (column.panels[0].gray for column in montage.columns[:2])
    assert whole is not None
    assert dimmed is not None
    kept = dimmed == whole
    assert int((kept & (whole > 0)).sum()) == 3 * 4  # of the axial slice
    np.testing.assert_allclose(dimmed[~kept], 0.35 * whole[~kept])
    assert "Restricted to" not in words(
        drawn(monkeypatch, lambda: draw_modalities(scan(), heats, "WT", Path("p.png")))
    )


def test_an_oblique_scan_has_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    upright, tilted = scan(), scan(obliquity=44.3)
    montage = drawn(monkeypatch, lambda: draw_modalities(upright, [], "WT", Path("p.png")))
    assert "tilted" not in words(montage)
    montage = drawn(monkeypatch, lambda: draw_modalities(tilted, [], "WT", Path("p.png")))
    assert "tilted by 44°" in words(montage)
