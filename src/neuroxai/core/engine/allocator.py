"""Let the C library keep freed memory between passes instead of returning it to the system.

glibc returns every large block to the system after each pass and page-faults it in again in the
next; for volumes this costs as much as the arithmetic. Three settings of ``mallopt(3)`` avoid it.
They apply to the whole process, so this is an explicit call and not a side effect of an import: the
command line makes it, users of the library may.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Option numbers of glibc's ``malloc.h``."""

_TOP_PAD_BYTES = 256 * 2**20
"""Memory requested from the system at once: a feature map of 32 channels at 128³."""


def tune_allocator() -> bool:
    """Let this process keep freed memory for its next pass; return whether it took effect.

    This affects Linux with glibc only. Elsewhere nothing changes and False is returned.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - raises if the C library is not glibc
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(option, value) == 1 for option, value in settings)
