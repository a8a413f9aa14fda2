"""Tables of the labels of a segmentation, for BIDS tools, ITK-SNAP and 3D Slicer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from neuroxai.files.atomic import atomic_path
from neuroxai.render.colors import LABEL_COLORS, LABELS


def label_tables(labels: Path) -> tuple[Path, Path, Path]:
    """Return the paths of the tables next to a label file.

    Examples
    --------
    >>> [path.name for path in label_tables(Path("sub-1_dseg.nii.gz"))]
    ['sub-1_dseg.tsv', 'sub-1_dseg.txt', 'sub-1_dseg.ctbl']
    """
    stem = labels.name.removesuffix(".gz").removesuffix(".nii")
    tsv, itksnap, slicer = (labels.with_name(f"{stem}{end}") for end in (".tsv", ".txt", ".ctbl"))
    return tsv, itksnap, slicer


def write_label_tables(labels: Path, numbers: Mapping[str, int]) -> tuple[Path, Path, Path]:
    """Write the names and colors of a label file's numbers, and return the paths.

    The ``.tsv`` is the lookup table of BIDS (``index``, ``name``, ``color``), the ``.txt`` a label
    description of ITK-SNAP, the ``.ctbl`` a color table of 3D Slicer.

    Parameters
    ----------
    labels
        The label file.
    numbers
        Name to number; the number 0 is the background, which is transparent.
    """
    rows = [
        (number, name.replace("\t", " ").replace('"', "'"), _color(name, place))
        for place, (name, number) in enumerate(sorted(numbers.items(), key=lambda item: item[1]))
    ]
    tsv = ["index\tname\tcolor", *(f"{n}\t{name}\t{color}" for n, name, color in rows)]
    itksnap, slicer = ["# ITK-SNAP label description: IDX R G B A VIS MSH LABEL"], []
    for number, name, color in rows:
        red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
        shown = int(number != 0)
        itksnap.append(f'{number} {red} {green} {blue} {shown} {shown} {shown} "{name}"')
        word = "_".join(name.split())
        slicer.append(f"{number} {word} {red} {green} {blue} {255 * shown}")
    paths = label_tables(labels)
    for path, lines in zip(paths, (tsv, itksnap, slicer), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return paths


def _color(name: str, place: int) -> str:
    """Return the color that the figures use for a class; other classes take the next ones."""
    if name in LABELS:
        return LABEL_COLORS[LABELS.index(name)]
    return LABEL_COLORS[1 + (place - 1) % (len(LABEL_COLORS) - 1)]
