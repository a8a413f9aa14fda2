"""Which of several processes that train together this is."""

from __future__ import annotations

import os


def rank() -> int:
    """Return this process's number; 0 leads, and alone reports and writes.

    Lightning starts the others, each with a number of its own in ``LOCAL_RANK``.
    """
    return int(os.environ.get("LOCAL_RANK", "0"))
