"""Keep large blocks of memory between passes instead of faulting them in again.

glibc gives every large block back to the system after each pass and faults it in anew at the next;
on volumes that costs as much as the arithmetic. Three settings of ``mallopt(3)`` keep the blocks.
The setting belongs to the whole process, so it is a call and never a side effect of an import: the
command line makes it for itself, a library user may.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 256 * 2**20


def tune_allocator() -> bool:
    """Let this process keep freed memory for its next pass; return whether it took effect.

    Does something on Linux with glibc only; elsewhere nothing is changed and False returned.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - raises where the C library is not glibc
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(mallopt(option, value) == 1 for option, value in settings)
