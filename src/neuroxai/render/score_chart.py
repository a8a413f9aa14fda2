"""Charts of an evaluation: scores of all cases, ROC, calibration and confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuroxai.core.errors import OutputError
from neuroxai.render.sheet import PAD, Footer, Header, Sheet, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, PANEL = 1500, 560  # px
_CURVES = ("#000000", "#009E73", "#E69F00", "#CC79A7", "#7F7F7F")
_DASHES = ("solid", "dashed", "dotted", "dashdot")
_INK, _POINT, _MEAN = "#222222", "#5B7A8C", "#000000"
"""Red and blue are left to evidence for and against a target."""


@dataclass(frozen=True, eq=False)
class ScorePanel:
    """Values of one metric for all cases, by group.

    Attributes
    ----------
    title
        Name of the metric with its unit.
    values
        Group name to the values of its cases.
    limits
        Limits of the axis; chosen from the values if None.
    """

    title: str
    values: Mapping[str, Sequence[float]]
    limits: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of a classifier.

    Attributes
    ----------
    roc
        Class name to 1 − specificity and sensitivity at every threshold.
    confidence, accuracy, count
        By bin of the predicted probability: its mean, the fraction of correct predictions, and
        the number of predictions.
    classes, confusion
        Class names, and the number of cases by true class (rows) and predicted class (columns).
    """

    roc: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    count: NDArray[np.int_]
    classes: Sequence[str]
    confusion: NDArray[np.int_]


def draw_scores(
    panels: Sequence[ScorePanel],
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Draw all cases as points, with the mean and quartiles of each group.

    Raises
    ------
    OutputError
        If there is nothing to draw, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> out = Path(tempfile.mkdtemp()) / "scores.png"
    >>> draw_scores([ScorePanel("Dice", {"WT": [0.9, 0.8]}, (0, 1))], out, title="net").name
    'scores.png'
    """
    if not panels or not all(panel.values for panel in panels):
        raise OutputError(f"{path.name}: no case or no metric, so there is nothing to draw")
    return save_figure(partial(_scores, panels, title, facts or {}), path)


def draw_curves(
    curves: Curves, path: Path, *, title: str, facts: Mapping[str, str] | None = None
) -> Path:
    """Draw ROC curves, calibration and confusion matrix of a classifier.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    return save_figure(partial(_curves, curves, title, facts or {}), path)


def _scores(panels: Sequence[ScorePanel], title: str, facts: Mapping[str, str]) -> Figure:
    notes = ["Points: cases. Box: interquartile range with the median. Diamond: mean."]
    sheet, top, places = _sheet(title, facts, notes, len(panels))
    for panel, x in zip(panels, places, strict=True):
        axes = sheet.axes(x + 70, top + 40, _wide(len(panels)) - 90, PANEL - 110)
        _strip(axes, panel)
    return sheet.figure


def _strip(axes: Axes, panel: ScorePanel) -> None:
    generator = np.random.default_rng(0)
    groups = [np.asarray(values, dtype=float) for values in panel.values.values()]
    axes.boxplot(
        groups,
        widths=0.5,
        showfliers=False,
        medianprops={"color": _INK},
        boxprops={"color": "#888888"},
        whiskerprops={"color": "#888888"},
        capprops={"color": "#888888"},
    )
    for place, values in enumerate(groups, start=1):
        # Random jitter, so that equal values do not overlap.
        jittered = place + generator.uniform(-0.17, 0.17, len(values))
        axes.scatter(jittered, values, s=16, color=_POINT, alpha=0.65, linewidths=0)
        axes.scatter([place], [values.mean()], s=52, color=_MEAN, marker="D", zorder=3)
    axes.set_xticks(range(1, len(groups) + 1), list(panel.values))
    axes.set_title(panel.title, fontsize=11)
    _style(axes)
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)


def _curves(curves: Curves, title: str, facts: Mapping[str, str]) -> Figure:
    notes = ["Calibration: the area of a point is proportional to its number of predictions."]
    sheet, top, places = _sheet(title, facts, notes, 3)
    wide = _wide(3) - 90
    side = min(wide, PANEL - 110)
    roc, calibrated, table = (sheet.axes(x + 70, top + 40, side, side) for x in places)
    for axes in (roc, calibrated):
        axes.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=1, linestyle="--")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        _style(axes)
    for number, (name, (false_positive, true_positive)) in enumerate(curves.roc.items()):
        roc.plot(
            false_positive, true_positive, linewidth=1.6, label=name, drawstyle="steps-post",
            color=_CURVES[number % len(_CURVES)], linestyle=_DASHES[number // len(_CURVES) % 4],
        )  # fmt: skip
    roc.set_title("ROC", fontsize=11)
    roc.set_xlabel("1 − specificity", fontsize=9)
    roc.set_ylabel("sensitivity", fontsize=9)
    if curves.roc:
        roc.legend(fontsize=8, loc="lower right", frameon=False)
    filled = curves.count > 0
    size = 12 + 240 * curves.count[filled] / curves.count.sum()
    points = curves.confidence[filled], curves.accuracy[filled]
    calibrated.scatter(*points, s=size, color=_POINT, alpha=0.8)
    calibrated.set_title("Calibration", fontsize=11)
    calibrated.set_xlabel("predicted probability", fontsize=9)
    calibrated.set_ylabel("accuracy", fontsize=9)
    _confusion(table, curves.classes, curves.confusion)
    return sheet.figure


def _confusion(axes: Axes, classes: Sequence[str], confusion: NDArray[np.int_]) -> None:
    rates = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(rates, cmap="Greys", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(confusion):
        color = "white" if rates[row, column] > 0.5 else _INK
        axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=10)
    # Smaller text for many classes, so that names do not overlap.
    size = 8 if len(classes) < 4 else 6.5
    axes.set_xticks(range(len(classes)), list(classes), fontsize=size)
    axes.set_yticks(range(len(classes)), list(classes), fontsize=size, rotation=90, va="center")
    axes.set_title("Confusion matrix", fontsize=11)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.set_ylabel("true class", fontsize=9)


def _sheet(
    title: str, facts: Mapping[str, str], notes: Sequence[str], panels: int
) -> tuple[Sheet, int, list[int]]:
    """Return a sheet with header and footer, its top margin, and the left edge of each panel."""
    room = WIDTH - 2 * PAD
    header, footer = Header(title, facts, room), Footer(notes, room)
    top = PAD + header.height
    sheet = Sheet.blank(WIDTH, top + PANEL + footer.height)
    header.write(sheet)
    footer.write(sheet, top + PANEL)
    return sheet, top, [PAD + number * _wide(panels) for number in range(panels)]


def _wide(panels: int) -> int:
    return (WIDTH - 2 * PAD) // panels


def _style(axes: Axes) -> None:
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
