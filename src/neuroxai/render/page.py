"""Static HTML page with linked pictures, without scripts and external requests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from neuroxai.core.errors import OutputError
from neuroxai.core.vocabulary import NOT_FOR_CLINICAL_USE
from neuroxai.files.atomic import atomic_path


@dataclass(frozen=True)
class Figure:
    """Picture linked from the page.

    Attributes
    ----------
    file
        Path relative to the folder of the page, with forward slashes; an existing file in it.
    alt
        Alternative text, not empty.
    caption
        Content of the picture and how it was made.
    """

    file: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """Table of numbers, with units in ``header`` and an explanation in ``note``."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Heading with paragraphs, a code block, tables and figures."""

    heading: str
    prose: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    code: str = ""


@dataclass(frozen=True)
class _Placed:
    """Figure as used by the template, with an escaped link and the size in px."""

    link: str
    alt: str
    caption: str
    size: tuple[int, int] | None


@dataclass(frozen=True)
class _Part:
    heading: str
    prose: tuple[str, ...]
    code: str
    tables: tuple[Table, ...]
    figures: tuple[_Placed, ...]


def write_page(
    path: Path,
    sections: Sequence[Section],
    *,
    title: str,
    lead: Sequence[str] = (),
    footer: str = "",
) -> Path:
    """Write an HTML page with pictures linked from its folder.

    All text is escaped. The content security policy allows only the style sheet of the page, by
    its hash, and pictures.

    Parameters
    ----------
    path
        HTML file, written atomically; its pictures must exist.
    sections
        Sections in reading order; two or more get a table of contents.
    lead
        Paragraphs below the title.
    footer
        Last line: versions, date, and how to reproduce the page.

    Raises
    ------
    OutputError
        If a picture is missing, outside of the folder of the page or without alternative text, a
        table row does not match its header, or the page cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> table = Table("Dice", ("region", "Dice"), (("WT", "0.91"),), "mean over 30 phantoms")
    >>> page = Path(tempfile.mkdtemp()) / "index.html"
    >>> _ = write_page(page, [Section("Numbers & <words>", tables=(table,))], title="Demo")
    >>> "Numbers &amp; &lt;words&gt;" in page.read_text("utf-8")
    True
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    path = Path(path)
    parts = [
        _Part(
            section.heading,
            section.prose,
            section.code,
            tuple(_check_table(path, table) for table in section.tables),
            tuple(_place_figure(path, figure) for figure in section.figures),
        )
        for section in sections
    ]
    package = resources.files("neuroxai.render")
    style = package.joinpath("page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # In some browsers, 'self' does not match pages opened from disk; file: does.
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src 'self' file:; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(package.joinpath("page.html.jinja").read_text("utf-8"))
    text = template.render(
        title=title,
        lead=list(lead),
        sections=parts,
        footer=footer,
        disclaimer=NOT_FOR_CLINICAL_USE,
        policy=policy,
        style=Markup(style),  # noqa: S704 - a file of the package
    )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def _check_table(page: Path, table: Table) -> Table:
    """Return a table, or raise if a row does not match its header."""
    for row in table.rows:
        if len(row) != len(table.header):
            raise OutputError(
                f"{page}: a row of the table {table.caption!r} has {len(row)} cells, "
                f"expected {len(table.header)} as its header"
            )
    return table


def _place_figure(page: Path, figure: Figure) -> _Placed:
    """Return a figure with its link and size, or raise if the page cannot show it."""
    relative = PurePosixPath(figure.file)
    if relative.is_absolute() or ".." in relative.parts or "\\" in figure.file:
        raise OutputError(
            f"{page}: the picture {figure.file!r} must be in the folder of the page; move it there"
        )
    file = page.parent / relative
    if not file.is_file():
        raise OutputError(f"{page}: the picture {figure.file!r} does not exist; write it first")
    if not figure.alt.strip():
        raise OutputError(f"{page}: the picture {figure.file!r} has no alternative text; add one")
    # With a leading ./, a name such as "data:x.png" is not taken as a URL scheme.
    return _Placed("./" + quote(relative.as_posix()), figure.alt, figure.caption, _png_size(file))


def _png_size(file: Path) -> tuple[int, int] | None:
    """Return width and height in px from the header of a PNG; None for any other file."""
    with file.open("rb") as stream:
        head = stream.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
