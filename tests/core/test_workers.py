"""Worker processes complete all jobs, pass errors on, and exit with their parent."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from neuroxai.core.workers import in_workers

SCRIPT = """
import multiprocessing, threading, time
from neuroxai.core.workers import in_workers

def main():
    work = threading.Thread(target=lambda: list(in_workers(time.sleep, [300] * 4, 2)))
    work.start()
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.05)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    work.join()

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int) -> None:
    assert sorted(in_workers(math.sqrt, [1.0, 4.0, 9.0, 16.0, 25.0], workers)) == [1, 2, 3, 4, 5]
    assert list(in_workers(math.sqrt, [], workers)) == []


def test_one_worker_is_this_process() -> None:
    assert set(in_workers(_pid, [0, 1, 2], 1)) == {os.getpid()}
    assert os.getpid() not in set(in_workers(_pid, [0, 1, 2], 2))


def _pid(_: int) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_a_job_are_raised(workers: int) -> None:
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(in_workers(math.sqrt, [1.0, -1.0, 4.0], workers))


def test_a_killed_worker_raises() -> None:
    with pytest.raises(BrokenProcessPool):
        list(in_workers(os._exit, [1, 1, 1], 2))


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_workers_exit_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(workers) == 2
    time.sleep(8)  # until they have begun
    assert all(map(_lives, workers))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 30
    while any(map(_lives, workers)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not any(map(_lives, workers))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    # There may be no parent to collect the process.
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
