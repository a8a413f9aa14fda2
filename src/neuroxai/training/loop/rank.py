"""Rank of this process in distributed training."""

from __future__ import annotations

import os


def rank() -> int:
    """Rank of this process; rank 0 alone reports and writes.

    Lightning starts the other processes and sets ``LOCAL_RANK`` in each.
    """
    return int(os.environ.get("LOCAL_RANK", "0"))
