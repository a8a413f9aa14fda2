"""Memory sizes, the memory left on a device, and out-of-memory errors.

torch is imported on use, so that a size can be checked without waiting for it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from neuroxai.core.errors import ModelError

if TYPE_CHECKING:
    import torch

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
          "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", re.IGNORECASE)
# The last three are messages of oneDNN and C++; a primitive *descriptor* fails for other reasons.
_OUT_OF_MEMORY = re.compile(
    "not enough memory|can't allocate memory|could not create a memory|bad_alloc"
    "|could not (create|execute) a primitive(?! descriptor)"
)
_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def parse_size(text: str | int) -> int:
    """Return a size in bytes.

    Raises
    ------
    ModelError
        If ``text`` is not a positive size.

    Examples
    --------
    >>> parse_size("4GB"), parse_size("1.5 GiB"), parse_size(1000)
    (4000000000, 1610612736, 1000)
    """
    found = _SIZE.fullmatch(str(text))
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if size <= 0:
        raise ModelError(f"invalid memory size {text!r}; use for example 4GB or 512MiB")
    return size


def format_size(size: float) -> str:
    """Format a size in bytes as MB or GB.

    Examples
    --------
    >>> format_size(4_210_000_000), format_size(73_000_000)
    ('4.2 GB', '73 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def available_memory(device: torch.device) -> int | None:
    """Return the number of bytes still available on a device, or None if it cannot be determined.

    On the CPU, this is the smaller of the system's available memory and the control group's limit.
    """
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    known = [size for size in (_system(), _control_group()) if size is not None]
    return min(known, default=None)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error was raised because memory ran out."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and bool(_OUT_OF_MEMORY.search(str(error)))


def _system() -> int | None:
    if _MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        if "MemAvailable" in lines:
            return int(lines["MemAvailable"].split()[0]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _control_group() -> int | None:
    limit, used = (_CGROUP / name for name in ("memory.max", "memory.current"))
    try:
        allowed = limit.read_text().strip()
        return None if allowed == "max" else max(int(allowed) - int(used.read_text()), 0)
    except (OSError, ValueError):
        return None
