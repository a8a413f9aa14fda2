"""One static page beside its pictures: no script, no request to anywhere."""

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
from neuroxai.files.atomic import replaced_whole


@dataclass(frozen=True)
class Figure:
    """A picture beside the page.

    Attributes
    ----------
    file
        Path relative to the page's folder, with forward slashes; it must exist and lie inside.
    alt
        What is to be seen, for those who cannot see it; never empty.
    caption
        What it shows and how it was made.
    """

    file: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """A table of numbers; units stand in ``header``, ``note`` says how they were made."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, a block of commands or code, tables and figures below it."""

    heading: str
    prose: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    code: str = ""


@dataclass(frozen=True)
class _Placed:
    """A figure as the template needs it: a safe link, and the size to leave room for."""

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
    """Write ``index.html`` (or any name): one file, with pictures linked from beside it.

    All text is escaped, wherever it comes from. The page's content security policy allows its
    own style sheet, by hash, and pictures; nothing else is ever loaded or run.

    Parameters
    ----------
    path
        The page; written whole or not at all, after all of its pictures.
    sections
        In reading order; a list of contents is made where there are two or more.
    lead
        Paragraphs under the title.
    footer
        A last line: versions, date, how to make the page again.

    Raises
    ------
    OutputError
        If a picture is missing, lies outside the page's folder or has no alternative text, a
        row has not as many cells as the header, or the page cannot be written.

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
            tuple(_checked(path, table) for table in section.tables),
            tuple(_placed(path, figure) for figure in section.figures),
        )
        for section in sections
    ]
    room = resources.files("neuroxai.render")
    style = room.joinpath("page.css").read_text("utf-8")
    pin = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    # A page opened from disk has no origin of its own in some browsers, hence file:.
    policy = (
        f"default-src 'none'; style-src 'sha256-{pin}'; img-src 'self' file:; "
        "base-uri 'none'; form-action 'none'"
    )
    maker = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = maker.from_string(room.joinpath("page.html.jinja").read_text("utf-8")).render(
        title=title,
        lead=list(lead),
        sections=parts,
        footer=footer,
        disclaimer=NOT_FOR_CLINICAL_USE,
        policy=policy,
        style=Markup(style),  # noqa: S704 - the package's own file
    )
    with replaced_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def _checked(page: Path, table: Table) -> Table:
    """Refuse a table with cells that stand under no heading."""
    for row in table.rows:
        if len(row) != len(table.header):
            raise OutputError(
                f"{page}: the table {table.caption!r} has {len(table.header)} columns, "
                f"but a row has {len(row)} cells"
            )
    return table


def _placed(page: Path, figure: Figure) -> _Placed:
    """Find a figure's file and its size; refuse what the page could not show."""
    relative = PurePosixPath(figure.file)
    if relative.is_absolute() or ".." in relative.parts or "\\" in figure.file:
        raise OutputError(f"{page}: the picture {figure.file!r} must lie in the page's folder")
    file = page.parent / relative
    if not file.is_file():
        raise OutputError(f"{page}: the picture {figure.file!r} does not exist; write it first")
    if not figure.alt.strip():
        raise OutputError(f"{page}: the picture {figure.file!r} needs an alternative text")
    # The leading ./ keeps a name such as "data:x.png" a path, not a scheme.
    return _Placed("./" + quote(relative.as_posix()), figure.alt, figure.caption, _png_size(file))


def _png_size(file: Path) -> tuple[int, int] | None:
    """Return width and height in px from a PNG's first bytes, None for any other file."""
    with file.open("rb") as stream:
        head = stream.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        return None
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
