"""Reading of small text files."""

from __future__ import annotations

from pathlib import Path

from neuroxai.core.errors import ModelError


def read_text(path: Path, *, largest: int, missing: str = "no such file") -> str:
    """Read a UTF-8 text file.

    Parameters
    ----------
    path
        The file.
    largest
        Maximum size in bytes.
    missing
        Error message if the file does not exist.

    Raises
    ------
    ModelError
        Naming the file, if it is missing, unreadable, too large or not UTF-8 text.
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
