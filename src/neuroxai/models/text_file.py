"""Small text files that somebody gives us."""

from __future__ import annotations

from pathlib import Path

from neuroxai.core.errors import ModelError


def read_text(path: Path, *, largest: int, missing: str = "no such file") -> str:
    """Return the text of a file in UTF-8.

    Parameters
    ----------
    path
        The file.
    largest
        Bytes that it may have.
    missing
        What is said where there is none.

    Raises
    ------
    ModelError
        If the file is missing, unreadable, too large or no text, naming it.
    """
    try:
        size = path.stat().st_size
        if size > largest:
            raise ModelError(f"{path}: {size} bytes, expected at most {largest // 1_000_000} MB")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ModelError(f"{path}: {missing}") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: not text in UTF-8 ({error.reason})") from error
