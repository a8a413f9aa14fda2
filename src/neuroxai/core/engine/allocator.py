"""What the C library does with freed memory: keep it for the next pass, or return it.

By default glibc returns a large block to the system after each pass and page-faults it in again in
the next; for volumes this costs as much as the arithmetic. Kept blocks are split and no longer fit
the next tensor, though, so the process grows beyond what its tensors need. ``mallopt(3)`` chooses
between the two. Its settings apply to the whole process, so nothing is set by an import: the
command line keeps freed memory, a session with a tight memory budget returns it.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
"""Option numbers of glibc's ``malloc.h``."""

_TOP_PAD_BYTES = 256 * 2**20
"""Memory requested from the system at once: a feature map of 32 channels at 128³."""

_MAPPED_FROM = 4 * 2**20
"""Blocks from this size are returned when freed: a feature map of 32 channels at 32³.

Setting it also stops glibc from raising it to 32 MiB, its default as soon as such blocks are freed.
"""

_DEFAULT_TOP_PAD, _DEFAULT_MMAP_MAX = 128 * 2**10, 65_536
"""glibc's defaults, mallopt(3)."""


def tune_allocator() -> bool:
    """Let this process keep freed memory for its next pass; return whether it took effect.

    This affects Linux with glibc only. Elsewhere nothing changes and False is returned.
    """
    return _set(
        (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _TOP_PAD_BYTES)
    )  # fmt: skip


def return_freed_memory() -> bool:
    """Let this process return freed memory to the system; return whether it took effect.

    This undoes :func:`tune_allocator` and also returns what is free at the moment. It affects Linux
    with glibc only. Elsewhere nothing changes and False is returned.
    """
    changed = _set(
        (_M_MMAP_MAX, _DEFAULT_MMAP_MAX), (_M_MMAP_THRESHOLD, _MAPPED_FROM),
        (_M_TRIM_THRESHOLD, _MAPPED_FROM), (_M_TOP_PAD, _DEFAULT_TOP_PAD),
    )  # fmt: skip
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)
    return changed


def _set(*settings: tuple[int, int]) -> bool:
    libc = _glibc()
    return libc is not None and all(libc.mallopt(*setting) == 1 for setting in settings)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version, libc.mallopt, libc.malloc_trim  # noqa: B018 - glibc only
    except (OSError, AttributeError):
        return None
    return libc
